package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/edge/artifact"
	"github.com/tracegate/tracegate/mesh/secret"
	engines "github.com/tracegate/tracegate/observability/engine"
)

const (
	user     = "bench"
	password = secret.Text("of a benchmark, on loopback")
)

// runEngine is the engine's process, which follows its standard input.
func runEngine(ctx context.Context, addr, dir string) error {
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
	cfg.Library, cfg.DataDir, cfg.Addr, cfg.User, cfg.Password = library, dir, addr, user, password
	return engines.Run(ctx, cfg, prometheus.NewRegistry(), log)
}

// engine is the process that answers, as in the product.
type engine struct {
	addr  string
	cmd   *exec.Cmd
	stdin io.Closer
}

func startEngine(ctx context.Context, dir string) (*engine, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	e := &engine{addr: l.Addr().String()}
	l.Close()
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	e.cmd = exec.CommandContext(ctx, exe, "-engine", e.addr, "-dir", dir)
	e.cmd.Stderr = os.Stderr
	if e.stdin, err = e.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := e.cmd.Start(); err != nil {
		return nil, err
	}
	if err := e.ready(ctx); err != nil {
		e.stop()
		return nil, err
	}
	return e, nil
}

func (e *engine) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // the library may have to be fetched
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.addr+"/ping", nil)
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

func (e *engine) stop() {
	e.stdin.Close()
	_ = e.cmd.Wait()
}

// connect opens a plain client.
func (e *engine) connect(database string) (driver.Conn, error) {
	return clickhouse.Open(&clickhouse.Options{
		Protocol: clickhouse.HTTP, Addr: []string{e.addr},
		Auth:        clickhouse.Auth{Database: database, Username: user, Password: string(password)},
		Compression: &clickhouse.Compression{Method: clickhouse.CompressionLZ4},
		ReadTimeout: time.Hour,
	})
}
