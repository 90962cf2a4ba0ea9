//go:build linux && (amd64 || arm64)

package acceptqueue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/tracegate/tracegate/bpf/hist"
	"github.com/tracegate/tracegate/bpf/kernel"
	"github.com/tracegate/tracegate/bpf/probe"
)

// Probe is loaded and attached.
type Probe struct {
	*kernel.Object
	timer bool // the programs sweep by themselves
}

// Interval is the time between two sweeps, by which a wait may be reported too short.
const Interval = 20 * time.Millisecond

// Open loads and attaches the probe; waits at least slow long become exemplars. The
// caller runs it (Run) and closes it.
func Open(env *kernel.Env, slow time.Duration) (*Probe, probe.Status, error) {
	return open(env, slow, env.Features.HasTimer())
}

func open(env *kernel.Env, slow time.Duration, timer bool) (*Probe, probe.Status, error) {
	status := probe.Status{Probe: Name, State: probe.On, Source: "tracepoint inet_sock_set_state, a sweep every " + Interval.String() + ", socket diagnostics"}
	if !env.Features.HasTracepoint("inet_sock_set_state", 3) {
		return nil, status, errors.New("the kernel has no tracepoint inet_sock_set_state (Linux 4.16)")
	}
	spec, err := loadBpf()
	if err != nil {
		return nil, status, err
	}
	opts := kernel.Options{Slow: slow, Constants: map[string]any{"sweep_ns": uint64(0)}}
	if timer {
		opts.Constants["sweep_ns"] = uint64(Interval)
	}
	o, err := kernel.Load(env, Name, spec, opts)
	if err != nil {
		return nil, status, err
	}
	p := &Probe{Object: o, timer: timer}
	if err := errors.Join(p.Sweep(), o.Attach("accept_state")); err != nil {
		return nil, status, errors.Join(err, o.Close())
	}
	return p, status, nil
}

// Sweep looks which connections have been accepted since the last time.
func (p *Probe) Sweep() error {
	if _, err := p.Program("sweep").Run(&ebpf.RunOptions{}); err != nil {
		return fmt.Errorf("sweep accept queues: %w", err)
	}
	return nil
}

// Run sweeps until ctx is done, where the programs cannot do it themselves.
func (p *Probe) Run(ctx context.Context) error {
	if p.timer {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := p.Sweep(); err != nil {
				return err
			}
		}
	}
}

// SetListeners says which local ports belong to which slot, beside what the probe
// learns from listen.
func (p *Probe) SetListeners(ports map[uint16]uint32) error {
	for port, slot := range ports {
		if err := p.Map("ports").Put(port, slot); err != nil {
			return fmt.Errorf("set owner of port %d: %w", port, err)
		}
	}
	return nil
}

// ports returns the ports known so far and whose they are.
func (p *Probe) ports() (map[uint16]uint32, error) {
	ports := map[uint16]uint32{}
	var port uint16
	var slot uint32
	it := p.Map("ports").Iterate()
	for it.Next(&port, &slot) {
		ports[port] = slot
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read ports: %w", err)
	}
	return ports, nil
}

// Read returns the waits by listener, and the queues of known listeners.
func (p *Probe) Read() (probe.Reading, error) {
	var r probe.Reading
	err := kernel.Each(p.Object, "accepts", func(l bpfListener, cpus []hist.Histogram) {
		r.Series = append(r.Series, probe.Series{
			Probe: Name, Kind: "accept", Owner: p.Owner(l.Slot), Target: fmt.Sprintf("local port %d", l.Port), Hist: kernel.Sum(cpus),
		})
	})
	if err != nil {
		return r, err
	}
	ports, err := p.ports()
	if err != nil {
		return r, err
	}
	listeners, err := Listeners()
	if err != nil {
		return r, err
	}
	for _, l := range listeners {
		if slot, ok := ports[l.Port]; ok {
			l.Owner = p.Owner(slot)
			r.Queues = append(r.Queues, l.Queue)
		}
	}
	r.Lost, err = p.Lost()
	return r, err
}

// Forget drops what was counted for a slot that will get a new owner.
func (p *Probe) Forget(slot uint32) error {
	ports, err := p.ports()
	if err != nil {
		return err
	}
	errs := []error{kernel.DeleteIf(p.Object, "accepts", func(l bpfListener) bool { return l.Slot == slot })}
	for port, s := range ports {
		if s == slot {
			errs = append(errs, p.Map("ports").Delete(port))
		}
	}
	return errors.Join(errs...)
}

// Exemplars hands long waits to use until ctx is done.
func (p *Probe) Exemplars(ctx context.Context, use func(probe.Exemplar)) error {
	return p.Object.Exemplars(ctx, func(kernel.Raw) (string, string) { return "accept", "" }, use)
}
