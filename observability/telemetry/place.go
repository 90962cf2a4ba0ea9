package telemetry

import (
	"context"
	"encoding/binary"
	"math/rand/v2"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// GroupOf is the traffic group of a trace, from its id and the baggage in ctx. Without
// env and tenant in the baggage the edge has not named it, and it is baseline, whatever
// its id.
func GroupOf(ctx context.Context, id trace.TraceID, env, tenant string) group.Group {
	g := group.Group{Color: group.Baseline, Env: env, Tenant: tenant}
	b := baggage.FromContext(ctx)
	bagEnv, bagTenant := b.Member(semconv.Env).Value(), b.Member(semconv.Tenant).Value()
	if bagEnv == "" && bagTenant == "" {
		return g
	}
	g.Color = group.Color(binary.BigEndian.Uint32(id[:4]))
	if bagEnv != "" {
		g.Env = bagEnv
	}
	if bagTenant != "" {
		g.Tenant = bagTenant
	}
	return g
}

// placer is a span processor that gives every span its traffic group.
type placer struct {
	cfg Config
}

// OnStart implements [sdktrace.SpanProcessor].
func (p placer) OnStart(parent context.Context, s sdktrace.ReadWriteSpan) {
	g := GroupOf(parent, s.SpanContext().TraceID(), p.cfg.Env, p.cfg.Tenant)
	kvs := [5]attribute.KeyValue{
		attribute.String(semconv.Group, string(g.ID())),
		attribute.String(semconv.Color, g.Color.String()),
		attribute.String(semconv.Env, g.Env),
		attribute.String(semconv.Tenant, g.Tenant),
		attribute.String(semconv.Pool, p.cfg.Pool),
	}
	if p.cfg.Pool == "" {
		s.SetAttributes(kvs[:4]...)
		return
	}
	s.SetAttributes(kvs[:]...)
}

// OnEnd implements [sdktrace.SpanProcessor].
func (placer) OnEnd(sdktrace.ReadOnlySpan) {}

// Shutdown implements [sdktrace.SpanProcessor].
func (placer) Shutdown(context.Context) error { return nil }

// ForceFlush implements [sdktrace.SpanProcessor].
func (placer) ForceFlush(context.Context) error { return nil }

// baselineIDs gives new traces the color baseline: a random color would name a group
// that no policy knows. The other twelve bytes are random, five more than W3C Trace
// Context level 2 asks for.
type baselineIDs struct{}

// NewIDs implements [sdktrace.IDGenerator].
func (b baselineIDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	var id trace.TraceID
	binary.BigEndian.PutUint64(id[8:], nonZero())
	binary.BigEndian.PutUint32(id[4:], rand.Uint32())
	return id, b.NewSpanID(ctx, id)
}

// NewSpanID implements [sdktrace.IDGenerator].
func (baselineIDs) NewSpanID(context.Context, trace.TraceID) trace.SpanID {
	var id trace.SpanID
	binary.BigEndian.PutUint64(id[:], nonZero())
	return id
}

func nonZero() uint64 {
	for {
		if n := rand.Uint64(); n != 0 {
			return n
		}
	}
}
