package core_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/tracegate/tracegate/core"
	"github.com/tracegate/tracegate/edge/child"
)

// childEnv makes this test binary a core process of its own, so that tests can kill it
// as only a kernel can.
const childEnv = "TRACEGATE_TEST_CORE"

type childConfig struct {
	Config core.Config
	Seed   []byte // of the key
}

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		if err := runChild(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func runChild(text string) error {
	var c childConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return core.Run(ctx, c.Config, core.Deps{
		Key: ed25519.NewKeyFromSeed(c.Seed), Registry: prometheus.NewRegistry(), Tracing: sdktrace.NewTracerProvider(),
		Propagator: propagation.TraceContext{},
		Ready:      func(listen, admin string) { fmt.Println(listen, admin) },
	}, quiet())
}

// spawn starts a process; its node's stop kills it with -9.
func (w *world) spawn(cfg core.Config) *node {
	w.t.Helper()
	text, err := json.Marshal(childConfig{Config: cfg, Seed: w.key.Seed()})
	must(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := child.Command(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(w.t, err)
	must(w.t, cmd.Start())
	n := &node{t: w.t}
	n.stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		cancel()
	}
	w.t.Cleanup(n.stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		w.t.Fatalf("core process: %v", err)
	}
	go io.Copy(io.Discard, out) // ends with the process
	listen, admin, _ := strings.Cut(strings.TrimSpace(line), " ")
	n.url, n.admin = "http://"+listen, "http://"+admin
	return n
}
