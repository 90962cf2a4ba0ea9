package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/edge/artifact"
	"github.com/tracegate/tracegate/observability/engine/enginebench"
	"github.com/tracegate/tracegate/observability/ingest"
	"github.com/tracegate/tracegate/observability/store"
)

// side is one of those that are compared.
type side struct {
	name     string
	database string
	// command runs it, receiving at addr and storing into the engine.
	command func(ctx context.Context, addr, engine string) (*exec.Cmd, error)
	// tables have what it stored; the first has the spans.
	tables []string
}

func ours(c config) *side {
	return &side{name: "ours", database: store.DefaultConfig().Database, tables: []string{"otel_traces", "traffic_group"}, command: func(ctx context.Context, addr, engine string) (*exec.Cmd, error) {
		exe, err := os.Executable()
		if c.engineAddr != "" {
			engine = c.engineAddr
		}
		return exec.CommandContext(ctx, exe, "-ingest", addr, "-into", engine, "-dir", filepath.Join(c.dir, "spool"), "-profile", c.profile, "-writers", strconv.Itoa(c.writers)), err
	}}
}

// runReceiver is our side's process, which ends with its standard input.
func runReceiver(ctx context.Context, addr, engine string, c config) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if c.profile != "" {
		f, err := os.Create(c.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	debug.SetGCPercent(ingest.GCPercent) // as in the product
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	sc := store.DefaultConfig()
	sc.Addr, sc.User, sc.Password, sc.Timeout = engine, enginebench.User, enginebench.Password, time.Minute
	s, err := store.Open(sc)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Migrate(ctx); err != nil {
		return err
	}
	ic := ingest.DefaultConfig()
	ic.Addr, ic.HTTPAddr, ic.SpoolDir, ic.StoreTimeout, ic.Writers = addr, "", c.dir, time.Minute, c.writers
	in, err := ingest.New(ic, s, prometheus.NewRegistry(), log)
	if err != nil {
		return err
	}
	listeners, err := ingest.Listen(ic)
	if err != nil {
		return err
	}
	return in.Serve(ctx, listeners)
}

//go:embed builder.yaml
var builder []byte

const (
	collectorVersion = "0.161.0"
	builderCommand   = "go.opentelemetry.io/collector/cmd/builder@v" + collectorVersion
)

// ensureCollector builds the collector where the cache has none.
func ensureCollector(ctx context.Context) (string, error) {
	cache, err := artifact.DefaultDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "otelcol-"+collectorVersion)
	binary := filepath.Join(dir, "dist", "otelcol")
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	fmt.Fprintln(os.Stderr, "building the collector, once, which takes minutes")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "builder.yaml"), builder, 0o644); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "run", builderCommand, "--config", "builder.yaml")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the collector: %w\n%s", err, out)
	}
	return binary, os.Rename(filepath.Join(dir, "dist.part"), filepath.Join(dir, "dist"))
}

// collectorConfig has the batches and the time for an insert that ours has. Its queue is as deep as it is by default,
// but makes senders wait where it is full, instead of losing what they send.
const collectorConfig = `receivers:
  otlp:
    protocols:
      grpc: {endpoint: %q, max_recv_msg_size_mib: 16}
processors:
  batch: {timeout: 200ms, send_batch_size: 20000}
exporters:
  clickhouse:
    endpoint: "http://%s"
    username: %q
    password: %q
    database: otel
    create_schema: true
    async_insert: false
    compress: lz4
    timeout: 60s
    sending_queue: {enabled: true, block_on_overflow: true}
service:
  telemetry: {metrics: {level: none}, logs: {level: error}}
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [clickhouse]}
`

func theirs(c config, binary string) *side {
	return &side{name: "collector", database: "otel", tables: []string{"otel_traces", "otel_traces_trace_id_ts"}, command: func(ctx context.Context, addr, engine string) (*exec.Cmd, error) {
		path := filepath.Join(c.dir, "collector.yaml")
		text := fmt.Sprintf(collectorConfig, addr, engine, enginebench.User, string(enginebench.Password))
		return exec.CommandContext(ctx, binary, "--config", path), os.WriteFile(path, []byte(text), 0o600)
	}}
}
