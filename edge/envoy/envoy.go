// Package envoy runs one Envoy as a child process: finds the binary, starts it with
// a bootstrap, passes its log on, watches it, drains it in order, and asks its admin
// interface.
//
// It does not write the bootstrap (edge/bootstrap), does not restart (the supervisor
// does, and a restarted Envoy gets its last configuration from the control plane),
// and hands over to a successor only where it is told to ([Lineage]). Callers: edge,
// edge/envoytest.
package envoy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tracegate/tracegate/edge/child"
)

// ErrPortInUse is in the error of an Envoy that ended because it could not listen.
var ErrPortInUse = errors.New("port is in use")

// Options are what one process needs.
type Options struct {
	// Binary is the path from [Find].
	Binary string
	// Bootstrap is the configuration, JSON or YAML.
	Bootstrap []byte
	// Admin is the host:port of the admin interface in the bootstrap.
	Admin string
	// Dir is where Envoy runs and the bootstrap file is written; it must exist. A relative
	// file name in a configuration is one in there.
	Dir string
	// Concurrency is the number of worker threads; 0 means one a core.
	Concurrency int
	// LogLevel is Envoy's: trace, debug, info, warning, error, critical. Empty means
	// info, which goes to slog's debug level.
	LogLevel string
	// Drain is how long Envoy asks clients to go before it closes its listeners.
	Drain time.Duration
	// Environment is what Envoy sees of one beside PATH, as NAME=value.
	Environment []string
	// Lineage lets a successor take over; nil: none can.
	Lineage *Lineage
}

// Process is a running Envoy.
type Process struct {
	cmd   *exec.Cmd
	kill  context.CancelFunc
	admin *Admin
	line  *Lineage
	log   *slog.Logger
	last  lastError
	ended chan struct{}
	err   error // why it ended; read it after ended is closed
}

// Start starts Envoy and returns at once; see [Process.WaitReady]. The caller must
// call [Process.Stop] or [Process.Kill]. Envoy also ends with this process
// (edge/child).
func Start(o Options, log *slog.Logger) (*Process, error) {
	for _, path := range []*string{&o.Binary, &o.Dir} {
		abs, err := filepath.Abs(*path) // Envoy runs elsewhere
		if err != nil {
			return nil, fmt.Errorf("start envoy: %w", err)
		}
		*path = abs
	}
	path := filepath.Join(o.Dir, "bootstrap.json")
	if !strings.HasPrefix(strings.TrimSpace(string(o.Bootstrap)), "{") {
		path = filepath.Join(o.Dir, "bootstrap.yaml")
	}
	if err := os.WriteFile(path, o.Bootstrap, 0o600); err != nil {
		return nil, fmt.Errorf("write bootstrap: %w", err)
	}
	ctx, kill := context.WithCancel(context.Background())
	cmd := child.Command(ctx, o.Binary, arguments(o, path)...)
	cmd.Dir = o.Dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, o.Environment...) // no secret of ours belongs in there
	cmd.Cancel = func() error { return cmd.Process.Kill() }
	stderr, err := cmd.StderrPipe()
	if err != nil {
		kill()
		return nil, fmt.Errorf("start envoy: %w", err)
	}
	if err := cmd.Start(); err != nil {
		kill()
		return nil, fmt.Errorf("start envoy: %w", err)
	}
	p := &Process{cmd: cmd, kill: kill, admin: NewAdmin(o.Admin), line: o.Lineage, log: log, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		copyLog(stderr, log, &p.last)
		p.err = exitError(cmd.Wait(), p.last.get())
		kill()
	}()
	return p, nil
}

func arguments(o Options, path string) []string {
	level := o.LogLevel
	if level == "" {
		level = "info"
	}
	args := []string{
		"--config-path", path,
		"--log-level", level, "--log-format", logFormat,
		"--drain-time-s", strconv.Itoa(max(1, int(o.Drain.Seconds()))),
		"--drain-strategy", "immediate",
	}
	if o.Concurrency > 0 {
		args = append(args, "--concurrency", strconv.Itoa(o.Concurrency))
	}
	return append(args, o.Lineage.arguments(o.Dir, o.Drain)...)
}

// exitError says why Envoy ended, from its exit and from its last error message.
func exitError(exit error, last string) error {
	switch {
	case strings.Contains(last, "Address already in use"):
		return fmt.Errorf("envoy: %w: %s", ErrPortInUse, last)
	case exit == nil:
		return nil
	case last == "":
		return fmt.Errorf("envoy ended: %w", exit)
	}
	return fmt.Errorf("envoy ended: %w: %s", exit, last)
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Admin asks and commands this Envoy.
func (p *Process) Admin() *Admin { return p.admin }

// Ended is closed when the process is gone; [Process.Err] then says why.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Err is why the process ended, nil for exit status 0. It waits for the end.
func (p *Process) Err() error {
	<-p.ended
	return p.err
}

// WaitReady returns once Envoy has its first configuration and serves. It fails
// when the process ends or ctx is done.
func (p *Process) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := p.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.ended:
			if p.err == nil {
				return errors.New("envoy ended before it was ready")
			}
			return p.err
		case <-ctx.Done():
			return fmt.Errorf("wait for envoy: %w: %w", ctx.Err(), err)
		}
	}
}

// ready asks whether this process serves: until a successor has the admin interface, the
// one before answers there.
func (p *Process) ready(ctx context.Context) error {
	if err := p.admin.Ready(ctx); err != nil || p.line == nil {
		return err
	}
	const epoch = "server.hot_restart_epoch"
	stats, err := p.admin.Stats(ctx, "^"+epoch+"$")
	if err == nil && stats[epoch] != uint64(p.line.Epoch) {
		err = fmt.Errorf("%w: the process before it answers", ErrNotReady)
	}
	return err
}

// Kill ends the process at once and waits until it is gone.
func (p *Process) Kill() {
	p.kill()
	<-p.ended
}
