package observability

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/engine/enginetest"
	"github.com/tracegate/tracegate/observability/ingest"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
	"github.com/tracegate/tracegate/observability/telemetry"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 60 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond) // polling a condition with a deadline
	}
}

// page is a console that only says what the receiver's account is.
type page struct{ account func() ingest.Account }

func (p page) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "%+v", p.account()) })
}

func (p page) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// observe runs the process against a ClickHouse, until the returned stop.
func observe(t *testing.T, clickhouseAddr string) (cfg Config, stop func()) {
	t.Helper()
	cfg = DefaultConfig()
	cfg.Receiver = "test"
	cfg.Admin, cfg.Console, cfg.Ingest.Addr, cfg.Ingest.HTTPAddr = freeport.ForTest(t), freeport.ForTest(t), freeport.ForTest(t), freeport.ForTest(t)
	cfg.Store.Addr, cfg.Store.User, cfg.Store.Password = clickhouseAddr, enginetest.User, enginetest.Password
	cfg.Ingest.SpoolDir = filepath.Join(t.TempDir(), "spool")
	cfg.Migrate, cfg.Sizes = 50*time.Millisecond, 50*time.Millisecond
	cfg.Ingest.StoreTimeout = 30 * time.Second // other tests share the machine
	cfg.Ingest.Writers = 3
	deps := Deps{
		Registry: prometheus.NewRegistry(),
		Console:  func(_ *store.Store, account func() ingest.Account) (Console, error) { return page{account}, nil },
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg, deps, slog.New(slog.DiscardHandler)) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	eventually(t, "ready", func() bool { code, _ := get(cfg.Admin, "/readyz"); return code == 200 })
	return cfg, stop
}

func get(addr, path string) (int, string) {
	resp, err := http.Get("http://" + addr + path) //nolint:noctx // bounded by the test
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func account(t *testing.T, addr string) ingest.Account {
	t.Helper()
	_, body := get(addr, "/v1/ingest")
	var a ingest.Account
	if err := json.Unmarshal([]byte(body), &a); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if !a.Balanced() {
		t.Errorf("account does not balance: %+v", a)
	}
	return a
}

func tracing(t *testing.T, endpoint string) (telemetry.Providers, *prometheus.Registry) {
	t.Helper()
	cfg := telemetry.DefaultConfig()
	cfg.Service, cfg.Pool, cfg.Endpoint, cfg.Every = "core", "canary", endpoint, 20*time.Millisecond
	cfg.Timeout = time.Minute // longer than a batch may take to be stored
	reg := prometheus.NewRegistry()
	p, err := telemetry.Setup(t.Context(), cfg, reg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Shutdown(context.WithoutCancel(t.Context())) })
	return p, reg
}

// send makes an entry span of a group, as core does for a WebSocket command.
func send(p telemetry.Providers, id uint64) {
	ctx := p.Propagator.Extract(context.Background(), propagation.MapCarrier{
		"traceparent": fmt.Sprintf("00-f3aa1c20%024x-%016x-03", id+1, id+1), "baggage": "traffic.env=canary,traffic.tenant=payment",
	})
	_, s := p.Tracer.Tracer("test").Start(ctx, "ws send", trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attribute.Bool("traffic.entry", true)))
	s.End()
}

var canaryPayment = group.Group{Color: 0xf3aa1c20, Env: "canary", Tenant: "payment"}

// query asks ClickHouse as curl does.
func query(t *testing.T, addr, sql string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/?database=tracegate", strings.NewReader(sql))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(enginetest.User, enginetest.Password)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s %v", sql, resp.StatusCode, b, err)
	}
	return strings.TrimSpace(string(b))
}

func TestSpanGoesFromTelemetryToGroupStats(t *testing.T) {
	e := enginetest.Start(t)
	cfg, stop := observe(t, e.Addr)
	p, _ := tracing(t, cfg.Ingest.Addr)
	begin := time.Now()
	for i := range 50 {
		send(p, uint64(i))
	}
	s, err := store.Open(cfg.Store)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var got []sli.Stats
	eventually(t, "statistics", func() bool {
		got, err = s.GroupStats(t.Context(), sli.Window{From: begin, To: time.Now()})
		return err == nil && len(got) == 1 && got[0].Requests == 50
	})
	t.Logf("first span to statistics: %s", time.Since(begin))
	if g := got[0]; g.Group != canaryPayment.ID() || g.Color != canaryPayment.Color || g.Env != "canary" || g.Tenant != "payment" || g.Service != "core" || g.Pool != "canary" || g.Errors != 0 {
		t.Errorf("statistics = %+v", g)
	}
	eventually(t, "acknowledged", func() bool { return account(t, cfg.Admin).Stored == 50 })
	if code, body := get(cfg.Console, "/"); code != 200 || !strings.Contains(body, "Stored:50") {
		t.Errorf("console = %d %s", code, body)
	}
	if code, body := get(cfg.Admin, "/metrics"); code != 200 || !strings.Contains(body, "tracegate_ingest_stored_records_total{table=\"otel_traces\"} 50") || !strings.Contains(body, "traffic_group_requests_total{") {
		t.Errorf("metrics = %d %s", code, body)
	}
	eventually(t, "sizes of tables", func() bool {
		_, body := get(cfg.Admin, "/metrics")
		return strings.Contains(body, "tracegate_store_table_rows{table=\"otel_traces\"} 50")
	})
	probes(t, cfg.Ingest.Addr, time.Now())
	saturation(t, cfg.Ingest.Addr, s)
	logs(t, cfg.Ingest.HTTPAddr)
	documented(t, e.Addr)
	stop()
	if code, _ := get(cfg.Admin, "/healthz"); code != 0 {
		t.Errorf("admin answers %d after the end", code)
	}
}

// saturation has this very process say how full it is, until the store knows.
func saturation(t *testing.T, addr string, s *store.Store) {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l := telemetry.NewLoad(telemetry.Config{Service: "core", Pool: "canary", Instance: "this"}, conn, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	l.Watch("accepted", func() float64 { return 0.25 })
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() { _ = l.Run(ctx) }()
	begin := time.Now()
	eventually(t, "how full the pool is", func() bool {
		got, err := s.Saturation(t.Context(), sli.Window{From: begin, To: time.Now()})
		return err == nil && len(got) == 2 && got[0].Resource == "accepted" && got[0].Mean == 0.25 && got[1].Resource == sli.CPU && got[1].Mean > 0 && got[1].Instances == 1
	})
}

// logs sends a record of the group over HTTP in JSON, as a browser's or curl's would come.
func logs(t *testing.T, addr string) {
	t.Helper()
	body := `{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"core"}},{"key":"traffic.env","value":{"stringValue":"canary"}},
		{"key":"traffic.tenant","value":{"stringValue":"payment"}},{"key":"traffic.pool","value":{"stringValue":"canary"}}]},
		"scopeLogs":[{"logRecords":[{"severityText":"WARN","severityNumber":13,"body":{"stringValue":"slow"},"traceId":"f3aa1c20000000000000000000000001"}]}]}]}`
	resp, err := http.Post("http://"+addr+"/v1/logs", "application/json", strings.NewReader(body)) //nolint:noctx // bounded by the test
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if out, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || string(out) != "{}" {
		t.Fatalf("logs: %d %s %v", resp.StatusCode, out, err)
	}
}

// documented runs the SQL that README.md has a reader type.
func documented(t *testing.T, addr string) {
	t.Helper()
	raw, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(raw), "```sql\n")[1:]
	if len(blocks) < 3 {
		t.Fatalf("README.md has %d queries", len(blocks))
	}
	for _, b := range blocks {
		sql, _, _ := strings.Cut(b, "```")
		sql = strings.ReplaceAll(sql, "TRACE_ID", "f3aa1c20"+fmt.Sprintf("%024x", 1))
		if got := query(t, addr, sql); !strings.Contains(got, "canary") {
			t.Errorf("%s\ngives %q", sql, got)
		}
	}
}

// TestClickHouseAwayLosesAndDoublesNothing kills ClickHouse under load, keeps it away for
// three seconds and starts it again: every span that telemetry was told is kept is in
// the table once and in the statistics once.
func TestClickHouseAwayLosesAndDoublesNothing(t *testing.T) {
	e := enginetest.Start(t)
	cfg, _ := observe(t, e.Addr)
	p, reg := tracing(t, cfg.Ingest.Addr)
	var made atomic.Uint64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var load sync.WaitGroup
	load.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			for range 5 {
				send(p, made.Add(1))
			}
			<-tick.C
		}
	})
	eventually(t, "spans stored", func() bool { return account(t, cfg.Admin).Stored > 500 })
	e.Kill()
	gone := time.Now()
	eventually(t, "spans spooled", func() bool { return account(t, cfg.Admin).Spooled > 0 })
	eventually(t, "three seconds passed", func() bool { return time.Since(gone) > 3*time.Second })
	spooled := account(t, cfg.Admin)
	e.Restart()
	eventually(t, "clickhouse is back under load", func() bool { return !account(t, cfg.Admin).Away })
	cancel()
	load.Wait()
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "spool drained", func() bool { return account(t, cfg.Admin).Spooled == 0 })
	once := query(t, e.Addr, "SELECT uniqExact(TraceId) FROM otel_traces")
	rows := query(t, e.Addr, "SELECT count() FROM otel_traces")
	requests := query(t, e.Addr, "SELECT sum(Requests) FROM traffic_group WHERE Grain = 1")
	a := account(t, cfg.Admin)
	t.Logf("made %d, spooled at the end of the outage %d in %d segments", made.Load(), spooled.Spooled, spooled.SpoolSegments)
	n, want := made.Load(), fmt.Sprint(made.Load())
	if a.Received != n || a.Stored != n || rows != want || once != want || requests != want {
		t.Errorf("made %d, account %+v, table %s (%s traces), statistics %s", n, a, rows, once, requests)
	}
	kept := fmt.Sprintf("# HELP tracegate_telemetry_exported_spans_total Spans that the receiver has acknowledged.\n# TYPE tracegate_telemetry_exported_spans_total counter\ntracegate_telemetry_exported_spans_total %d\n", n)
	if err := testutil.GatherAndCompare(reg, strings.NewReader(kept), "tracegate_telemetry_exported_spans_total"); err != nil {
		t.Error(err)
	}
}

// TestStartsWithoutClickHouse takes telemetry before ClickHouse is there for the first
// time, and makes the tables when it comes.
func TestStartsWithoutClickHouse(t *testing.T) {
	e := enginetest.Start(t)
	e.Kill()
	cfg, _ := observe(t, e.Addr)
	p, _ := tracing(t, cfg.Ingest.Addr)
	for i := range 10 {
		send(p, uint64(i))
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := account(t, cfg.Admin); a.Spooled != 10 || !a.Away {
		t.Errorf("account = %+v, want 10 spooled", a)
	}
	e.Restart()
	eventually(t, "stored", func() bool { return account(t, cfg.Admin).Stored == 10 })
}

func TestConfigValidateNamesTheKey(t *testing.T) {
	for key, edit := range map[string]func(*Config){
		"admin":    func(c *Config) { c.Admin = "x" },
		"console":  func(c *Config) { c.Console = "x" },
		"migrate":  func(c *Config) { c.Migrate = 0 },
		"store":    func(c *Config) { c.Store.Database = "" },
		"receiver": func(c *Config) { c.Receiver = "" },
		"ingest":   func(c *Config) { c.Ingest.SpoolDir = "" },
	} {
		cfg := DefaultConfig()
		cfg.Receiver, cfg.Ingest.SpoolDir = "x", "x"
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		edit(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), key) {
			t.Errorf("error = %v, want one that starts with %s", err, key)
		}
	}
}

func TestPortInUseIsSaid(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := DefaultConfig()
	cfg.Receiver, cfg.Ingest.SpoolDir = "test", t.TempDir()
	cfg.Admin, cfg.Ingest.Addr = freeport.ForTest(t), l.Addr().String() // HTTPAddr is not reached
	err = Run(t.Context(), cfg, Deps{Registry: prometheus.NewRegistry()}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "listen for telemetry") || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("error = %v, want one that names the address", err)
	}
}
