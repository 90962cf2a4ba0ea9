package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/observability/semconv"
)

func TestUtilization(t *testing.T) {
	for name, tc := range map[string]struct {
		used, elapsed time.Duration
		cpus          float64
		want          float64 // below 0: nobody knows
	}{
		"one of two CPUs":        {time.Second, time.Second, 2, 0.5},
		"half a CPU, all of it":  {time.Second, 2 * time.Second, 0.5, 1},
		"idle":                   {0, time.Second, 2, 0},
		"more than a quota":      {1500 * time.Millisecond, time.Second, 1, 1.5},
		"no time went by":        {time.Second, 0, 2, -1},
		"no CPUs":                {time.Second, time.Second, 0, -1},
		"a clock that goes back": {-time.Second, time.Second, 2, -1},
	} {
		if got := utilization(tc.used, tc.elapsed, tc.cpus); tc.want < 0 && !math.IsNaN(got) || tc.want >= 0 && got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// TestNext: reports are made as seconds begin, and none is of less than half of one.
func TestNext(t *testing.T) {
	for at, want := range map[time.Duration]time.Duration{
		0: time.Second, 3 * time.Millisecond: 997 * time.Millisecond, 500 * time.Millisecond: 500 * time.Millisecond, 501 * time.Millisecond: 1499 * time.Millisecond, 999 * time.Millisecond: 1001 * time.Millisecond,
	} {
		if got := next(time.Unix(1000, 0).Add(at)); got != want {
			t.Errorf("at %s: %s, want %s", at, got, want)
		}
	}
}

// TestAllowed: a quota counts where it is below what Go uses.
func TestAllowed(t *testing.T) {
	root := t.TempDir()
	if got := allowed(4, root); got != 4 {
		t.Errorf("without a quota: %v", got)
	}
	for file, content := range map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"} {
		file = filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := allowed(2, root); got != 0.5 {
		t.Errorf("with half a CPU: %v", got)
	}
}

// metricsReceiver takes reports, and fails where it has an error.
type metricsReceiver struct {
	collector.UnimplementedMetricsServiceServer
	got chan *collector.ExportMetricsServiceRequest
	err error
}

func (r *metricsReceiver) Export(_ context.Context, req *collector.ExportMetricsServiceRequest) (*collector.ExportMetricsServiceResponse, error) {
	if r.err != nil {
		return nil, r.err
	}
	r.got <- req
	return &collector.ExportMetricsServiceResponse{}, nil
}

func load(t *testing.T, r *metricsReceiver) *Load {
	t.Helper()
	lis, err := net.Listen("tcp", freeport.ForTest(t))
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	collector.RegisterMetricsServiceServer(srv, r)
	go func() { _ = srv.Serve(lis) }()
	t.Cleanup(srv.Stop)
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	cfg := config()
	cfg.Instance = "one"
	return NewLoad(cfg, conn, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
}

// TestLoadReports CPU and queues of this very process, under its name and pool.
func TestLoadReports(t *testing.T) {
	r := &metricsReceiver{got: make(chan *collector.ExportMetricsServiceRequest, 1)}
	l := load(t, r)
	l.Watch("accepted", func() float64 { return 0.25 })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	req := <-r.got
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	of := map[string]string{}
	for _, kv := range req.GetResourceMetrics()[0].GetResource().GetAttributes() {
		of[kv.GetKey()] = kv.GetValue().GetStringValue()
	}
	if of["service.name"] != "core" || of[semconv.Pool] != "canary" || of["service.instance.id"] != "one" {
		t.Errorf("resource: %v", of)
	}
	ms := req.GetResourceMetrics()[0].GetScopeMetrics()[0].GetMetrics()
	if len(ms) != 2 || ms[0].GetName() != semconv.CPUUtilization || ms[1].GetName() != semconv.QueueUtilization {
		t.Fatalf("metrics: %v", ms)
	}
	if cpu := ms[0].GetGauge().GetDataPoints()[0].GetAsDouble(); cpu <= 0 || math.IsNaN(cpu) {
		t.Errorf("CPU: %v", cpu)
	}
	p := ms[1].GetGauge().GetDataPoints()[0]
	if p.GetAsDouble() != 0.25 || p.GetAttributes()[0].GetValue().GetStringValue() != "accepted" {
		t.Errorf("queue: %v", p)
	}
}

// TestLoadIsNotGuessed: what is not a number is not sent.
func TestLoadIsNotGuessed(t *testing.T) {
	req := loadRequest(config(), time.Unix(1, 0), math.NaN(), map[string]float64{"a": math.NaN(), "b": 1})
	ms := req.GetResourceMetrics()[0].GetScopeMetrics()[0].GetMetrics()
	if len(ms) != 1 || len(ms[0].GetGauge().GetDataPoints()) != 1 {
		t.Errorf("metrics: %v", ms)
	}
}

// TestLoadCountsFailures and goes on.
func TestLoadCountsFailures(t *testing.T) {
	l := load(t, &metricsReceiver{err: errors.New("full")})
	if err := l.report(t.Context(), time.Now(), 0.5); err == nil || !strings.Contains(err.Error(), "report load") {
		t.Errorf("err = %v", err)
	}
	if n := testutil.ToFloat64(l.reports.WithLabelValues("failed")); n != 1 {
		t.Errorf("%g failures counted", n)
	}
}
