package ctl

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/observability/semconv"
)

// routes is what edges were last given.
func (a *api) routes(w http.ResponseWriter, r *http.Request) {
	b, err := a.basis()
	if err != nil {
		a.fail(w, r, err)
		return
	}
	reply(w, routesOf(b.Plan))
}

// routesOf has all rules before all routes, as edges try them.
func routesOf(p plan.Plan) []ctlapi.Route {
	rules, routes := []ctlapi.Route{}, []ctlapi.Route{}
	for _, s := range p.Services {
		for _, r := range s.Rules {
			rules = append(rules, ruleRoutes(s.Name, r)...)
		}
		for _, r := range s.Routes {
			routes = append(routes, ctlapi.Route{Service: s.Name, Name: r.Name, Path: pathOf(r.Path, r.Prefix, ""), By: ctlapi.ByGroup})
		}
	}
	return append(rules, routes...)
}

// ruleRoutes is a rule with each of its matches.
func ruleRoutes(service string, r plan.Rule) []ctlapi.Route {
	to := ctlapi.Route{Service: service, Name: r.Name, Rule: true, To: r.Service, By: ctlapi.ByGroup, Until: r.Until}
	switch {
	case r.Redirect != nil:
		to.By, to.Answer = ctlapi.ByEdge, fmt.Sprint("redirect ", r.Redirect.Status)
	case r.DirectResponse != nil:
		to.By, to.Answer = ctlapi.ByEdge, fmt.Sprint(r.DirectResponse.Status)
	case r.Pool != "":
		to.By, to.Pools = ctlapi.ByRule, []ctlapi.Weight{{Pool: r.Pool, Percent: 100}}
	case r.Canary != nil:
		to.By = ctlapi.ByUser
		rest := uint32(policy.CanaryPlaces)
		for i, share := range r.Canary.Shares() {
			to.Pools = append(to.Pools, ctlapi.Weight{Pool: r.Canary.Pools[i].Pool, Percent: percent(share)})
			rest -= share
		}
		to.Pools = append(to.Pools, ctlapi.Weight{Pool: semconv.PoolBaseline, Percent: percent(rest)})
	}
	out := make([]ctlapi.Route, len(r.Match))
	for i, m := range r.Match {
		out[i] = to
		out[i].Hosts, out[i].Methods, out[i].Path, out[i].Conditions = m.Hosts, m.Methods, pathOf(m.Path, m.Prefix, m.Regex), conditions(m)
	}
	return out
}

func percent(places uint32) float64 { return float64(places) * 100 / policy.CanaryPlaces }

// pathOf has a star behind a prefix, and a tilde before a regex.
func pathOf(path, prefix, regex string) string {
	switch {
	case path != "":
		return path
	case prefix != "":
		return strings.TrimSuffix(prefix, "/") + "/*"
	case regex != "":
		return "~" + regex
	}
	return ""
}

// conditions are what a match asks besides in words.
func conditions(m plan.Match) []string {
	var out []string
	say := func(what, name, exact, prefix string, not bool) {
		s := what + " " + name
		switch {
		case exact != "":
			s += "=" + exact
		case prefix != "":
			s += "=" + prefix + "*"
		}
		if not {
			s = "not " + s
		}
		out = append(out, s)
	}
	for _, h := range m.Headers {
		say("header", h.Name, h.Exact, h.Prefix, h.Not)
	}
	for _, c := range m.Cookies {
		say("cookie", c.Name, c.Exact, c.Prefix, c.Not)
	}
	if m.Tenant != "" {
		out = append(out, "tenant "+m.Tenant)
	}
	if m.Cohort != "" {
		out = append(out, "cohort "+m.Cohort)
	}
	for _, q := range m.Query {
		say("query", q.Name, q.Exact, q.Prefix, false)
	}
	return out
}
