package controlplane

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/tracegate/tracegate/controlplane/decide"
)

// traceProgrammed records what a plan took from its rendering until every edge had it,
// and what each decision took that it carries. The group is an attribute and not the
// trace's own: it is what was decided about, not who asked.
func traceProgrammed(tracer trace.Tracer, p *programming, now time.Time) {
	ctx, span := tracer.Start(context.Background(), "program edges", trace.WithTimestamp(p.since),
		trace.WithAttributes(attribute.String("tracegate.plan.version", p.snapshot.Version)))
	for _, d := range p.decisions {
		traceDecision(ctx, tracer, d, now)
	}
	span.End(trace.WithTimestamp(now))
}

func traceDecision(ctx context.Context, tracer trace.Tracer, d decide.Decision, now time.Time) {
	_, span := tracer.Start(ctx, "carry out "+string(d.Action), trace.WithTimestamp(d.Time), trace.WithAttributes(
		attribute.String("tracegate.decision.id", d.ID),
		attribute.String("tracegate.decision.group", string(d.Group)),
		attribute.String("tracegate.decision.by", d.By),
		attribute.String("tracegate.decision.reason", d.Reason),
		attribute.String("tracegate.decision.to_pool", d.ToPool),
	))
	span.End(trace.WithTimestamp(now))
}
