//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/tracegate/tracegate/edge/child"
)

// process is a copy of this binary with a role. It ends when its standard input does.
type process struct {
	role  string
	addr  string // where it listens, if it does
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *json.Decoder
}

// request and answer are the lines that go to a process and come from it.
type request struct {
	Order string          `json:"order"`
	Args  json.RawMessage `json:"args"`
}

type answer struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// start runs a role and waits until it has said where it listens.
func start(ctx context.Context, role string, args ...string) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := child.Command(ctx, exe, append([]string{"-role", role}, args...)...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	p := &process{role: role, cmd: cmd, stdin: stdin, out: json.NewDecoder(stdout)}
	if err := p.out.Decode(&p.addr); err != nil {
		p.stop()
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	return p, nil
}

// ask gives an order and waits for its result.
func (p *process) ask(order string, args, result any) error {
	raw, err := json.Marshal(args)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(p.stdin).Encode(request{order, raw}); err != nil {
		return fmt.Errorf("%s: %s: %w", p.role, order, err)
	}
	var a answer
	if err := p.out.Decode(&a); err != nil {
		return fmt.Errorf("%s: %s: %w", p.role, order, err)
	}
	if a.Error != "" {
		return fmt.Errorf("%s: %s: %s", p.role, order, a.Error)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(a.Result, result)
}

func (p *process) stop() {
	p.stdin.Close()
	_ = p.cmd.Wait() // what it has to say, it has said
}

// orders are what a process can be asked.
type orders map[string]func(args json.RawMessage) (any, error)

// obey says where the process listens and follows orders until its input ends.
func obey(addr string, can orders) error {
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(addr); err != nil {
		return err
	}
	for in := json.NewDecoder(os.Stdin); ; {
		var r request
		switch err := in.Decode(&r); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := out.Encode(carryOut(can, r)); err != nil {
			return err
		}
	}
}

func carryOut(can orders, r request) (a answer) {
	do := can[r.Order]
	if do == nil {
		return answer{Error: "there is no such order"}
	}
	result, err := do(r.Args)
	if err == nil {
		a.Result, err = json.Marshal(result)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// order makes one of a function with typed arguments.
func order[A, R any](do func(A) (R, error)) func(json.RawMessage) (any, error) {
	return func(raw json.RawMessage) (any, error) {
		var args A
		if err := json.Unmarshal(raw, &args); err != nil {
			return nil, err
		}
		return do(args)
	}
}
