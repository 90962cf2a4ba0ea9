package otlp

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tracegate/tracegate/bpf/hist"
	"github.com/tracegate/tracegate/bpf/probe"
	"github.com/tracegate/tracegate/mesh/freeport"
)

type receiver struct {
	collector.UnimplementedMetricsServiceServer
	got    chan *collector.ExportMetricsServiceRequest
	refuse int64
}

func (r *receiver) Export(_ context.Context, req *collector.ExportMetricsServiceRequest) (*collector.ExportMetricsServiceResponse, error) {
	r.got <- req
	return &collector.ExportMetricsServiceResponse{PartialSuccess: &collector.ExportMetricsPartialSuccess{RejectedDataPoints: r.refuse, ErrorMessage: "full"}}, nil
}

func TestExport(t *testing.T) {
	l, err := net.Listen("tcp", freeport.ForTest(t))
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{got: make(chan *collector.ExportMetricsServiceRequest, 2)}
	srv := grpc.NewServer()
	collector.RegisterMetricsServiceServer(srv, r)
	go func() { _ = srv.Serve(l) }()
	defer srv.Stop()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	var h hist.Histogram
	h.RecordN(400*time.Millisecond, 3)
	h.RecordN(20*time.Minute, 2) // beyond the last bound
	canary := probe.Owner{Service: "core", Pool: "canary", Name: "core-canary"}
	start := time.Unix(1000, 0)
	e := New(conn, start)
	series := []probe.Series{{Probe: "tcpconnect", Kind: "connect", Owner: canary, Target: "127.0.0.1:9092", Hist: h}}
	counts := []probe.Count{{Probe: "tcpretransmit", Kind: "drop", Reason: "tcp_csum", N: 4}, {Probe: "tcpconnect", Kind: "connect_failed", Owner: canary, Reason: "refused", N: 2}}
	if err := e.Export(t.Context(), start.Add(time.Minute), series, counts); err != nil {
		t.Fatal(err)
	}
	req := <-r.got
	if n := len(req.GetResourceMetrics()); n != 2 {
		t.Fatalf("%d resources, want that of the service and that of the machine", n)
	}
	for _, rm := range req.GetResourceMetrics() {
		m := rm.GetScopeMetrics()[0].GetMetrics()
		if len(rm.GetResource().GetAttributes()) == 0 { // the machine
			if s := m[0].GetSum(); len(m) != 1 || s.GetDataPoints()[0].GetAsInt() != 4 || !s.GetIsMonotonic() {
				t.Errorf("drops: %v", m)
			}
			continue
		}
		p := m[0].GetHistogram().GetDataPoints()[0]
		var sum uint64
		for _, n := range p.GetBucketCounts() {
			sum += n
		}
		if len(m) != 2 || p.GetCount() != 5 || sum != 5 || len(p.GetBucketCounts()) != len(p.GetExplicitBounds())+1 {
			t.Errorf("durations: %v", p)
		}
		if at := p.GetTimeUnixNano() - p.GetStartTimeUnixNano(); at != uint64(time.Minute) {
			t.Errorf("%d ns between start and reading", at)
		}
		for i, n := range p.GetBucketCounts() {
			if n == 3 && (p.GetExplicitBounds()[i] < 0.4 || p.GetExplicitBounds()[i-1] > 0.4) {
				t.Errorf("400 ms lie between %v and %v s", p.GetExplicitBounds()[i-1], p.GetExplicitBounds()[i])
			}
		}
	}

	r.refuse = 3
	if err := e.Export(t.Context(), start, series, counts); err == nil || !strings.Contains(err.Error(), "3 points refused: full") {
		t.Errorf("err = %v", err)
	}
}
