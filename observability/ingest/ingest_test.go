package ingest

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	logsv1 "go.opentelemetry.io/proto/otlp/logs/v1"
	metricsv1 "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/tracegate/tracegate/observability/ingest/otlp"
	"github.com/tracegate/tracegate/observability/store"
)

// sink is a ClickHouse that fails as told; like the real one it counts a token once.
type sink struct {
	mu       sync.Mutex
	fail     func(try int) error // called before a batch is taken
	failWith func(try int) error // called after: the answer is lost
	refuse   store.PointKind     // for good
	tries    int
	tokens   map[string]int
	changed  int // batches that came again under their token, and were others
}

func (s *sink) InsertSpans(_ context.Context, token string, spans []store.Span) error {
	return s.insert(token, len(spans))
}

func (s *sink) InsertPoints(_ context.Context, token string, points []store.Point) error {
	for _, p := range points {
		if p.Kind != points[0].Kind {
			return store.ErrUnfit
		}
		if p.Kind == s.refuse {
			return store.ErrUnfit
		}
	}
	return s.insert(token, len(points))
}

func (s *sink) InsertLogs(_ context.Context, token string, logs []store.Log) error {
	return s.insert(token, len(logs))
}

func (s *sink) insert(token string, rows int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries++
	if s.fail != nil {
		if err := s.fail(s.tries); err != nil {
			return err
		}
	}
	if was, known := s.tokens[token]; known && was != rows {
		s.changed++
	}
	s.tokens[token] = rows
	if s.failWith != nil {
		return s.failWith(s.tries)
	}
	return nil
}

func (s *sink) set(fail func(int) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

func (s *sink) rows() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, rows := range s.tokens {
		n += rows
	}
	return n
}

// inserts is how many batches there are, and how many changed between two tries.
func (s *sink) inserts() (batches, changed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tokens), s.changed
}

var errAway = errors.New("connection refused")

func away(int) error { return errAway }

// running is an Ingest with a client.
type running struct {
	*Ingest
	traces  collectortrace.TraceServiceClient
	logs    collectorlogs.LogsServiceClient
	metrics collectormetrics.MetricsServiceClient
	http    string // URL of OTLP over HTTP
	reg     *prometheus.Registry
	stop    func() // ends it and waits
}

func testConfig(t *testing.T) Config {
	cfg := DefaultConfig()
	cfg.Addr, cfg.HTTPAddr, cfg.SpoolDir = "127.0.0.1:0", "127.0.0.1:0", filepath.Join(t.TempDir(), "spool")
	cfg.FlushEvery, cfg.FlushAfter = 5*time.Millisecond, time.Millisecond
	cfg.MinBackoff, cfg.MaxBackoff = time.Millisecond, 20*time.Millisecond
	return cfg
}

func start(t *testing.T, cfg Config, s Sink) *running {
	t.Helper()
	reg := prometheus.NewRegistry()
	in, err := New(cfg, s, reg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	listeners, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- in.Serve(ctx, listeners) }()
	conn, err := grpc.NewClient(listeners.GRPC.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		conn.Close()
	})
	t.Cleanup(stop)
	return &running{
		in, collectortrace.NewTraceServiceClient(conn), collectorlogs.NewLogsServiceClient(conn), collectormetrics.NewMetricsServiceClient(conn),
		"http://" + listeners.HTTP.Addr().String(), reg, stop,
	}
}

// message has n spans that start now, the first bad of them without an id.
func message(n, bad int) *collectortrace.ExportTraceServiceRequest {
	var spans []*tracev1.Span
	now := uint64(time.Now().UnixNano())
	for i := range n {
		s := &tracev1.Span{TraceId: make([]byte, 16), SpanId: make([]byte, 8), Name: "x", StartTimeUnixNano: now, EndTimeUnixNano: now + 1e6}
		for j := range s.TraceId {
			s.TraceId[j] = byte(rand.Uint32())
		}
		s.TraceId[15], s.SpanId[0] = 1, 1
		if i < bad {
			s.TraceId = nil
		}
		spans = append(spans, s)
	}
	return &collectortrace.ExportTraceServiceRequest{ResourceSpans: []*tracev1.ResourceSpans{{ScopeSpans: []*tracev1.ScopeSpans{{Spans: spans}}}}}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(time.Millisecond) // polling a condition with a deadline
	}
}

func balanced(t *testing.T, a Account) {
	t.Helper()
	if !a.Balanced() {
		t.Errorf("account does not balance: %+v", a)
	}
}

func TestEverythingIsAccountedFor(t *testing.T) {
	s := &sink{tokens: map[string]int{}}
	r := start(t, testConfig(t), s)
	out, err := r.traces.Export(t.Context(), message(10, 3))
	if err != nil {
		t.Fatal(err)
	}
	if p := out.GetPartialSuccess(); p.GetRejectedSpans() != 3 || !strings.Contains(p.GetErrorMessage(), "bad_trace_id") {
		t.Errorf("partial success = %v, want 3 rejected", p)
	}
	if s.rows() != 7 {
		t.Errorf("acknowledged before stored: sink has %d of 7", s.rows())
	}
	logs := &collectorlogs.ExportLogsServiceRequest{ResourceLogs: []*logsv1.ResourceLogs{{ScopeLogs: []*logsv1.ScopeLogs{{LogRecords: []*logsv1.LogRecord{{TimeUnixNano: 1}, {}}}}}}}
	if out, err := r.logs.Export(t.Context(), logs); err != nil || out.GetPartialSuccess().GetRejectedLogRecords() != 1 {
		t.Errorf("logs: %v, %v; want 1 rejected", out, err)
	}
	points := &collectormetrics.ExportMetricsServiceRequest{ResourceMetrics: []*metricsv1.ResourceMetrics{{ScopeMetrics: []*metricsv1.ScopeMetrics{{Metrics: []*metricsv1.Metric{
		{Name: "g", Data: &metricsv1.Metric_Gauge{Gauge: &metricsv1.Gauge{DataPoints: []*metricsv1.NumberDataPoint{{}, {TimeUnixNano: uint64(time.Now().UnixNano())}}}}},
		{Name: "s", Data: &metricsv1.Metric_Sum{Sum: &metricsv1.Sum{DataPoints: []*metricsv1.NumberDataPoint{{TimeUnixNano: 1}}}}},
		{},
	}}}}}}
	if out, err := r.metrics.Export(t.Context(), points); err != nil || out.GetPartialSuccess().GetRejectedDataPoints() != 4 || !strings.Contains(out.GetPartialSuccess().GetErrorMessage(), "no_time") {
		t.Errorf("metrics: %v, %v; want 4 rejected", out, err)
	}
	a := r.Account()
	balanced(t, a)
	if a.Received != 16 || a.Stored != 8 || a.Dropped[otlp.BadTraceID] != 3 ||
		a.Dropped[otlp.NoTime] != 1 || a.Dropped[otlp.NoValue] != 1 || a.Dropped[otlp.TooOld] != 2 || a.Dropped[otlp.UnsupportedMetric] != 1 {
		t.Errorf("account = %+v", a)
	}
	for table, want := range map[otlp.Table][2]uint64{otlp.Traces: {10, 7}, otlp.Metrics: {4, 0}, otlp.Logs: {2, 1}} {
		if f := a.Tables[table]; f.Received != want[0] || f.Stored != want[1] {
			t.Errorf("account of %s = %+v, want received and stored %v", table, f, want)
		}
	}
	for _, reason := range Reasons() { // each reason has its metric from the start
		if n := metric(t, r.reg, "tracegate_ingest_dropped_records_total", "reason", string(reason)); n != float64(a.Dropped[reason]) {
			t.Errorf("metric of %s = %v, want %d", reason, n, a.Dropped[reason])
		}
	}
	if problems, err := testutil.GatherAndLint(r.reg); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %v", problems, err)
	}
}

// metric adds up what has the label.
func metric(t *testing.T, reg *prometheus.Registry, name, label, value string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetName() == label && l.GetValue() == value {
					sum, found = sum+m.GetCounter().GetValue(), true
				}
			}
		}
	}
	if !found {
		t.Errorf("no metric %s{%s=%q}", name, label, value)
	}
	return sum
}

func TestSpoolTakesOverAndDrains(t *testing.T) {
	s := &sink{tokens: map[string]int{}, fail: away}
	r := start(t, testConfig(t), s)
	for range 5 {
		if _, err := r.traces.Export(t.Context(), message(4, 0)); err != nil {
			t.Fatalf("while away: %v", err) // spooled is acknowledged
		}
	}
	a := r.Account()
	balanced(t, a)
	if !a.Away || a.Spooled != 20 || a.SpoolSegments == 0 {
		t.Errorf("account while away = %+v", a)
	}
	s.set(nil)
	eventually(t, "spool drained", func() bool { return r.Account().Stored == 20 })
	a = r.Account()
	balanced(t, a)
	if a.Away || a.Spooled != 0 || a.SpoolBytes != 0 || s.rows() != 20 {
		t.Errorf("account = %+v, sink has %d", a, s.rows())
	}
	if _, err := r.traces.Export(t.Context(), message(1, 0)); err != nil || s.rows() != 21 {
		t.Errorf("afterwards: %v, sink has %d of 21", err, s.rows())
	}
}

// TestAnOutageIsMadeUpForByFewInserts: what came while ClickHouse was away costs it no insert
// for each of the batches that it would have got.
func TestAnOutageIsMadeUpForByFewInserts(t *testing.T) {
	s := &sink{tokens: map[string]int{}, fail: away}
	r := start(t, testConfig(t), s)
	for range 40 {
		if _, err := r.traces.Export(t.Context(), message(3, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.metrics.Export(t.Context(), measured(2)); err != nil { // three kinds
			t.Fatal(err)
		}
	}
	s.set(nil)
	eventually(t, "spool drained", func() bool { return r.Account().Stored == 40*(3+6) })
	balanced(t, r.Account())
	// A tried batch of each table's pipeline and a segment of each kind, which may have been cut once.
	if batches, changed := s.inserts(); s.rows() != 40*(3+6) || batches > 12 || changed > 0 {
		t.Errorf("sink has %d rows by %d inserts, %d of which changed", s.rows(), batches, changed)
	}
}

// TestLostSpoolFilesAreCounted: somebody made room on the disk.
func TestLostSpoolFilesAreCounted(t *testing.T) {
	cfg := testConfig(t)
	s := &sink{tokens: map[string]int{}, fail: away}
	r := start(t, cfg, s)
	for range 4 {
		if _, err := r.traces.Export(t.Context(), message(5, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(cfg.SpoolDir); err != nil {
		t.Fatal(err)
	}
	s.set(nil)
	eventually(t, "settled", func() bool { return r.Account().Spooled == 0 })
	a := r.Account()
	balanced(t, a)
	if a.Dropped[SpoolCorrupt] != 20 || a.Stored != 0 {
		t.Errorf("account = %+v, want 20 lost", a)
	}
}

func TestLostAnswerCountsOnce(t *testing.T) {
	s := &sink{tokens: map[string]int{}, failWith: func(try int) error {
		if try <= 3 {
			return errAway
		}
		return nil
	}}
	r := start(t, testConfig(t), s)
	if _, err := r.traces.Export(t.Context(), message(9, 0)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "stored", func() bool { return r.Account().Stored == 9 })
	if s.rows() != 9 || len(s.tokens) != 1 {
		t.Errorf("sink has %d rows under %d tokens, want 9 under 1", s.rows(), len(s.tokens))
	}
}

func TestSpoolSurvivesARestart(t *testing.T) {
	cfg := testConfig(t)
	s := &sink{tokens: map[string]int{}, fail: away}
	r := start(t, cfg, s)
	for range 3 {
		if _, err := r.traces.Export(t.Context(), message(5, 0)); err != nil {
			t.Fatal(err)
		}
	}
	r.stop()
	balanced(t, r.Account())
	s.set(nil)
	r = start(t, cfg, s)
	eventually(t, "stored", func() bool { return r.Account().Stored == 15 })
	a := r.Account()
	balanced(t, a)
	if a.Recovered != 15 || a.Received != 0 || s.rows() != 15 {
		t.Errorf("account = %+v, sink has %d", a, s.rows())
	}
}

func TestFullSpoolTellsTheSender(t *testing.T) {
	cfg := testConfig(t)
	cfg.SpoolBytes = 1500
	s := &sink{tokens: map[string]int{}, fail: away}
	r := start(t, cfg, s)
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		_, err = r.traces.Export(t.Context(), message(3, 0))
	}
	st := status.Convert(err)
	if st.Code() != codes.ResourceExhausted || len(st.Details()) != 0 {
		t.Errorf("error = %v with %v, want a final one", err, st.Details())
	}
	a := r.Account()
	balanced(t, a)
	if a.Dropped[SpoolFull] != 3 {
		t.Errorf("account = %+v, want 3 dropped because the spool is full", a)
	}
	kept := a.Spooled
	s.set(nil)
	eventually(t, "drained", func() bool { return r.Account().Stored == kept })
}

func TestDamagedSpoolIsCounted(t *testing.T) {
	cfg := testConfig(t)
	s := &sink{tokens: map[string]int{}, fail: away}
	r := start(t, cfg, s)
	for range 2 {
		if _, err := r.traces.Export(t.Context(), message(5, 0)); err != nil {
			t.Fatal(err)
		}
	}
	r.stop()
	files, err := filepath.Glob(filepath.Join(cfg.SpoolDir, "*.segment"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-1] ^= 1
	if err := os.WriteFile(files[0], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	s.set(nil)
	r = start(t, cfg, s)
	eventually(t, "settled", func() bool { return r.Account().Spooled == 0 })
	a := r.Account()
	balanced(t, a)
	if a.Dropped[SpoolCorrupt] == 0 || a.Stored+a.Dropped[SpoolCorrupt] != 10 {
		t.Errorf("account = %+v", a)
	}
}

func TestRefusedDataIsNotTriedForever(t *testing.T) {
	s := &sink{tokens: map[string]int{}, fail: func(int) error { return store.ErrUnfit }}
	r := start(t, testConfig(t), s)
	_, err := r.traces.Export(t.Context(), message(2, 0))
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("error = %v, want a final one", err)
	}
	a := r.Account()
	balanced(t, a)
	if a.Dropped[Rejected] != 2 || a.Spooled != 0 {
		t.Errorf("account = %+v", a)
	}
}

func TestTooMuchPendingIsRefused(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxPending = 10
	hold := make(chan struct{})
	s := &sink{tokens: map[string]int{}, fail: func(int) error { <-hold; return nil }}
	r := start(t, cfg, s)
	var g sync.WaitGroup
	g.Go(func() {
		if _, err := r.traces.Export(t.Context(), message(8, 0)); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "pending", func() bool { return r.Account().Pending == 8 })
	_, err := r.traces.Export(t.Context(), message(3, 0))
	if st := status.Convert(err); st.Code() != codes.Unavailable || len(st.Details()) != 1 {
		t.Errorf("error = %v, want one that says when to try again", err)
	}
	if a := r.Account(); a.Refused != 3 || a.Received != 8 {
		t.Errorf("account = %+v, want 3 refused", a)
	}
	close(hold)
	g.Wait()
	if _, err := r.traces.Export(t.Context(), message(3, 0)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	balanced(t, r.Account())
}

func TestTooLargeAMessage(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxMessage = 1000
	r := start(t, cfg, &sink{tokens: map[string]int{}})
	if _, err := r.traces.Export(t.Context(), message(100, 0)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("error = %v, want one about the size", err)
	}
}

// TestStopAnswersWhatWasReceived stops while senders send: what was acknowledged is
// stored or spooled, and nothing is pending at the end.
func TestStopAnswersWhatWasReceived(t *testing.T) {
	for name, fail := range map[string]func(int) error{"clickhouse there": nil, "clickhouse away": away} {
		t.Run(name, func(t *testing.T) {
			s := &sink{tokens: map[string]int{}, fail: fail}
			r := start(t, testConfig(t), s)
			var mu sync.Mutex
			acked := 0
			var g sync.WaitGroup
			for range 8 {
				g.Go(func() {
					for {
						if _, err := r.traces.Export(t.Context(), message(3, 0)); err != nil {
							return
						}
						mu.Lock()
						acked += 3
						mu.Unlock()
					}
				})
			}
			eventually(t, "some acknowledged", func() bool { mu.Lock(); defer mu.Unlock(); return acked > 100 })
			r.stop()
			g.Wait()
			a := r.Account()
			balanced(t, a)
			if a.Pending != 0 || int(a.Stored+a.Spooled) < acked {
				t.Errorf("acknowledged %d, account = %+v", acked, a)
			}
		})
	}
}

func TestBatcherBoundsBatchesInTimeAndSize(t *testing.T) {
	base := time.Unix(1000, 0)
	cfg := DefaultConfig()
	cfg.FlushEvery, cfg.FlushAfter, cfg.FlushRows, cfg.FlushBytes = 200*time.Millisecond, 20*time.Millisecond, 10, 100
	at := func(ms int) time.Time { return base.Add(time.Duration(ms) * time.Millisecond) }
	for _, tc := range []struct {
		name      string
		last      time.Time
		rows      int
		size      int64
		now       time.Time
		flush     bool
		wait      time.Duration
		firstRowT time.Time
	}{
		{"nothing", at(-1000), 0, 0, at(0), false, time.Hour, at(0)},
		{"alone, at once", at(-1000), 1, 1, at(0), false, 20 * time.Millisecond, at(0)},
		{"alone, due", at(-1000), 1, 1, at(20), true, time.Hour, at(0)},
		{"soon after the last", at(-50), 1, 1, at(20), false, 130 * time.Millisecond, at(0)},
		{"soon after the last, due", at(-50), 1, 1, at(150), true, time.Hour, at(0)},
		{"right after the last: never more than FlushEvery", at(0), 1, 1, at(200), true, time.Hour, at(0)},
		{"many rows", at(0), 10, 1, at(0), true, time.Hour, at(0)},
		{"many bytes", at(0), 1, 100, at(0), true, time.Hour, at(0)},
	} {
		out := make(chan *batch)
		b := &batcher{cfg: cfg, out: out, current: &batch{}, last: tc.last}
		if tc.rows > 0 {
			b.add(submission{rows: records{spans: make([]store.Span, tc.rows)}, size: tc.size}, tc.firstRowT)
		}
		got, wait := b.next(tc.now)
		if (got != nil) != tc.flush || wait != tc.wait {
			t.Errorf("%s: flush %v, wait %s; want %v, %s", tc.name, got != nil, wait, tc.flush, tc.wait)
		}
	}
}

func TestConfigValidateNamesTheKey(t *testing.T) {
	for key, edit := range map[string]func(*Config){
		"addr": func(c *Config) { c.Addr = "x" }, "max_message": func(c *Config) { c.MaxMessage = 0 }, "max_pending": func(c *Config) { c.MaxPending = 0 },
		"flush_every": func(c *Config) { c.FlushEvery = 0 }, "spool_dir": func(c *Config) { c.SpoolDir = "" }, "spool_bytes": func(c *Config) { c.SpoolBytes = 0 },
		"max_backoff": func(c *Config) { c.MaxBackoff = 0 }, "env": func(c *Config) { c.Env = "" }, "writers": func(c *Config) { c.Writers = MaxWriters + 1 }, "limits": func(c *Config) { c.Limits = otlp.Limits{} },
	} {
		cfg := testConfig(t)
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		edit(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), key) {
			t.Errorf("error = %v, want one that starts with %s", err, key)
		}
	}
}
