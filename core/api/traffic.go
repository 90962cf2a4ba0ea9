package api

import (
	"context"

	"go.opentelemetry.io/otel/baggage"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// traffic is the group of a request: the color of its trace, env and tenant of its
// baggage. What the edge has not seen is baseline by now, see server.baseline; so is, as
// for telemetry, a trace whose baggage names neither env nor tenant.
func (s *server) traffic(ctx context.Context) group.Group {
	bag := baggage.FromContext(ctx)
	env, tenant := bag.Member(semconv.Env).Value(), bag.Member(semconv.Tenant).Value()
	color := group.Baseline
	if env != "" || tenant != "" {
		color, _ = group.OfTrace(traceID(ctx)) // baseline where it is none
	}
	return group.Group{Color: color, Env: or(env, s.cfg.Env), Tenant: or(tenant, s.cfg.Tenant)}
}

func or(value, fallback string) string {
	if value == "" || len(value) > chat.MaxTenant {
		return fallback
	}
	return value
}
