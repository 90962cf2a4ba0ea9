package trial

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/observability/sli"
)

// Finding is what was measured at the edge of a trial.
type Finding struct {
	Bad   bool
	Words string
}

// Judge compares what came in at an edge since it has a policy with what came in at the
// others in the same seconds, and at itself before: all of it together, then each route,
// since a rule that is broken may have few of the requests. It is bad where one of them is
// (decide.Policy.MoreErrors). What a route is new to it is compared with nothing.
func Judge(p decide.Policy, edge string, since, before []sli.EdgeStats) Finding {
	all := func(sli.EdgeStats) bool { return true }
	sums := func(of func(sli.EdgeStats) bool) (own, others, was sli.Stats) {
		at := func(s sli.EdgeStats) bool { return s.Edge == edge && of(s) }
		return sum(since, at), sum(since, func(s sli.EdgeStats) bool { return s.Edge != edge && of(s) }), sum(before, at)
	}
	own, others, was := sums(all)
	f := Finding{Words: fmt.Sprintf("%s; the other edges had %s", figures(own), figures(others))}
	if _, f.Bad = p.MoreErrors(own, others, was); f.Bad {
		f.Words += "; it had " + figures(was) + " before"
		return f
	}
	type route struct{ service, name string }
	routes := map[route]bool{}
	for _, s := range since {
		if s.Edge == edge && s.Errors > 0 {
			routes[route{s.Service, s.Route}] = true
		}
	}
	for _, r := range slices.SortedFunc(maps.Keys(routes), func(a, b route) int {
		return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.name, b.name))
	}) {
		own, others, was := sums(func(s sli.EdgeStats) bool { return s.Service == r.service && s.Route == r.name })
		if _, bad := p.MoreErrors(own, others, was); bad {
			return Finding{Bad: true, Words: fmt.Sprintf("route %q of %s has %s; at the other edges it had %s, and here %s before",
				r.name, r.service, figures(own), figures(others), figures(was))}
		}
	}
	return f
}

func sum(in []sli.EdgeStats, takes func(sli.EdgeStats) bool) (out sli.Stats) {
	for _, s := range in {
		if takes(s) {
			out.Requests, out.Errors = out.Requests+s.Requests, out.Errors+s.Errors
		}
	}
	return out
}

func figures(s sli.Stats) string {
	if s.Requests == 0 {
		return "no requests"
	}
	return fmt.Sprintf("%d errors in %d requests", s.Errors, s.Requests)
}
