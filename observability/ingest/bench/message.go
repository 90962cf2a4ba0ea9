package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

type client struct {
	*grpc.ClientConn
	traces collectortrace.TraceServiceClient
}

// dial returns once the receiver takes messages.
func dial(ctx context.Context, addr string) (*client, error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	c := &client{conn, collectortrace.NewTraceServiceClient(conn)}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := c.export(ctx, &collectortrace.ExportTraceServiceRequest{}); err != nil {
		return nil, fmt.Errorf("receiver is not ready: %w", err)
	}
	return c, nil
}

func (c *client) export(ctx context.Context, m *collectortrace.ExportTraceServiceRequest) error {
	_, err := c.traces.Export(ctx, m, grpc.WaitForReady(true))
	return err
}

// message is what one sender sends again and again, with other ids, times and paths.
type message struct {
	random *rand.Rand
	req    *collectortrace.ExportTraceServiceRequest
	spans  []*tracev1.Span
}

func text(key, value string) *commonv1.KeyValue {
	return &commonv1.KeyValue{Key: key, Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: value}}}
}

const pathAt = 6 // of url.path among the attributes

func newMessage(seed uint64, size int) *message {
	m := &message{random: rand.New(rand.NewPCG(seed, 1))}
	for i := range size {
		m.spans = append(m.spans, &tracev1.Span{
			TraceId: make([]byte, 16), SpanId: make([]byte, 8), ParentSpanId: make([]byte, 8), Name: "POST /v1/conversations/{id}/messages", Kind: tracev1.Span_SPAN_KIND_SERVER,
			Attributes: []*commonv1.KeyValue{
				text("traffic.env", "prod"), text("traffic.tenant", []string{"search", "payment", "chat"}[i%3]), text("traffic.pool", "baseline"), text("traffic.entry", "true"),
				text("http.request.method", "POST"), text("http.route", "/v1/conversations/{id}/messages"), text("url.path", ""),
				text("http.response.status_code", "202"), text("server.address", "payment.local"), text("client.address", "127.0.0.1"),
			},
		})
	}
	m.req = &collectortrace.ExportTraceServiceRequest{ResourceSpans: []*tracev1.ResourceSpans{{
		Resource: &resourcev1.Resource{Attributes: []*commonv1.KeyValue{
			text("service.name", "core"), text("service.instance.id", fmt.Sprintf("core-%d", seed)), text("service.version", "1.2.3"), text("telemetry.sdk.language", "go"),
		}},
		ScopeSpans: []*tracev1.ScopeSpans{{Scope: &commonv1.InstrumentationScope{Name: "bench"}, Spans: m.spans}},
	}}}
	return m
}

// fresh is the message with new ids and times within the last second, in ten groups.
func (m *message) fresh(now time.Time) *collectortrace.ExportTraceServiceRequest {
	for _, s := range m.spans {
		binary.BigEndian.PutUint32(s.TraceId, uint32(m.random.IntN(10)))
		binary.BigEndian.PutUint32(s.TraceId[4:], m.random.Uint32())
		binary.BigEndian.PutUint64(s.TraceId[8:], m.random.Uint64()|1)
		binary.BigEndian.PutUint64(s.SpanId, m.random.Uint64()|1)
		binary.BigEndian.PutUint64(s.ParentSpanId, m.random.Uint64()|1)
		start := uint64(now.UnixNano()) - m.random.Uint64N(1e9)
		s.StartTimeUnixNano, s.EndTimeUnixNano = start, start+uint64(m.random.ExpFloat64()*2e7)
		s.Attributes[pathAt] = text("url.path", fmt.Sprintf("/v1/conversations/%d/messages", m.random.IntN(10_000)))
	}
	return m.req
}
