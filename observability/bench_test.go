package observability

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/engine/enginetest"
	"github.com/tracegate/tracegate/observability/ingest"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

func benchStore(b *testing.B) *store.Store {
	b.Helper()
	e := enginetest.Start(b)
	cfg := store.DefaultConfig()
	cfg.Addr, cfg.User, cfg.Password, cfg.Timeout = e.Addr, enginetest.User, enginetest.Password, time.Minute
	s, err := store.Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	if err := s.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkIngest sends messages of 1,000 spans with ten attributes over OTLP from four
// senders to the receiver, which stores them in the real engine. Sender, receiver and
// engine share the machine.
func BenchmarkIngest(b *testing.B) {
	s := benchStore(b)
	cfg := ingest.DefaultConfig()
	cfg.SpoolDir, cfg.StoreTimeout = filepath.Join(b.TempDir(), "spool"), time.Minute
	in, err := ingest.New(cfg, s, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	ended := make(chan error, 1)
	go func() { ended <- in.Serve(ctx, ingest.Listeners{GRPC: listener}) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	client := collectortrace.NewTraceServiceClient(conn)
	const senders, size = 16, 1000
	messages := make(chan *collectortrace.ExportTraceServiceRequest)
	var g sync.WaitGroup
	for range senders {
		g.Go(func() {
			for m := range messages {
				if _, err := client.Export(ctx, m); err != nil {
					b.Error(err)
				}
			}
		})
	}
	made := make([]*collectortrace.ExportTraceServiceRequest, 16)
	for i := range made {
		made[i] = benchMessage(size)
	}
	b.ResetTimer()
	for i := range b.N {
		messages <- made[i%len(made)]
	}
	close(messages)
	g.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "spans/s")
	conn.Close()
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
	if a := in.Account(); a.Stored != uint64(b.N*size) {
		b.Errorf("account = %+v, want %d stored", a, b.N*size)
	}
}

func benchMessage(n int) *collectortrace.ExportTraceServiceRequest {
	str := func(k, v string) *commonv1.KeyValue {
		return &commonv1.KeyValue{Key: k, Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: v}}}
	}
	var spans []*tracev1.Span
	for i := range n {
		start := uint64(time.Now().Add(-time.Duration(rand.Int64N(int64(10 * time.Second)))).UnixNano())
		s := &tracev1.Span{
			TraceId: make([]byte, 16), SpanId: make([]byte, 8), Name: "store message", Kind: tracev1.Span_SPAN_KIND_SERVER,
			StartTimeUnixNano: start, EndTimeUnixNano: start + uint64(rand.Int64N(1e8)),
			Attributes: []*commonv1.KeyValue{
				str("traffic.env", "prod"), str("traffic.tenant", []string{"search", "payment"}[i%2]), str("traffic.pool", "baseline"), str("traffic.entry", "true"),
				str("http.request.method", "POST"), str("http.route", "/v1/conversations/{conversation}/messages"), str("url.path", fmt.Sprintf("/v1/conversations/%d/messages", i)),
				str("http.response.status_code", "202"), str("server.address", "payment.local"), str("client.address", "127.0.0.1"),
			},
		}
		binary.BigEndian.PutUint32(s.TraceId, uint32(i%4))
		binary.BigEndian.PutUint64(s.TraceId[8:], rand.Uint64()|1)
		binary.BigEndian.PutUint64(s.SpanId, rand.Uint64()|1)
		spans = append(spans, s)
	}
	return &collectortrace.ExportTraceServiceRequest{ResourceSpans: []*tracev1.ResourceSpans{{
		Resource:   &resourcev1.Resource{Attributes: []*commonv1.KeyValue{str("service.name", "core"), str("service.instance.id", "core-1")}},
		ScopeSpans: []*tracev1.ScopeSpans{{Spans: spans}},
	}}}
}

// BenchmarkGroupStats reads windows of one million spans of 30 groups in ten minutes.
func BenchmarkGroupStats(b *testing.B) {
	s := benchStore(b)
	from := time.Now().Add(-15 * time.Minute).Truncate(time.Second)
	const spans, size = 1_000_000, 50_000
	for n := 0; n < spans; n += size {
		batch := make([]store.Span, size)
		for i := range batch {
			g := group.Group{Color: group.Color(rand.IntN(10)), Env: "prod", Tenant: []string{"a", "b", "c"}[rand.IntN(3)]}
			batch[i] = store.Span{
				Timestamp: from.Add(time.Duration(rand.Int64N(int64(10 * time.Minute)))), TraceID: fmt.Sprintf("%s%024x", g.Color, rand.Uint64()), SpanID: fmt.Sprintf("%016x", rand.Uint64()),
				Name: "GET /", Service: "edge", Status: "Unset", Duration: time.Duration(rand.ExpFloat64() * 5e7), Attributes: map[string]string{"http.route": "/"},
				Traffic: store.Traffic{Group: g.ID(), Color: g.Color, Env: g.Env, Tenant: g.Tenant, Service: "core", Pool: "baseline", Route: "/", Entry: true},
			}
		}
		if err := s.InsertSpans(b.Context(), fmt.Sprint(n), batch); err != nil {
			b.Fatal(err)
		}
	}
	for _, window := range []time.Duration{2 * time.Second, 30 * time.Second, 10 * time.Minute} {
		b.Run(window.String(), func(b *testing.B) {
			for b.Loop() {
				w := sli.Window{From: from.Add(10*time.Minute - window), To: from.Add(10 * time.Minute)}
				got, err := s.GroupStats(b.Context(), w)
				if err != nil || len(got) != 30 {
					b.Fatalf("%d groups, %v", len(got), err)
				}
			}
		})
	}
}
