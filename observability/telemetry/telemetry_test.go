package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/tracegate/tracegate/mesh/group"
)

func config() Config {
	cfg := DefaultConfig()
	cfg.Service, cfg.Pool = "core", "canary"
	return cfg
}

// exporter keeps spans; while gate is not nil it waits for it.
type exporter struct {
	mu    sync.Mutex
	spans []sdktrace.ReadOnlySpan
	gate  chan struct{}
	err   error
}

func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if e.gate != nil {
		select {
		case <-e.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.spans = append(e.spans, spans...)
	}
	return e.err
}

func (e *exporter) Shutdown(context.Context) error { return nil }

func (e *exporter) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.spans)
}

func tracer(t *testing.T, cfg Config, e *exporter) (trace.Tracer, *queue) {
	t.Helper()
	q := newQueue(cfg, e, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	tp := sdktrace.NewTracerProvider(sdktrace.WithIDGenerator(baselineIDs{}), sdktrace.WithSpanProcessor(q))
	t.Cleanup(func() { _ = tp.Shutdown(context.WithoutCancel(t.Context())) })
	return tp.Tracer("test"), q
}

func end(tr trace.Tracer, n int) {
	for range n {
		_, s := tr.Start(context.Background(), "x")
		s.End()
	}
}

func dropped(q *queue, reason string) int {
	return int(testutil.ToFloat64(q.metrics.dropped.WithLabelValues(reason)))
}

func TestCollectorAwayNeitherBlocksNorHides(t *testing.T) {
	cfg := config()
	cfg.Queue, cfg.Batch, cfg.Exports, cfg.Every = 100, 10, 2, time.Millisecond
	e := &exporter{gate: make(chan struct{})}
	tr, q := tracer(t, cfg, e)
	const made = 10_000
	end(tr, made) // returns although nothing is taken
	close(e.gate)
	if err := q.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kept, lost := e.count(), dropped(q, droppedQueueFull); kept+lost != made || lost == 0 || kept < cfg.Queue {
		t.Errorf("sent %d, dropped %d; want %d together and some of both", kept, lost, made)
	}
}

func TestFailedExportIsCounted(t *testing.T) {
	e := &exporter{err: errors.New("refused")}
	tr, q := tracer(t, config(), e)
	end(tr, 5)
	if err := q.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := dropped(q, droppedExport); n != 5 {
		t.Errorf("dropped = %d, want 5", n)
	}
}

func TestBatchGoesOutWithinItsTime(t *testing.T) {
	cfg := config()
	cfg.Every = 5 * time.Millisecond
	e := &exporter{}
	tr, _ := tracer(t, cfg, e)
	end(tr, 3)
	deadline := time.Now().Add(10 * time.Second)
	for e.count() != 3 {
		if time.Now().After(deadline) {
			t.Fatalf("sent %d of 3 within 10 s", e.count())
		}
		time.Sleep(time.Millisecond) // polling a condition with a deadline
	}
}

func TestShutdownSendsTheRest(t *testing.T) {
	cfg := config()
	cfg.Every = time.Hour
	e := &exporter{}
	tr, q := tracer(t, cfg, e)
	end(tr, 3000)
	if err := q.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e.count() != 3000 {
		t.Errorf("sent %d, want 3000", e.count())
	}
	end(tr, 1)
	if n := dropped(q, droppedShutdown); n != 1 {
		t.Errorf("dropped after shutdown = %d, want 1", n)
	}
	if err := q.ForceFlush(t.Context()); err != nil {
		t.Errorf("flush after shutdown: %v", err)
	}
}

func TestShutdownEndsWithItsContext(t *testing.T) {
	e := &exporter{gate: make(chan struct{})}
	tr, q := tracer(t, config(), e)
	end(tr, 10)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_ = q.Shutdown(ctx)
	if n := dropped(q, droppedExport); n != 10 {
		t.Errorf("dropped = %d, want 10", n)
	}
}

func TestReceiverThatIsAwayDoesNotStopSetup(t *testing.T) {
	cfg := config()
	cfg.Endpoint, cfg.Timeout = "127.0.0.1:1", 200*time.Millisecond
	reg := prometheus.NewRegistry()
	p, err := Setup(t.Context(), cfg, reg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	end(p.Tracer.Tracer("x"), 7)
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := `# HELP tracegate_telemetry_dropped_spans_total Spans that were not sent, or sent and not acknowledged, by reason.
# TYPE tracegate_telemetry_dropped_spans_total counter
tracegate_telemetry_dropped_spans_total{reason="export_failed"} 7
tracegate_telemetry_dropped_spans_total{reason="queue_full"} 0
tracegate_telemetry_dropped_spans_total{reason="shutdown"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "tracegate_telemetry_dropped_spans_total"); err != nil {
		t.Error(err)
	}
	if err := p.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSpansCarryTheirGroup(t *testing.T) {
	const canary = "f3aa1c20c4a9e6f0d1b2c3d4e5f60718"
	for _, tc := range []struct {
		name, traceparent, baggage string
		want                       group.Group
	}{
		{"colored by the edge", "00-" + canary + "-00f067aa0ba902b7-03", "traffic.env=canary,traffic.tenant=payment,x=y", group.Group{Color: 0xf3aa1c20, Env: "canary", Tenant: "payment"}},
		{"no baggage", "00-" + canary + "-00f067aa0ba902b7-03", "", group.Group{Env: "default", Tenant: "default"}},
		{"nothing", "", "", group.Group{Env: "default", Tenant: "default"}},
		{"tenant only", "00-" + canary + "-00f067aa0ba902b7-03", "traffic.tenant=payment", group.Group{Color: 0xf3aa1c20, Env: "default", Tenant: "payment"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := config()
			cfg.Endpoint = ""
			p, err := Setup(t.Context(), cfg, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			rec := tracetest.NewSpanRecorder()
			p.Tracer.(*sdktrace.TracerProvider).RegisterSpanProcessor(rec)
			ctx := p.Propagator.Extract(t.Context(), propagation.MapCarrier{"traceparent": tc.traceparent, "baggage": tc.baggage})
			ctx, parent := p.Tracer.Tracer("x").Start(ctx, "server")
			_, child := p.Tracer.Tracer("x").Start(ctx, "store")
			child.End()
			parent.End()
			for _, s := range rec.Ended() {
				got := map[string]string{}
				for _, kv := range s.Attributes() {
					got[string(kv.Key)] = kv.Value.AsString()
				}
				if got["traffic.group"] != string(tc.want.ID()) || got["traffic.color"] != tc.want.Color.String() || got["traffic.env"] != tc.want.Env ||
					got["traffic.tenant"] != tc.want.Tenant || got["traffic.pool"] != "canary" {
					t.Errorf("span %s: attributes %v, want those of %+v", s.Name(), got, tc.want)
				}
			}
			carrier := propagation.MapCarrier{}
			p.Propagator.Inject(ctx, carrier)
			if tc.baggage != "" && len(carrier["baggage"]) != len(tc.baggage) {
				t.Errorf("baggage passed on = %q, want %q", carrier["baggage"], tc.baggage)
			}
		})
	}
}

func TestNewTracesAreBaseline(t *testing.T) {
	seen := map[trace.TraceID]bool{}
	for range 1000 {
		id, span := baselineIDs{}.NewIDs(t.Context())
		if c, ok := group.OfTrace(id.String()); !ok || c != group.Baseline || !id.IsValid() || !span.IsValid() || seen[id] {
			t.Fatalf("trace %s, span %s", id, span)
		}
		seen[id] = true
	}
	m, _ := baggage.NewMember("traffic.env", "prod")
	b, _ := baggage.New(m)
	id, _ := baselineIDs{}.NewIDs(t.Context())
	if g := GroupOf(baggage.ContextWithBaggage(t.Context(), b), id, "default", "default"); g != (group.Group{Env: "prod", Tenant: "default"}) {
		t.Errorf("group = %+v", g)
	}
}

func TestConfigValidateNamesTheKey(t *testing.T) {
	if err := config().Validate(); err != nil {
		t.Fatal(err)
	}
	for key, edit := range map[string]func(*Config){
		"service": func(c *Config) { c.Service = "" },
		"env":     func(c *Config) { c.Tenant = "" },
		"batch":   func(c *Config) { c.Batch = 0 },
		"queue":   func(c *Config) { c.Queue = 1 },
		"every":   func(c *Config) { c.Every = 0 },
		"exports": func(c *Config) { c.Exports = 0 },
		"timeout": func(c *Config) { c.Timeout = 0 },
	} {
		c := config()
		edit(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), key) {
			t.Errorf("error = %v, want one that starts with %s", err, key)
		}
	}
}

func BenchmarkSpan(b *testing.B) {
	cfg := config()
	e := &exporter{}
	q := newQueue(cfg, e, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	tp := sdktrace.NewTracerProvider(sdktrace.WithIDGenerator(baselineIDs{}), sdktrace.WithSpanProcessor(placer{cfg: cfg}), sdktrace.WithSpanProcessor(q))
	tr := tp.Tracer("x")
	b.ReportAllocs()
	for b.Loop() {
		_, s := tr.Start(b.Context(), "x")
		s.End()
	}
}
