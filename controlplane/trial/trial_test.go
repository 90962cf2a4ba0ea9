package trial

import (
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/observability/sli"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	e := func(id string, connected, inSync bool) Edge {
		return Edge{ID: id, Connected: connected, InSync: inSync}
	}
	for name, c := range map[string]struct {
		named []string
		edges []Edge
		want  string
	}{
		"none is there":                {nil, nil, ""},
		"none is connected":            {[]string{"a"}, []Edge{e("a", false, false)}, ""},
		"the only one":                 {nil, []Edge{e("b", true, true)}, "b"},
		"the first by id":              {nil, []Edge{e("b", true, true), e("a", true, true)}, "a"},
		"one in sync before another":   {nil, []Edge{e("a", true, false), e("b", true, true)}, "b"},
		"one that is not before none":  {nil, []Edge{e("a", false, false), e("b", true, false)}, "b"},
		"the one that is named":        {[]string{"c"}, []Edge{e("a", true, true), e("c", true, true)}, "c"},
		"named ones in their order":    {[]string{"d", "c"}, []Edge{e("c", true, true), e("d", true, false)}, "d"},
		"named and away":               {[]string{"d"}, []Edge{e("c", true, true), e("d", false, false)}, "c"},
		"named, but nobody knows them": {[]string{"x"}, []Edge{e("c", true, true)}, "c"},
	} {
		got, ok := Config{Edges: c.named}.Choose(c.edges)
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q, %t, want %q", name, got, ok, c.want)
		}
	}
}

// TestLife plays looks at an edge, each so many seconds after the policy was given.
func TestLife(t *testing.T) {
	t.Parallel()
	type look struct {
		at   int
		edge Edge
		find Finding
		want Verdict
		why  string // a part of it
	}
	var (
		cfg     = Config{Watch: 10 * time.Second, Answer: 5 * time.Second}
		behind  = Edge{Connected: true}
		well    = Edge{Connected: true, InSync: true}
		away    = Edge{}
		refuses = Edge{Connected: true, Refused: "edge a refused rds edge: no such thing"}
		bad     = Finding{Bad: true, Words: "50 errors in 100 requests"}
		quiet   = Finding{Words: "no requests"}
	)
	for name, looks := range map[string][]look{
		"passes": {
			{0, behind, Finding{}, GoesOn, ""}, {1, well, Finding{}, GoesOn, ""}, {10, well, quiet, GoesOn, ""}, {11, well, Finding{Words: "1 errors in 100 requests"}, Passed, "1 errors in 100 requests"},
		},
		"passes without a request":    {{1, well, Finding{}, GoesOn, ""}, {11, well, quiet, Passed, "no requests"}},
		"is refused":                  {{0, behind, Finding{}, GoesOn, ""}, {1, refuses, Finding{}, Failed, "no such thing"}},
		"is refused later":            {{0, well, Finding{}, GoesOn, ""}, {5, refuses, Finding{}, Failed, "no such thing"}},
		"is bad":                      {{0, well, Finding{}, GoesOn, ""}, {2, well, bad, Failed, "50 errors in 100 requests"}},
		"is bad at the last moment":   {{0, well, Finding{}, GoesOn, ""}, {10, well, bad, Failed, "50 errors"}},
		"is never acknowledged":       {{4, behind, Finding{}, GoesOn, ""}, {5, behind, Finding{}, Failed, "not acknowledged the policy within 5s"}},
		"kills its edge at once":      {{1, away, Finding{}, GoesOn, ""}, {5, away, Finding{}, Failed, "went away when it was given"}},
		"kills its edge":              {{1, well, Finding{}, GoesOn, ""}, {3, away, Finding{}, GoesOn, ""}, {11, away, Finding{}, Failed, "went away while it had"}},
		"its edge comes back":         {{1, well, Finding{}, GoesOn, ""}, {3, away, Finding{}, GoesOn, ""}, {9, well, Finding{}, GoesOn, ""}, {11, well, quiet, Passed, ""}},
		"a move is on its way":        {{1, well, Finding{}, GoesOn, ""}, {11, behind, Finding{}, GoesOn, ""}, {12, well, quiet, Passed, ""}},
		"a move is not acknowledged":  {{1, well, Finding{}, GoesOn, ""}, {11, behind, Finding{}, GoesOn, ""}, {16, behind, Finding{}, Failed, "what came while"}},
		"what was bad before is over": {{0, behind, bad, GoesOn, ""}, {1, well, Finding{}, GoesOn, ""}, {11, well, quiet, Passed, ""}},
	} {
		start := time.Unix(1000, 0)
		tr := Trial{Edge: "a", Since: start}
		for i, l := range looks {
			var got Verdict
			var why string
			now := start.Add(time.Duration(l.at) * time.Second)
			if tr, got, why = tr.Next(cfg, now, l.edge, l.find); got != l.want || !strings.Contains(why, l.why) || got == GoesOn && why != "" {
				t.Errorf("%s, look %d: verdict %d %q, want %d with %q", name, i, got, why, l.want, l.why)
			}
			if got == GoesOn && l.edge.Connected && l.edge.InSync && !tr.Due(cfg).After(now) {
				t.Errorf("%s, look %d: goes on, and the next look was due at %s", name, i, tr.Due(cfg))
			}
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	s := func(edge, route string, requests, errors uint64) sli.EdgeStats {
		return sli.EdgeStats{Edge: edge, Service: "core", Route: route, Requests: requests, Errors: errors}
	}
	for name, c := range map[string]struct {
		since, before []sli.EdgeStats
		bad           bool
		words         string
	}{
		"nothing was measured": {nil, nil, false, "no requests; the other edges had no requests"},
		"all is well":          {[]sli.EdgeStats{s("a", "x", 100, 0), s("b", "x", 100, 0)}, nil, false, "0 errors in 100 requests"},
		"the edge is broken":   {[]sli.EdgeStats{s("a", "x", 100, 40), s("b", "x", 100, 0)}, []sli.EdgeStats{s("a", "x", 100, 0)}, true, "40 errors in 100 requests; the other edges had 0 errors in 100 requests; it had 0 errors in 100 requests before"},
		"another is broken":    {[]sli.EdgeStats{s("a", "x", 100, 0), s("b", "x", 100, 100)}, nil, false, ""},
		"all are broken":       {[]sli.EdgeStats{s("a", "x", 100, 40), s("b", "x", 100, 40)}, nil, false, ""},
		"it was so before":     {[]sli.EdgeStats{s("a", "x", 100, 40), s("b", "x", 100, 0)}, []sli.EdgeStats{s("a", "x", 100, 40)}, false, ""},
		"a route is broken":    {[]sli.EdgeStats{s("a", "x", 10000, 0), s("a", "new", 20, 20), s("b", "x", 10000, 0)}, []sli.EdgeStats{s("a", "x", 10000, 0)}, true, `route "new" of core has 20 errors in 20 requests`},
		"a route of no other":  {[]sli.EdgeStats{s("a", "own", 100, 50)}, nil, true, "50 errors in 100 requests"},
		"a route was broken":   {[]sli.EdgeStats{s("a", "x", 10000, 0), s("a", "old", 20, 20)}, []sli.EdgeStats{s("a", "old", 20, 20)}, false, ""},
	} {
		f := Judge(decide.DefaultPolicy(), "a", c.since, c.before)
		if f.Bad != c.bad || !strings.Contains(f.Words, c.words) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}
