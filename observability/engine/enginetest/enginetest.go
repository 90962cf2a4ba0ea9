// Package enginetest runs the embedded ClickHouse engine for tests, in a child process
// as in the product: the test binary runs itself again. A package that uses it calls
// [Main] from its TestMain.
//
// Tests skip where the engine's library cannot be got, and fail instead when CI=true.
package enginetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/edge/artifact"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/observability/engine"
)

const (
	// LibraryEnv names another libchdb.so than the one `tracegate up` uses.
	LibraryEnv = "TRACEGATE_CLICKHOUSE_LIBRARY"
	// childEnv makes the test binary an engine; it holds the engine's configuration.
	childEnv = "TRACEGATE_ENGINETEST_CHILD"

	// User and Password are those of every test engine.
	User     = "tracegate"
	Password = "test-password"

	startTimeout    = 60 * time.Second
	downloadTimeout = 10 * time.Minute
)

// Main runs the tests, or the engine where this process is the child of one.
func Main(m *testing.M) {
	Child()
	os.Exit(m.Run())
}

// Child runs the engine and does not return, where this process is the child of a test. A
// TestMain that does more than [Main] calls it first.
func Child() {
	raw := os.Getenv(childEnv)
	if raw == "" {
		return
	}
	var cfg engine.Config
	if err := json.Unmarshal([]byte(raw), &cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	go func() { // the pipe's end means that the test process is gone
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := engine.Run(ctx, cfg, prometheus.NewRegistry(), log); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Engine is a running engine.
type Engine struct {
	Addr string
	Dir  string

	tb    testing.TB
	cfg   engine.Config
	cmd   *exec.Cmd
	stdin io.Closer
	out   *output
}

// Start runs an engine on a free port and a new folder until the test ends. Its
// configuration is the default as changed by edits.
func Start(tb testing.TB, edits ...func(*engine.Config)) *Engine {
	tb.Helper()
	cfg := engine.DefaultConfig()
	cfg.Library, cfg.DataDir, cfg.Addr, cfg.User, cfg.Password = library(tb), tb.TempDir(), freeport.ForTest(tb), User, Password
	for _, edit := range edits {
		edit(&cfg)
	}
	e := &Engine{Addr: cfg.Addr, Dir: cfg.DataDir, tb: tb, cfg: cfg}
	e.Restart()
	tb.Cleanup(func() {
		e.Stop()
		if tb.Failed() {
			tb.Logf("engine's log:\n%s", e.out)
		}
	})
	return e
}

// library is the path of libchdb.so, downloaded where it is not there yet.
func library(tb testing.TB) string {
	tb.Helper()
	if path := os.Getenv(LibraryEnv); path != "" {
		return path
	}
	ctx, cancel := context.WithTimeout(tb.Context(), downloadTimeout)
	defer cancel()
	path, err := artifact.Ensure(ctx, "", artifact.ChDB(), slog.New(slog.NewTextHandler(os.Stderr, nil)))
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") == "true":
		tb.Fatalf("the ClickHouse engine is required when CI=true: %v", err)
	default:
		tb.Skipf("no ClickHouse engine: %v", err)
	}
	return ""
}

// Restart starts the engine again on the same folder and address, after Kill or Stop.
func (e *Engine) Restart() {
	e.tb.Helper()
	raw, err := json.Marshal(e.cfg)
	if err != nil {
		e.tb.Fatal(err)
	}
	e.out = &output{}
	e.cmd = exec.Command(os.Args[0])
	e.cmd.Env = append(os.Environ(), childEnv+"="+string(raw))
	e.cmd.Stdout, e.cmd.Stderr = e.out, e.out
	if e.stdin, err = e.cmd.StdinPipe(); err != nil {
		e.tb.Fatal(err)
	}
	if err := e.cmd.Start(); err != nil {
		e.tb.Fatal(err)
	}
	e.awaitReady()
}

func (e *Engine) awaitReady() {
	e.tb.Helper()
	deadline := time.Now().Add(startTimeout)
	for {
		resp, err := http.Get("http://" + e.Addr + "/ping") //nolint:noctx // bounded by the deadline
		if err == nil {
			resp.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			e.tb.Fatalf("engine was not ready within %s: %v\n%s", startTimeout, err, e.out)
		}
		time.Sleep(5 * time.Millisecond) //nolint:forbidigo // polling a condition with a deadline, in a test
	}
}

// Kill ends the engine at once, as kill -9 does.
func (e *Engine) Kill() {
	e.tb.Helper()
	if err := e.cmd.Process.Kill(); err != nil {
		e.tb.Fatal(err)
	}
	_ = e.cmd.Wait()
	e.stdin.Close()
}

// Stop ends the engine in order. A second call does nothing.
func (e *Engine) Stop() {
	e.tb.Helper()
	if e.cmd.ProcessState != nil {
		return
	}
	_ = e.cmd.Process.Signal(syscall.SIGTERM)
	ended := make(chan error, 1)
	go func() { ended <- e.cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			e.tb.Errorf("engine ended badly: %v\n%s", err, e.out)
		}
	case <-time.After(30 * time.Second):
		_ = e.cmd.Process.Kill()
		err := <-ended
		e.tb.Errorf("engine did not stop within 30 s: %v\n%s", err, e.out)
	}
}

// Log is what the engine's process has written.
func (e *Engine) Log() string { return e.out.String() }

type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
