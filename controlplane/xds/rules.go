package xds

import (
	"fmt"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
)

// ruleRoutes are the routes of a rule in the virtual host of a host (or pattern of
// hosts): one for each of its matches that cover the host. Which pool serves is left
// to its service's chooser.
func ruleRoutes(s ruleSource, host string, limits []policy.Limit) ([]*routev3.Route, error) {
	filters, err := ruleFilters(*s.rule)
	if err != nil {
		return nil, fmt.Errorf("rule %q: %w", s.rule.Name, err)
	}
	b := ruleBuilder{rule: *s.rule, places: s.places, filters: filters, limits: limits}
	for _, m := range s.rule.Match {
		if covers(m, host) {
			b.match(m)
		}
	}
	return b.out, nil
}

// ruleBuilder makes the routes of one rule.
type ruleBuilder struct {
	rule    plan.Rule
	places  places // of a canary
	filters map[string]*anypb.Any
	limits  []policy.Limit
	out     []*routev3.Route
}

func (b *ruleBuilder) match(m plan.Match) {
	if b.rule.CORS != nil && (len(m.Methods)+len(m.Headers)+len(m.Cookies) > 0 || ofGroups(m)) {
		b.preflight(m)
	}
	switch {
	case b.rule.Redirect != nil:
		b.add(ruleMatch(m)).Action = &routev3.Route_Redirect{Redirect: redirect(b.rule.Redirect, m)}
	case b.rule.DirectResponse != nil:
		b.add(ruleMatch(m)).Action = &routev3.Route_DirectResponse{DirectResponse: directResponse(b.rule)}
	default:
		b.serve(m)
	}
}

// add is a route of the rule that still wants its action.
func (b *ruleBuilder) add(match *routev3.RouteMatch) *routev3.Route {
	r := &routev3.Route{
		Name: b.rule.Name, Match: match, TypedPerFilterConfig: b.filters,
		RequestHeadersToAdd: headersToAdd(b.rule.RequestHeaders), RequestHeadersToRemove: headersToRemove(b.rule.RequestHeaders),
		ResponseHeadersToAdd: headersToAdd(b.rule.ResponseHeaders), ResponseHeadersToRemove: headersToRemove(b.rule.ResponseHeaders),
	}
	b.out = append(b.out, r)
	return r
}

// preflight lets the CORS filter answer: a preflight request has another method
// than the one it asks for, and none of its headers and cookies, by
// which the edge would know tenant and cohort.
func (b *ruleBuilder) preflight(m plan.Match) {
	asked := m.Methods
	m.Methods, m.Headers, m.Cookies = []string{"OPTIONS"}, nil, nil
	m.Tenant, m.Cohort = "", ""
	match := ruleMatch(m)
	match.Headers = append(match.Headers, present("origin"))
	if len(asked) > 0 {
		match.Headers = append(match.Headers, anyOf("access-control-request-method", asked))
	} else {
		match.Headers = append(match.Headers, present("access-control-request-method"))
	}
	r := b.add(match)
	r.TypedPerFilterConfig = map[string]*anypb.Any{corsFilter: b.filters[corsFilter]}
	b.toCluster(r, m, b.chosen())
}

func (b *ruleBuilder) serve(m plan.Match) {
	add := func(to func(*routev3.RouteAction), when ...*routev3.HeaderMatcher) *routev3.Route {
		match := ruleMatch(m)
		match.Headers = append(match.Headers, when...)
		r := b.add(match)
		b.toCluster(r, m, to)
		return r
	}
	switch {
	case b.rule.Pool != "":
		add(b.cluster(b.rule.Pool))
	case b.rule.Canary != nil:
		// A cluster specifier has no weights; so whoever is not baseline's is told apart
		// here, once more, and sent where the others of his group are.
		for _, mv := range b.places.moves {
			add(b.chosen(), isGroup(mv.Group))
		}
		for _, co := range b.places.cohorts {
			add(b.chosen(), isColor(co.Color), isColored())
		}
		b.known(add)
		add(b.chosen())
	default:
		add(b.chosen())
	}
}

type adder func(to func(*routev3.RouteAction), when ...*routev3.HeaderMatcher) *routev3.Route

// known are requests of users the canary can tell apart.
func (b *ruleBuilder) known(add adder) {
	c := b.rule.Canary
	var when []*routev3.HeaderMatcher
	if c.Header != "" {
		when = append(when, present(c.Header))
	}
	r := add(b.split, when...)
	if c.Cookie != "" {
		r.Match.Cookies = append(r.Match.Cookies, &routev3.CookieMatcher{Name: c.Cookie, StringMatch: regex(".+")})
	}
}

// split sends users to pools by a hash of what they are known by. Envoy takes the
// hash modulo the sum of all weights and goes through the clusters in their order;
// so the sum never changes, the first pool stands before baseline and the second
// behind it: a weight that grows moves one border, into baseline.
func (b *ruleBuilder) split(a *routev3.RouteAction) {
	c := b.rule.Canary
	a.HashPolicy = []*routev3.RouteAction_HashPolicy{{PolicySpecifier: &routev3.RouteAction_HashPolicy_Header_{
		Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: c.Header},
	}}}
	if c.Cookie != "" {
		a.HashPolicy[0].PolicySpecifier = &routev3.RouteAction_HashPolicy_Cookie_{
			Cookie: &routev3.RouteAction_HashPolicy_Cookie{Name: c.Cookie},
		}
	}
	rest := uint32(policy.CanaryPlaces)
	var weights []*routev3.WeightedCluster_ClusterWeight
	for i, share := range c.Shares() {
		rest -= share
		weights = append(weights, b.weight(c.Pools[i].Pool, share))
	}
	weights = slices.Insert(weights, 1, b.weight(baseline, rest))
	a.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: &routev3.WeightedCluster{
		Clusters:             weights,
		RandomValueSpecifier: &routev3.WeightedCluster_UseHashPolicy{UseHashPolicy: wrapperspb.Bool(true)},
	}}
}

func (b *ruleBuilder) weight(pool string, share uint32) *routev3.WeightedCluster_ClusterWeight {
	return &routev3.WeightedCluster_ClusterWeight{Name: plan.ClusterName(b.rule.Service, pool), Weight: wrapperspb.UInt32(share)}
}

func (b *ruleBuilder) cluster(pool string) func(*routev3.RouteAction) {
	return func(a *routev3.RouteAction) {
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: plan.ClusterName(b.rule.Service, pool)}
	}
}

func (b *ruleBuilder) chosen() func(*routev3.RouteAction) {
	return func(a *routev3.RouteAction) {
		a.ClusterSpecifier = chosenBy(b.rule.Service)
	}
}

// toCluster gives the route what the rule says about serving.
func (b *ruleBuilder) toCluster(route *routev3.Route, m plan.Match, to func(*routev3.RouteAction)) {
	r := b.rule
	a := &routev3.RouteAction{Timeout: durationpb.New(r.Timeout), RateLimits: routeLimits(r.Limits, b.limits)}
	to(a)
	if r.WebSocket {
		// A WebSocket has no timeout: Envoy's begins when a request has ended.
		a.UpgradeConfigs = websocket().UpgradeConfigs
		a.IdleTimeout = websocket().IdleTimeout
	}
	if r.GRPC {
		streamed(a)
	}
	if r.IdleTimeout > 0 {
		a.IdleTimeout = durationpb.New(r.IdleTimeout)
	}
	if r.Retries != nil {
		a.RetryPolicy = ruleRetries(r.Retries)
		route.RequestHeadersToRemove = append(slices.Clone(route.RequestHeadersToRemove), retryOnHeader)
	}
	if r.Mirror != nil {
		a.RequestMirrorPolicies = []*routev3.RouteAction_RequestMirrorPolicy{{
			Cluster:         mirrorName(plan.ClusterName(r.Service, r.Mirror.Pool)),
			RuntimeFraction: &corev3.RuntimeFractionalPercent{DefaultValue: fraction(r.Mirror.Percent)},
			TraceSampled:    wrapperspb.Bool(false),
		}}
	}
	if w := r.Rewrite; w != nil {
		if w.Host != "" {
			a.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: w.Host}
		}
		if w.Path != "" {
			a.PrefixRewrite, a.RegexRewrite = replace(m, w.Path)
		}
	}
	route.Action = &routev3.Route_Route{Route: a}
}

// ruleRetries keeps back-off and choice of host of [retryPolicy].
func ruleRetries(r *plan.Retries) *routev3.RetryPolicy {
	out := retryPolicy(strings.Join(r.On, ","))
	out.NumRetries = wrapperspb.UInt32(r.Attempts)
	out.RetriableStatusCodes = r.StatusCodes
	if r.PerTryTimeout > 0 {
		out.PerTryTimeout = durationpb.New(r.PerTryTimeout)
	}
	return out
}
