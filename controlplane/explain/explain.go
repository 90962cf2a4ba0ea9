// Package explain says what an edge does with one request, and why: which group it
// gets, which rule or route takes it, which pool serves it. An operator asks it through
// "tracegate ctl explain".
//
// Color and group come from wasm/color, the code that the filter itself runs. Rules and
// routes are matched as controlplane/xds has Envoy match them; edge/e2e holds the two
// together with random rules and requests through a real Envoy. The alternative, asking
// Envoy's own router check tool, lost: it is no part of Envoy's release, and knows
// neither the filter nor why.
//
// It is pure. It knows which pools have instances, not which of them are healthy.
package explain

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/wasm/color"
	"github.com/tracegate/tracegate/wasm/route"
)

// Outcomes of a request.
const (
	Serve    = "serve"    // a pool answers
	Redirect = "redirect" // a rule answers with another place
	Respond  = "respond"  // a rule answers by itself
	Refuse   = "refuse"   // the edge answers with an error
)

// Outcome is what the edge does.
type Outcome struct {
	Group  group.ID    `json:"group,omitempty"` // empty: the edge runs without a filter
	Color  group.Color `json:"color"`
	Cohort string      `json:"cohort,omitempty"` // empty: none matched
	Env    string      `json:"env,omitempty"`
	Tenant string      `json:"tenant,omitempty"`

	Action  string `json:"action"`          // one of the outcomes above
	Status  int    `json:"status,omitzero"` // of the edge's own answer
	Service string `json:"service,omitempty"`
	Rule    string `json:"rule,omitempty"`  // that took the request; empty: a route did
	Route   string `json:"route,omitempty"` // http.route in telemetry
	Pool    string `json:"pool,omitempty"`
	// Why are the steps that led there, in words, in their order.
	Why []string `json:"why"`
}

// explanation is an outcome on its way.
type explanation struct {
	Outcome
	plan plan.Plan
	req  request
}

// Explain follows a request through the edge that has p. Its error is a
// [*protocol.Error].
func Explain(p plan.Plan, r Request) (Outcome, error) {
	req, err := r.read()
	if err != nil {
		return Outcome{}, err
	}
	e := explanation{plan: p, req: req}
	if req.path != r.Path {
		e.why("the edge reads the path as %s", req.path)
	}
	e.strip()
	early, _ := e.find()
	if err := e.color(); err != nil {
		return Outcome{}, err
	}
	found, ok := e.find()
	switch {
	case e.req.upgrade && !early.webSocket():
		// Envoy decides on upgrades before its filters run.
		e.refuse(http.StatusForbidden, "a WebSocket is not allowed by what takes the request while it has no group: "+early.String())
	case e.Group == "" && e.plan.FailClosed:
		e.refuse(http.StatusServiceUnavailable, "it has no group, and the policy's failure is closed")
	case !ok:
		e.refuse(http.StatusNotFound, "no rule and no route matches")
	case found.rule != nil:
		e.why("%s is the first that matches", found)
		e.rule(found)
	default:
		e.why("no rule matches; %s is the first that does", found)
		e.Route = found.route.Name
		pool, why := e.choose(found.service)
		e.serve(found.service, pool, why)
	}
	return e.Outcome, nil
}

// taker is the rule or the route that takes a request.
type taker struct {
	service plan.Service // under which it stands
	rule    *plan.Rule
	route   *plan.Route
}

func (t taker) webSocket() bool {
	return t.rule != nil && t.rule.WebSocket || t.route != nil && t.route.WebSocket
}

func (t taker) String() string {
	switch {
	case t.rule != nil:
		return "rule " + t.rule.Name + " of " + t.service.Name
	case t.route != nil:
		return "route " + t.route.Name + " of " + t.service.Name
	default:
		return "nothing"
	}
}

// find tries all rules, then all routes.
func (e *explanation) find() (_ taker, ok bool) {
	for _, s := range e.plan.Services {
		for i, r := range s.Rules {
			if slices.ContainsFunc(r.Match, func(m plan.Match) bool { return e.req.matches(m) || r.CORS != nil && e.req.preflightOf(m) }) {
				return taker{service: s, rule: &s.Rules[i]}, true
			}
		}
	}
	for _, s := range e.plan.Services {
		if i := slices.IndexFunc(s.Routes, e.req.matchesRoute); i >= 0 {
			return taker{service: s, route: &s.Routes[i]}, true
		}
	}
	return taker{}, false
}

func (e *explanation) why(format string, args ...any) {
	e.Why = append(e.Why, fmt.Sprintf(format, args...))
}

func (e *explanation) refuse(status int, why string) {
	e.Action, e.Status = Refuse, status
	e.why("the edge answers %d: %s", status, why)
}

// strip removes what the edge does before its filters run.
func (e *explanation) strip() {
	for _, name := range slices.Sorted(maps.Keys(e.req.header)) {
		if strings.HasPrefix(name, semconv.HeaderPrefix) {
			e.why("header %s is the edge's own and removed", name)
			delete(e.req.header, name)
		}
	}
}

// color does what the filter does.
func (e *explanation) color() error {
	if e.plan.Edge.Wasm.Path == "" {
		e.why("the edge runs without a filter, so there is no group")
		return nil
	}
	var p color.Policy
	if err := json.Unmarshal([]byte(e.plan.Filter), &p); err != nil {
		return fmt.Errorf("read filter configuration: %w", err)
	}
	a, err := color.Compile(p)
	if err != nil {
		return fmt.Errorf("compile filter configuration: %w", err)
	}
	r := a.NewRequest()
	r.Peer = e.req.peer
	for name, values := range e.req.header {
		for _, v := range values {
			r.Add(name, v)
		}
	}
	if e.req.claims != "" {
		r.Add(semconv.HeaderClaims, e.req.claims)
	}
	as := a.Assign(r, new(color.Random))
	e.Group, e.Color, e.Cohort, e.Env, e.Tenant = as.ID, as.Color, as.Cohort, as.Env, as.Tenant
	e.req.tenant, e.req.cohort = as.Tenant, as.Cohort
	e.whyGroup(as)
	route.Apply(e.req.header, as)
	return nil
}

func (e *explanation) whyGroup(as *color.Assignment) {
	switch {
	case as.Events&color.Trusted != 0 && as.Kept&color.KeptTraceparent != 0:
		e.why("the peer is trusted, so the color %s of its trace is kept", as.Color)
	case as.Cohort != "":
		e.why("cohort %s is the first that matches, its color is %s", as.Cohort, as.Color)
	default:
		e.why("no cohort matches, so the color is baseline's, %s", as.Color)
	}
	if as.Events&(color.ValueRejected|color.ClaimsRejected) != 0 {
		e.why("a value that names env or tenant cannot be used, the default was taken")
	}
	e.why("env %s and tenant %s with that color are group %s", as.Env, as.Tenant, as.ID)
}

func (e *explanation) rule(by taker) {
	r := *by.rule
	e.Service, e.Rule, e.Route = by.service.Name, r.Name, r.Name
	switch {
	case r.CORS != nil && e.req.isPreflight():
		e.Action, e.Status = Respond, http.StatusOK
		e.why("the edge answers preflight requests of the rule")
		return
	case r.JWT != nil && !e.verified(r.JWT):
		return
	case r.Redirect != nil:
		e.Action, e.Status = Redirect, int(r.Redirect.Status)
		e.why("it redirects")
		return
	case r.DirectResponse != nil:
		e.Action, e.Status = Respond, int(r.DirectResponse.Status)
		e.why("it answers %d by itself", r.DirectResponse.Status)
		return
	}
	s := e.service(r.Service)
	switch {
	case r.Pool != "":
		e.serve(s, r.Pool, "the rule names it, group and cohort do not count")
		if !r.Until.IsZero() {
			e.why("it does so until %s", r.Until.UTC().Format("2006-01-02 15:04:05 MST"))
		}
	case r.Canary != nil:
		e.canary(s, r.Canary)
	default:
		pool, why := e.choose(s)
		e.serve(s, pool, why)
	}
	e.besides(r)
}

// besides names what else the rule may do to a request.
func (e *explanation) besides(r plan.Rule) {
	if m := r.Mirror; m != nil {
		e.why("%v%% of such requests are copied to pool %s", m.Percent, m.Pool)
	}
	if l := r.RateLimit; l != nil {
		e.why("above %d requests a second of this rule the edge answers 429", l.RequestsPerSecond)
	}
	if f := r.Fault; f != nil && f.Delay != nil {
		e.why("%v%% of such requests are held back for %v on purpose", f.Delay.Percent, f.Delay.Duration)
	}
	if f := r.Fault; f != nil && f.Abort != nil {
		e.why("%v%% of such requests are answered %d on purpose", f.Abort.Percent, f.Abort.Status)
	}
	if r.MaxRequestBytes > 0 {
		e.why("a body above %d bytes gets 413", r.MaxRequestBytes)
	}
}

// canary picks a pool as a weighted cluster of Envoy's does by a hash, see
// [policy.Canary].
func (e *explanation) canary(s plan.Service, c *policy.Canary) {
	if pool, why := e.choose(s); why != atHome {
		e.serve(s, pool, why)
		return
	}
	user, known := e.req.get(c.Header), c.Header != "" && e.req.has(c.Header)
	what := "header " + c.Header
	if c.Cookie != "" {
		user, _ = e.req.cookie(c.Cookie)
		what, known = "cookie "+c.Cookie, user != ""
	}
	if !known {
		e.serve(s, semconv.PoolBaseline, "there is no "+what+" to know the user by")
		return
	}
	place := uint32(xxhash.Sum64String(user) % policy.CanaryPlaces)
	pool, shares := semconv.PoolBaseline, c.Shares()
	switch {
	case place < shares[0]:
		pool = c.Pools[0].Pool
	case len(shares) > 1 && place >= policy.CanaryPlaces-shares[1]:
		pool = c.Pools[1].Pool
	}
	e.serve(s, pool, fmt.Sprintf("the user's place by %s is %.2f%%", what, 100*float64(place)/policy.CanaryPlaces))
}

const atHome = "neither the group nor its cohort has another"

// choose is the pool of the request's group.
func (e *explanation) choose(s plan.Service) (pool, why string) {
	if e.Group == "" {
		return semconv.PoolBaseline, "there is no group"
	}
	for _, m := range e.plan.Moves {
		if m.Group == e.Group && s.Has(m.Pool) {
			if m.Home > 0 {
				place := e.req.get(semconv.HeaderPlace)
				if place != "" && place < group.PlaceText(m.Home) {
					return e.home(s, fmt.Sprintf("the group was moved to %s and is released step by step, and the user's place %s is below %d; ", m.Pool, place, m.Home))
				}
				return m.Pool, fmt.Sprintf("the group was moved there; %d%% of its users are back already, and this is none of them", m.Home)
			}
			return m.Pool, "the group was moved there"
		}
	}
	return e.home(s, "")
}

// home is the pool of a group that is not moved.
func (e *explanation) home(s plan.Service, because string) (pool, why string) {
	for _, c := range e.plan.Cohorts {
		if c.Color == e.Color && s.Has(c.Pool) {
			return c.Pool, because + "cohort " + c.Name + " has it"
		}
	}
	return semconv.PoolBaseline, because + atHome
}

func (e *explanation) serve(s plan.Service, pool, why string) {
	e.Action, e.Service, e.Pool = Serve, s.Name, pool
	e.why("pool %s of %s serves: %s", pool, s.Name, why)
	for _, p := range s.Pools {
		if p.Name == pool && len(p.Endpoints)+len(p.Backup) == 0 && pool != semconv.PoolBaseline {
			e.Pool = semconv.PoolBaseline
			e.why("pool %s has no instance, so baseline serves", pool)
		}
	}
}

func (e *explanation) service(name string) plan.Service {
	i := slices.IndexFunc(e.plan.Services, func(s plan.Service) bool { return s.Name == name })
	return e.plan.Services[i] // a policy with another name is refused
}
