package goruntime

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// TestReadsARealProcess reads this process as client_golang exports it and compares
// with what runtime/metrics says directly.
func TestReadsARealProcess(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsScheduler, collectors.MetricsGC)))
	srv := httptest.NewServer(promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	defer srv.Close()
	for range 5 {
		runtime.GC()
	}
	before := pauses()
	got, err := Read(t.Context(), srv.Client(), srv.URL)
	after := pauses()
	if err != nil {
		t.Fatal(err)
	}
	p, g := got[KindPause], got[KindGoroutine]
	if n := p.Count(); n < before || n > after || n < 5 {
		t.Errorf("%d pauses, the runtime counts %d to %d", n, before, after)
	}
	if g.Count() == 0 || g.Quantile(0.99) <= 0 || g.Quantile(0.99) > time.Minute {
		t.Errorf("goroutine waits: %d, P99 %v", g.Count(), g.Quantile(0.99))
	}
}

func pauses() uint64 {
	s := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}}
	metrics.Read(s)
	var n uint64
	for _, c := range s[0].Value.Float64Histogram().Counts {
		n += c
	}
	return n
}

func TestWhatIsNotThere(t *testing.T) {
	if _, err := parse(strings.NewReader("# TYPE up gauge\nup 1\n")); !errors.Is(err, ErrNone) {
		t.Errorf("err = %v, want %v", err, ErrNone)
	}
	if _, err := parse(strings.NewReader("{{{")); err == nil {
		t.Error("no error for what is not metrics")
	}
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	if _, err := Read(t.Context(), srv.Client(), srv.URL); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("err = %v, want 404", err)
	}
}

func TestConvert(t *testing.T) {
	got, err := parse(strings.NewReader(`# TYPE go_sched_latencies_seconds histogram
go_sched_latencies_seconds_bucket{le="0.001"} 3
go_sched_latencies_seconds_bucket{le="0.004"} 7
go_sched_latencies_seconds_bucket{le="+Inf"} 8
go_sched_latencies_seconds_sum 1
go_sched_latencies_seconds_count 8
`))
	if err != nil {
		t.Fatal(err)
	}
	h := got[KindGoroutine]
	if h.Count() != 8 {
		t.Errorf("%d events, want 8", h.Count())
	}
	if p50 := h.Quantile(0.5); p50 < 1900*time.Microsecond || p50 > 2300*time.Microsecond {
		t.Errorf("P50 = %v, want about 2ms", p50)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("# TYPE go_gc_pauses_seconds histogram\ngo_gc_pauses_seconds_bucket{le=\"-Inf\"} 1\ngo_gc_pauses_seconds_bucket{le=\"NaN\"} 9\n")
	f.Fuzz(func(_ *testing.T, s string) { _, _ = parse(strings.NewReader(s)) })
}
