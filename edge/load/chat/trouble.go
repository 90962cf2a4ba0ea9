package chat

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/tracegate/tracegate/edge/load/engines"
	"github.com/tracegate/tracegate/edge/load/netfault"
)

// Part is a process of the product that somebody else keeps running.
type Part struct {
	Name string
	PID  func() (int, error)
	// Healed says whether a process other than the one that was killed is ready.
	Healed func(killed int) (bool, error)
}

// healTime is how long a part may take to be there again.
const healTime = 4 * time.Minute

// PartFaults are a kill -9, an orderly stop and a stop in its tracks (SIGSTOP) of a part.
func PartFaults(p Part, faults ...string) []Fault {
	var out []Fault
	for _, name := range faults {
		f := Fault{Name: name + " " + p.Name, Target: p.Name}
		switch name {
		case "kill":
			f.Strike = p.end(syscall.SIGKILL)
		case "drain":
			f.Strike = p.end(syscall.SIGTERM)
		case "freeze":
			f.Strike = p.freeze
		}
		out = append(out, f)
	}
	return out
}

// end sends a signal; the supervisor does the rest.
func (p Part) end(sig syscall.Signal) func(context.Context) (func(context.Context) error, error) {
	return func(context.Context) (func(context.Context) error, error) {
		pid, err := p.PID()
		if err != nil {
			return nil, err
		}
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return nil, err
		}
		return func(ctx context.Context) error { return p.healed(ctx, pid) }, nil
	}
}

func (p Part) healed(ctx context.Context, killed int) error {
	ctx, cancel := context.WithTimeout(ctx, healTime)
	defer cancel()
	for {
		ok, err := p.Healed(killed)
		if ok && err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s is not ready again: %w", p.Name, errors.Join(ctx.Err(), err))
		}
		pause(ctx, 50*time.Millisecond)
	}
}

func (p Part) freeze(context.Context) (func(context.Context) error, error) {
	pid, err := p.PID()
	if err != nil {
		return nil, err
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
		return nil, err
	}
	return func(context.Context) error {
		if err := syscall.Kill(pid, syscall.SIGCONT); !errors.Is(err, syscall.ESRCH) {
			return err
		}
		return nil
	}, nil
}

// EngineFaults are kills of an engine's processes, one at a time, and each of its networks
// cut, silent and slow.
func EngineFaults(e engines.Engine) []Fault {
	var out []Fault
	for _, p := range e.Processes {
		out = append(out, Fault{Name: "kill " + p.Name, Target: e.Name, Strike: func(context.Context) (func(context.Context) error, error) {
			p.Kill()
			return p.Start, nil
		}})
	}
	for i, n := range e.Networks {
		for _, s := range []struct {
			name  string
			state netfault.State
		}{
			{"cut", netfault.State{Mode: netfault.Cut}},
			{"silent", netfault.State{Mode: netfault.Silent}},
			{"slow", netfault.State{Mode: netfault.Slow, Delay: 100 * time.Millisecond}},
		} {
			out = append(out, Fault{Name: fmt.Sprintf("%s network %d to %s", s.name, i+1, e.Name), Target: e.Name, Strike: func(context.Context) (func(context.Context) error, error) {
				n.Set(s.state)
				return func(context.Context) error { n.Set(netfault.State{}); return nil }, nil
			}})
		}
	}
	return out
}
