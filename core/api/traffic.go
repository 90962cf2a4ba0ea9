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
// baggage. What the edge has not seen is baseline by now, see server.baseline.
func (s *server) traffic(r *http.Request) group.Group {
	id := trace.SpanContextFromContext(r.Context()).TraceID().String()
	color, _ := group.OfTrace(id) // baseline where it is none
	bag := baggage.FromContext(r.Context())
	return group.Group{
		Color:  color,
		Env:    or(bag.Member(semconv.Env).Value(), s.cfg.Env),
		Tenant: or(bag.Member(semconv.Tenant).Value(), s.cfg.Tenant),
	}
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
