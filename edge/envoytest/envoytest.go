// Package envoytest starts real Envoys for tests of any package.
package envoytest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tracegate/tracegate/edge/bootstrap"
	"github.com/tracegate/tracegate/edge/envoy"
	"github.com/tracegate/tracegate/mesh/freeport"
)

// Binary returns the Envoy that tests run, the one that `tracegate up` would. Where
// there is none and it cannot be downloaded, the test is skipped; with CI=true it
// fails. TRACEGATE_ENVOY names another binary.
func Binary(tb testing.TB) string {
	tb.Helper()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	ctx, cancel := context.WithTimeout(tb.Context(), 5*time.Minute)
	defer cancel()
	path, err := envoy.Find(ctx, os.Getenv("TRACEGATE_ENVOY"), "", log)
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") == "true":
		tb.Fatalf("envoy is required when CI=true: %v", err)
	default:
		tb.Skipf("no envoy: %v", err)
	}
	return ""
}

// Start runs Envoy with a static configuration in YAML or JSON until the test ends.
// Each {{name}} in it, {{admin}} among them, is replaced by a free loopback
// address's port. It returns when Envoy is ready; the log goes to t when the test
// fails.
func Start(tb testing.TB, config string) *Envoy {
	tb.Helper()
	ports := map[string]string{}
	for {
		before, rest, ok := strings.Cut(config, "{{")
		name, after, ok2 := strings.Cut(rest, "}}")
		if !ok || !ok2 {
			break
		}
		if ports[name] == "" {
			_, ports[name], _ = net.SplitHostPort(freeport.ForTest(tb))
		}
		config = before + ports[name] + after
	}
	admin, ok := ports["admin"]
	if !ok {
		tb.Fatal("envoytest: the configuration has no {{admin}} port")
	}
	e := start(tb, envoy.Options{Bootstrap: []byte(config), Admin: "127.0.0.1:" + admin})
	e.ports = ports
	e.waitReady(tb)
	return e
}

// StartADS runs an Envoy with the product's own bootstrap against a control plane.
// cfg.Admin is replaced by a free address. It does not wait: until the control
// plane has answered, Envoy is not ready (see [Envoy.WaitReady]).
func StartADS(tb testing.TB, cfg bootstrap.Config) *Envoy {
	tb.Helper()
	return StartEdited(tb, cfg, func(js []byte) []byte { return js })
}

// StartEdited is [StartADS] with a bootstrap that is not quite the product's.
func StartEdited(tb testing.TB, cfg bootstrap.Config, edit func(js []byte) []byte) *Envoy {
	tb.Helper()
	cfg.Admin = freeport.ForTest(tb)
	b, err := bootstrap.Build(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	js, err := bootstrap.JSON(b)
	if err != nil {
		tb.Fatal(err)
	}
	return start(tb, envoy.Options{Bootstrap: edit(js), Admin: cfg.Admin})
}

// StartIdentified is StartADS of an Envoy that proves who it is by an identity folder.
func StartIdentified(tb testing.TB, cfg bootstrap.Config, identity string) *Envoy {
	tb.Helper()
	cfg.Identity = identity
	files, err := bootstrap.IdentityFiles(identity)
	if err != nil {
		tb.Fatal(err)
	}
	for path, content := range files {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return StartADS(tb, cfg)
}

// Envoy is a running one.
type Envoy struct {
	*envoy.Process
	ports map[string]string
}

// Addr is the loopback address whose port replaced {{name}}.
func (e *Envoy) Addr(name string) string {
	port, ok := e.ports[name]
	if !ok {
		panic(fmt.Sprintf("envoytest: the configuration has no {{%s}}", name))
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// WaitReady fails the test where Envoy does not become ready.
func (e *Envoy) WaitReady(tb testing.TB) {
	tb.Helper()
	e.waitReady(tb)
}

func (e *Envoy) waitReady(tb testing.TB) {
	tb.Helper()
	// Compiling a Wasm module takes two seconds of a core, on a busy machine many more.
	ctx, cancel := context.WithTimeout(tb.Context(), 2*time.Minute)
	defer cancel()
	if err := e.Process.WaitReady(ctx); err != nil {
		tb.Fatal(err)
	}
}

func start(tb testing.TB, o envoy.Options) *Envoy {
	tb.Helper()
	o.Binary, o.Dir, o.Concurrency, o.LogLevel, o.Drain = Binary(tb), tb.TempDir(), 1, "info", time.Second
	out := &buffer{}
	log := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	p, err := envoy.Start(o, log)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		p.Kill()
		if tb.Failed() {
			tb.Logf("envoy's log:\n%s", out)
		}
	})
	return &Envoy{Process: p}
}

// buffer keeps the last megabyte.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.b.Len() > 1<<20 {
		b.b.Next(b.b.Len() / 2)
	}
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
