// Package engines runs the engines that core needs, real ones or the embedded ones, each
// as processes of their own that can be killed and started again on the same data, and
// each behind a network that can be made bad (edge/load/netfault). The load lab's chat
// part is its caller; the product itself never runs real engines.
//
// Every core process has networks of its own to Kafka and to the database, so that one
// process can be cut off while the others go on. Kafka has a listener for each, since a
// broker tells its clients where it is. The nodes of a Redis Cluster tell one address to
// all, so there the network is one for all processes. The edge has a network of its own to
// each core process.
//
// What is asked of an engine is only whether it is up. That takes no client library: a
// line of Redis' own protocol, psql, and a connection to Kafka, whose clients wait for it
// anyway.
package engines

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/tracegate/tracegate/edge/child"
)

// startTime is how long an engine may take to start, on a machine that is busy.
const startTime = 4 * time.Minute

// Process is one process of an engine.
type Process struct {
	Name  string
	argv  []string
	env   []string
	dir   string
	cred  *syscall.Credential // nil: as this process
	ready func(context.Context) error
	log   *slog.Logger

	mu    sync.Mutex
	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd is gone
}

// Start starts the process and waits until it is ready. One that ends at once is started
// again: a PostgreSQL whose children have not all noticed yet that it was killed does so.
func (p *Process) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var err error
	for ctx.Err() == nil {
		ended, lerr := p.launch()
		if lerr != nil {
			return fmt.Errorf("start %s: %w", p.Name, lerr)
		}
		for running := true; running; {
			if err = p.ready(ctx); err == nil {
				return nil
			}
			select {
			case <-tick.C:
			case <-ended:
				err, running = fmt.Errorf("it ended before it was ready: %w", err), false
			case <-ctx.Done():
				running = false
			}
		}
		p.Kill()
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return fmt.Errorf("start %s: %w, see %s", p.Name, err, p.logFile())
}

func (p *Process) logFile() string { return filepath.Join(p.dir, p.Name+".log") }

// launch starts the process; what it returns is closed when that has ended.
func (p *Process) launch() (<-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return nil, errors.New("it runs")
	}
	out, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own
	// Not ended by a context: only Kill does, and the end of this process.
	cmd := child.Command(context.Background(), p.argv[0], p.argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, out, out
	cmd.Env = append(os.Environ(), p.env...)
	if p.cred != nil {
		cmd.SysProcAttr.Credential = p.cred
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	p.cmd, p.ended = cmd, ended
	go func() {
		defer close(ended)
		_ = cmd.Wait() // killed, as a rule
	}()
	return ended, nil
}

// Kill ends the process and its children with SIGKILL and waits for that. To kill what
// does not run does nothing.
func (p *Process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		p.log.Warn("kill engine", "process", p.Name, "error", err)
	}
	<-p.ended
	p.cmd = nil
}

// answers is a readiness check by a connection.
func answers(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		d := net.Dialer{Timeout: time.Second}
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return c.Close()
	}
}

// firstPort and lastPort bound where engines listen: below the ports that systems give to
// outgoing connections, one of which could otherwise take an engine's while it is down.
const firstPort, lastPort = 12_000, 30_000

// Ports gives addresses on loopback that nobody listens on.
type Ports struct{ next int }

// NewPorts starts at some place, so that two programs seldom try the same.
func NewPorts(place int) *Ports { return &Ports{next: firstPort + place%(lastPort-firstPort)} }

// Take returns an address.
func (p *Ports) Take() (string, error) {
	for range lastPort - firstPort {
		addr := fmt.Sprintf("127.0.0.1:%d", p.next)
		if p.next++; p.next >= lastPort {
			p.next = firstPort
		}
		l, err := net.Listen("tcp", addr)
		if err == nil {
			return addr, l.Close()
		}
	}
	return "", errors.New("no free port")
}

// take returns n addresses.
func (p *Ports) take(n int) ([]string, error) {
	out := make([]string, n)
	for i := range out {
		addr, err := p.Take()
		if err != nil {
			return nil, err
		}
		out[i] = addr
	}
	return out, nil
}
