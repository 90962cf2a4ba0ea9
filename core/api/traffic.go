package api

import (
	"net/http"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// traffic is the group of a request: the color of its trace, env and tenant of its
// baggage. What the edge has not seen is baseline by now, see server.baseline; so is, as
// for telemetry, a trace whose baggage names neither env nor tenant.
func (s *server) traffic(r *http.Request) group.Group {
	bag := baggage.FromContext(r.Context())
	env, tenant := bag.Member(semconv.Env).Value(), bag.Member(semconv.Tenant).Value()
	color := group.Baseline
	if env != "" || tenant != "" {
		color, _ = group.OfTrace(traceID(r)) // baseline where it is none
	}
	return group.Group{Color: color, Env: or(env, s.cfg.Env), Tenant: or(tenant, s.cfg.Tenant)}
}

func or(value, fallback string) string {
	if value == "" || len(value) > chat.MaxTenant {
		return fallback
	}
	return value
}

func traceID(r *http.Request) string {
	return trace.SpanContextFromContext(r.Context()).TraceID().String()
}
