package kubetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tracegate/tracegate/edge/child"
)

// process is one component that runs.
type process struct {
	name  string
	cmd   *exec.Cmd
	kill  context.CancelFunc
	ended chan struct{} // closed when it has ended
	log   string        // path of what it wrote
}

// start runs a component; its output goes to a file.
func (c *Cluster) start(name string, args ...string) (*process, error) {
	path := filepath.Join(c.dir, name+".log")
	out, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	ctx, kill := context.WithCancel(context.Background())
	p := &process{name: name, kill: kill, ended: make(chan struct{}), log: path}
	p.cmd = child.Command(ctx, filepath.Join(c.bin, name), args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Dir = c.dir
	if err := p.cmd.Start(); err != nil {
		kill()
		out.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // its exit code says nothing that its log does not
		out.Close()
		close(p.ended)
	}()
	return p, nil
}

// stop asks the process to end, kills it after a while and waits for it.
func (p *process) stop() {
	if p == nil {
		return
	}
	p.kill()
	<-p.ended
}

// crash kills the process at once.
func (p *process) crash() {
	_ = p.cmd.Process.Kill()
	<-p.ended
	p.kill()
}

// await polls ready until it returns nil, the process ends or ctx does.
func (p *process) await(ctx context.Context, ready func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return fmt.Errorf("%s ended: %s", p.name, p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %s", p.name, errors.Join(ctx.Err(), err), p.lastWords())
		}
	}
}

// lastWords is the end of the log.
func (p *process) lastWords() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " | ")
}
