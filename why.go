package main

import (
	"context"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

// traceWhy explains isolations to the control plane by the group's traces.
type traceWhy struct{ traces *store.Store }

const (
	// whyBack is how long before the first bad window good requests are looked for.
	whyBack   = time.Minute
	whySample = 200 // traces of either side
	whyLeast  = 5   // bad ones, to say anything
	whyCauses = 3
	whyLeastV = 0.3 // of Cramér's V: what separates less is no explanation
)

// Why implements controlplane.WhySource: what separates the bad requests of the group from
// its good ones, since a minute before the fault.
func (w traceWhy) Why(ctx context.Context, d decide.Decision, p decide.Policy) ([]string, error) {
	from := d.FirstBad
	if from.IsZero() {
		from = d.Time
	}
	bad := store.TraceQuery{
		Group: d.Group, Window: sli.Window{From: from.Add(-whyBack), To: d.Time}, NotRoutes: p.IgnoreRoutes,
		Quality: store.Bad, Slow: p.For(d.Group).MaxP95, Limit: whySample,
	}
	good := bad
	good.Quality = store.Good
	c, err := w.traces.Compare(ctx, bad, good, whyCauses)
	if err != nil || c.First < whyLeast {
		return nil, err
	}
	var out []string
	for _, s := range c.Causes {
		if s.V >= whyLeastV {
			out = append(out, s.String())
		}
	}
	return out, nil
}
