// Package local runs the parts of the product as processes of this machine: what
// the operator does with pods on Kubernetes, done with exec for `tracegate up`.
//
// It starts parts in stages, each once the one before is ready, restarts a part
// that dies, and stops the stages in reverse. It knows nothing of what a part does:
// a part is a command line, a readiness check and a deadline. The root package
// wires it; nothing else imports it.
//
// One process a part rather than one process for all: a part can be killed alone
// (which the fault tests do), it runs by the same subcommand as in production, and a
// crash of the ClickHouse engine, which is C++, takes nothing else with it. The
// alternative, goroutines in one process, starts half a second faster and lost.
package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Supervised is set in the environment of every part. A process that sees it must
// end when its standard input does: that is how parts follow a supervisor which was
// killed, on every system.
const Supervised = "TRACEGATE_SUPERVISED"

var errEnded = errors.New("exit status 0")

// Part is one process to keep running.
type Part struct {
	// Name is unique; it labels the part's log lines and status.
	Name string
	// Argv is the command line, Argv[0] the path of the binary.
	Argv []string
	// Ready returns nil once the part serves. It is polled.
	Ready func(context.Context) error
	// Stop is how long the part may drain after SIGTERM before it is killed.
	Stop time.Duration
}

// Config bounds how parts are kept.
type Config struct {
	// StartTimeout is how long a part may take to become ready the first time.
	StartTimeout time.Duration
	// MinBackoff and MaxBackoff bound the pause before a restart; it doubles while
	// the part dies within HealthyAfter of its start.
	MinBackoff, MaxBackoff, HealthyAfter time.Duration
	// StatusFile, where not empty, always holds the current [Status] as JSON.
	StatusFile string
	// Output receives what parts write to standard output and error, a whole line a
	// call, from several goroutines.
	Output io.Writer
}

// DefaultConfig is what `tracegate up` uses.
func DefaultConfig() Config {
	return Config{
		StartTimeout: 90 * time.Second,
		MinBackoff:   50 * time.Millisecond,
		MaxBackoff:   5 * time.Second,
		HealthyAfter: 10 * time.Second,
		Output:       os.Stderr,
	}
}

// Supervisor keeps parts running. Its fields are not changed after [New].
type Supervisor struct {
	cfg    Config
	stages [][]Part
	status *board
	log    *slog.Logger
}

// New checks its arguments and starts nothing. The parts of a stage start and stop
// together; a stage needs those before it.
func New(cfg Config, stages [][]Part, log *slog.Logger) (*Supervisor, error) {
	seen := map[string]bool{}
	parts := slices.Concat(stages...)
	for _, p := range parts {
		switch {
		case p.Name == "" || seen[p.Name]:
			return nil, fmt.Errorf("part %q: name empty or taken", p.Name)
		case len(p.Argv) == 0:
			return nil, fmt.Errorf("part %s: no command", p.Name)
		case p.Ready == nil:
			return nil, fmt.Errorf("part %s: no readiness check", p.Name)
		}
		seen[p.Name] = true
	}
	return &Supervisor{cfg: cfg, stages: stages, status: newBoard(cfg.StatusFile, parts, log), log: log}, nil
}

// Run starts the parts, calls up once all are ready, and keeps them running until
// ctx is done; then it stops them in reverse. Parts that have not ended when kill is
// done are killed at once. It returns an error where a part could not be started the
// first time, or where up failed.
func (s *Supervisor) Run(ctx, kill context.Context, up func(context.Context) error) error {
	return s.run(ctx, kill, s.stages, up)
}

// run starts the first of stages, then the rest inside it, and stops it when the rest
// has ended.
func (s *Supervisor) run(ctx, kill context.Context, stages [][]Part, up func(context.Context) error) error {
	if len(stages) == 0 {
		return s.stay(ctx, up)
	}
	var starting errgroup.Group
	var stopping sync.WaitGroup
	partsCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stopping.Wait()
	defer stop()
	for _, p := range stages[0] {
		k := &keeper{part: p, cfg: s.cfg, status: s.status, log: s.log.With("process", p.Name), first: make(chan error, 1)}
		stopping.Go(func() { k.keep(partsCtx, kill) })
		starting.Go(func() error { return k.started(ctx) })
	}
	if err := starting.Wait(); err != nil {
		return err
	}
	return s.run(ctx, kill, stages[1:], up)
}

// stay calls up and then waits for the end.
func (s *Supervisor) stay(ctx context.Context, up func(context.Context) error) error {
	if ctx.Err() != nil {
		return nil
	}
	if err := up(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	<-ctx.Done()
	return nil
}

// keeper owns one part's process.
type keeper struct {
	part   Part
	cfg    Config
	status *board
	log    *slog.Logger
	first  chan error // readiness of the first start, sent once
}

// started waits until the part is ready for the first time, or ctx is done.
func (k *keeper) started(ctx context.Context) error {
	start := time.Now()
	select {
	case err := <-k.first:
		if err != nil {
			return fmt.Errorf("start %s: %w", k.part.Name, err)
		}
		k.log.Info("part is ready", "took", time.Since(start).Round(time.Millisecond))
	case <-ctx.Done():
	}
	return nil
}

// keep runs the part again and again until ctx is done.
func (k *keeper) keep(ctx, kill context.Context) {
	backoff := k.cfg.MinBackoff
	for restarts := 0; ; restarts++ {
		start := time.Now()
		err := k.once(ctx, kill, restarts)
		if ctx.Err() != nil {
			k.status.set(k.part.Name, func(p *PartStatus) { *p = PartStatus{Name: p.Name, State: Stopped, Restarts: p.Restarts} })
			return
		}
		if restarts == 0 && !k.ready() {
			k.first <- fmt.Errorf("it ended before it was ready: %w", err)
			return
		}
		if time.Since(start) > k.cfg.HealthyAfter {
			backoff = k.cfg.MinBackoff
		}
		k.log.Warn("part ended, restarting", "error", err, "after", time.Since(start).Round(time.Millisecond), "backoff", backoff)
		k.status.set(k.part.Name, func(p *PartStatus) { p.PID, p.State, p.Restarts = 0, Restarting, restarts+1 })
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
		}
		backoff = min(backoff*2, k.cfg.MaxBackoff)
	}
}

// ready says whether the part has been ready at least once.
func (k *keeper) ready() bool { return !k.status.get(k.part.Name).Since.IsZero() }

// once runs the process to its end.
func (k *keeper) once(ctx, kill context.Context, restarts int) error {
	cmd := exec.Command(k.part.Argv[0], k.part.Argv[1:]...)
	cmd.Env = append(os.Environ(), Supervised+"=1")
	cmd.SysProcAttr = ownProcessGroup() // a Ctrl-C at the terminal reaches the supervisor alone
	out := &lines{w: k.cfg.Output}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second
	stdin, err := cmd.StdinPipe() // held open: its end tells the part that the supervisor is gone
	if err != nil {
		return fmt.Errorf("open standard input: %w", err)
	}
	defer stdin.Close()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start process: %w", err)
	}
	k.status.set(k.part.Name, func(p *PartStatus) { p.PID, p.State, p.Restarts = cmd.Process.Pid, Starting, restarts })

	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	readyCtx, stopReady := context.WithCancel(ctx)
	defer stopReady()
	readiness := make(chan error, 1)
	go func() { readiness <- k.awaitReady(readyCtx) }()

	for {
		select {
		case err := <-ended:
			return fmt.Errorf("%s: %w", out.last, cmp.Or(err, errEnded))
		case err := <-readiness:
			if err == nil {
				k.status.set(k.part.Name, func(p *PartStatus) { p.State, p.Since = Running, time.Now() })
			}
			if restarts == 0 {
				k.first <- err
			}
		case <-ctx.Done():
			return k.end(kill, cmd, ended)
		}
	}
}

func (k *keeper) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.StartTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := k.part.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready within %s: %w", k.cfg.StartTimeout, err)
		case <-tick.C:
		}
	}
}

// end asks the process to drain, and kills it after its deadline or when kill is done.
func (k *keeper) end(kill context.Context, cmd *exec.Cmd, ended <-chan error) error {
	k.status.set(k.part.Name, func(p *PartStatus) { p.State = Stopping })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		k.log.Warn("part could not be asked to stop", "error", err)
	}
	deadline := time.NewTimer(k.part.Stop)
	defer deadline.Stop()
	select {
	case err := <-ended:
		return err
	case <-deadline.C:
		k.log.Warn("part did not drain in time, killing it", "deadline", k.part.Stop)
	case <-kill.Done():
	}
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		k.log.Warn("part could not be killed", "error", err)
	}
	return <-ended
}
