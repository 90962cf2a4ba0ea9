// Package enginebench runs the engine as a child process of a benchmark: the benchmark's own
// program, started again with the flags -engine ADDRESS and -dir FOLDER, which calls Run.
package enginebench

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/edge/artifact"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/mesh/secret"
	engines "github.com/tracegate/tracegate/observability/engine"
)

// User and Password are the engine's.
const (
	User     = "bench"
	Password = secret.Text("of a benchmark, on loopback")
)

// Run is the engine's process, which ends with its standard input.
func Run(ctx context.Context, addr, dir string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	library, err := artifact.Ensure(ctx, "", artifact.ChDB(), log)
	if err != nil {
		return err
	}
	cfg := engines.DefaultConfig()
	cfg.Library, cfg.DataDir, cfg.Addr, cfg.User, cfg.Password = library, dir, addr, User, Password
	return engines.Run(ctx, cfg, prometheus.NewRegistry(), log)
}

// Engine is the process that answers, as in the product.
type Engine struct {
	Addr string

	dir   string
	cmd   *exec.Cmd
	stdin io.Closer
}

// Start returns once the engine answers.
func Start(ctx context.Context, dir string) (*Engine, error) {
	addr, err := freeport.On("127.0.0.1")
	if err != nil {
		return nil, err
	}
	e := &Engine{Addr: addr, dir: dir}
	return e, e.Restart(ctx)
}

// Restart starts an engine that was killed, at its address and on its data.
func (e *Engine) Restart(ctx context.Context) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	e.cmd = exec.CommandContext(ctx, exe, "-engine", e.Addr, "-dir", e.dir)
	e.cmd.Stderr = os.Stderr
	if e.stdin, err = e.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := e.cmd.Start(); err != nil {
		return err
	}
	if err := e.ready(ctx); err != nil {
		e.Stop()
		return err
	}
	return nil
}

// Kill ends it by SIGKILL.
func (e *Engine) Kill() {
	_ = e.cmd.Process.Kill()
	_ = e.cmd.Wait()
	e.stdin.Close()
}

// PID is that of the process.
func (e *Engine) PID() int { return e.cmd.Process.Pid }

func (e *Engine) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // the library may have to be fetched
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.Addr+"/ping", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultTransport.RoundTrip(req) //nolint:forbidigo // one ping of a child on loopback
		if err == nil {
			return resp.Body.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("engine is not ready: %w", err)
		}
	}
}

// Stop ends it in order.
func (e *Engine) Stop() {
	e.stdin.Close()
	_ = e.cmd.Wait()
}

// Connect opens a plain client.
func (e *Engine) Connect(database string) (driver.Conn, error) {
	return clickhouse.Open(&clickhouse.Options{
		Protocol: clickhouse.HTTP, Addr: []string{e.Addr},
		Auth:        clickhouse.Auth{Database: database, Username: User, Password: string(Password)},
		Compression: &clickhouse.Compression{Method: clickhouse.CompressionLZ4},
		ReadTimeout: time.Hour,
	})
}
