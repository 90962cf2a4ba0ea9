package xds

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tracegate/tracegate/controlplane/plan"
)

// ruleRoutes are the routes of all rules, in order. A rule is a route for each of
// its matches and hosts; which pool serves is left to its service's [chooser], so
// that their number does not grow with the groups that are moved.
func ruleRoutes(p plan.Plan) ([]*routev3.Route, error) {
	var out []*routev3.Route
	for _, s := range p.Services {
		for _, r := range s.Rules {
			i := slices.IndexFunc(p.Services, func(s plan.Service) bool { return s.Name == r.Service })
			if i < 0 {
				return nil, fmt.Errorf("rule %q of %s: no service %q", r.Name, s.Name, r.Service)
			}
			filters, err := ruleFilters(r)
			if err != nil {
				return nil, fmt.Errorf("rule %q of %s: %w", r.Name, s.Name, err)
			}
			b := ruleBuilder{rule: r, service: p.Services[i], plan: p, filters: filters}
			for _, m := range r.Match {
				b.match(m)
			}
			out = append(out, b.out...)
		}
	}
	return out, nil
}

// ruleBuilder makes the routes of one rule.
type ruleBuilder struct {
	rule    plan.Rule
	service plan.Service // that serves
	plan    plan.Plan
	filters map[string]*anypb.Any
	out     []*routev3.Route
}

func (b *ruleBuilder) match(m plan.Match) {
	hosts := m.Hosts
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	for _, host := range hosts {
		if b.rule.CORS != nil && (len(m.Methods) > 0 || len(m.Headers) > 0) {
			b.preflight(m, host)
		}
		switch {
		case b.rule.Redirect != nil:
			b.add(ruleMatch(m, host)).Action = &routev3.Route_Redirect{Redirect: redirect(b.rule.Redirect, m)}
		case b.rule.DirectResponse != nil:
			b.add(ruleMatch(m, host)).Action = &routev3.Route_DirectResponse{DirectResponse: directResponse(b.rule)}
		default:
			b.serve(m, host)
		}
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
// than the one it asks for, and none of its headers.
func (b *ruleBuilder) preflight(m plan.Match, host string) {
	asked := m.Methods
	m.Methods, m.Headers = []string{"OPTIONS"}, nil
	match := ruleMatch(m, host)
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

func (b *ruleBuilder) serve(m plan.Match, host string) {
	add := func(to func(*routev3.RouteAction), when ...*routev3.HeaderMatcher) *routev3.Route {
		match := ruleMatch(m, host)
		match.Headers = append(match.Headers, when...)
		r := b.add(match)
		b.toCluster(r, m, to)
		return r
	}
	switch c := b.rule.Canary; {
	case b.rule.Pool != "":
		b.both(add, b.cluster(b.rule.Pool))
	case c != nil:
		for _, mv := range b.plan.Moves {
			if b.service.Has(mv.Pool) {
				b.both(add, b.cluster(mv.Pool), isGroup(mv.Group))
			}
		}
		for _, co := range b.plan.Cohorts {
			if b.service.Has(co.Pool) {
				b.both(add, b.cluster(co.Pool), isColor(co.Color), isColored())
			}
		}
		b.known(add)
		b.both(add, b.cluster(baseline))
	default:
		b.both(add, b.chosen())
	}
}

type adder func(to func(*routev3.RouteAction), when ...*routev3.HeaderMatcher) *routev3.Route

// both are two routes where safe methods may be repeated more often: not where the
// rule has retries of its own, nor a bucket, which would be two.
func (b *ruleBuilder) both(add adder, to func(*routev3.RouteAction), when ...*routev3.HeaderMatcher) {
	if b.rule.Retries == nil && b.rule.RateLimit == nil {
		safe := add(to, append(slices.Clone(when), isSafe())...)
		safe.GetRoute().RetryPolicy = retryPolicy(retryOnSafe)
	}
	add(to, when...)
}

// known are requests of users the canary can tell apart.
func (b *ruleBuilder) known(add adder) {
	c := b.rule.Canary
	var when []*routev3.HeaderMatcher
	if c.Header != "" {
		when = append(when, present(c.Header))
	}
	first := len(b.out)
	b.both(add, func(a *routev3.RouteAction) { b.split(a) }, when...)
	if c.Cookie != "" {
		for _, r := range b.out[first:] {
			r.Match.Cookies = []*routev3.CookieMatcher{{Name: c.Cookie, StringMatch: regex(".+")}}
		}
	}
}

// canaryWeight is all users, in steps of 0.01 percent.
const canaryWeight = 10_000

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
	rest := uint32(canaryWeight)
	var weights []*routev3.WeightedCluster_ClusterWeight
	for _, p := range c.Pools {
		share := min(rest, uint32(p.Percent*100+0.5))
		rest -= share
		weights = append(weights, b.weight(p.Pool, share))
	}
	weights = slices.Insert(weights, 1, b.weight(baseline, rest))
	a.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: &routev3.WeightedCluster{
		Clusters:             weights,
		RandomValueSpecifier: &routev3.WeightedCluster_UseHashPolicy{UseHashPolicy: wrapperspb.Bool(true)},
	}}
}

func (b *ruleBuilder) weight(pool string, share uint32) *routev3.WeightedCluster_ClusterWeight {
	return &routev3.WeightedCluster_ClusterWeight{Name: plan.ClusterName(b.service.Name, pool), Weight: wrapperspb.UInt32(share)}
}

func (b *ruleBuilder) cluster(pool string) func(*routev3.RouteAction) {
	return func(a *routev3.RouteAction) {
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: plan.ClusterName(b.service.Name, pool)}
	}
}

func (b *ruleBuilder) chosen() func(*routev3.RouteAction) {
	return func(a *routev3.RouteAction) {
		a.ClusterSpecifier = &routev3.RouteAction_ClusterSpecifierPlugin{ClusterSpecifierPlugin: b.service.Name}
	}
}

// toCluster gives the route what the rule says about serving.
func (b *ruleBuilder) toCluster(route *routev3.Route, m plan.Match, to func(*routev3.RouteAction)) {
	r := b.rule
	a := &routev3.RouteAction{Timeout: durationpb.New(r.Timeout)}
	to(a)
	if r.WebSocket {
		// A WebSocket has no timeout: Envoy's begins when a request has ended.
		a.UpgradeConfigs = websocket().UpgradeConfigs
		a.IdleTimeout = websocket().IdleTimeout
	}
	if r.IdleTimeout > 0 {
		a.IdleTimeout = durationpb.New(r.IdleTimeout)
	}
	if r.Retries != nil {
		a.RetryPolicy = ruleRetries(r.Retries)
	}
	if r.Mirror != nil {
		a.RequestMirrorPolicies = []*routev3.RouteAction_RequestMirrorPolicy{{
			Cluster:         mirrorName(b.service.Name, r.Mirror.Pool),
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

func ruleMatch(m plan.Match, host string) *routev3.RouteMatch {
	out := match(plan.Route{Path: m.Path, Prefix: m.Prefix}, nil)
	switch {
	case m.Regex != "":
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: m.Regex}}
	case m.Path == "" && m.Prefix == "":
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/"}
	}
	if host != "" {
		out.Headers = append(out.Headers, header(":authority", regex(hostRegex(host))))
	}
	if len(m.Methods) > 0 {
		out.Headers = append(out.Headers, anyOf(":method", m.Methods))
	}
	for _, h := range m.Headers {
		c := present(h.Name)
		if !h.Present {
			c = header(strings.ToLower(h.Name), condition(h.Exact, h.Prefix))
		}
		c.InvertMatch = h.Not
		c.TreatMissingHeaderAsEmpty = h.Not && !h.Present
		out.Headers = append(out.Headers, c)
	}
	for _, q := range m.Query {
		c := &routev3.QueryParameterMatcher{Name: q.Name}
		if q.Present {
			c.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: true}
		} else {
			c.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_StringMatch{StringMatch: condition(q.Exact, q.Prefix)}
		}
		out.QueryParameters = append(out.QueryParameters, c)
	}
	return out
}

// hostRegex takes a host with and without port. It is no domain of a virtual host
// of its own, because each of those would need all routes.
func hostRegex(host string) string {
	suffix, wild := strings.CutPrefix(host, "*.")
	expr := regexp.QuoteMeta(suffix) + "(:[0-9]+)?"
	if wild {
		expr = `[a-z0-9_.-]+\.` + expr
	}
	return "(?i)" + expr
}

func condition(exactly, prefix string) *matcherv3.StringMatcher {
	if prefix != "" {
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}}
	}
	return exact(exactly)
}

func anyOf(name string, words []string) *routev3.HeaderMatcher {
	if len(words) == 1 {
		return header(name, exact(words[0]))
	}
	return header(name, regex(strings.Join(words, "|")))
}

func regex(expr string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: expr}}}
}

func present(name string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: strings.ToLower(name), HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
}

// replace is what makes to of the part of a path that m names: a prefix (or a
// whole path) by Envoy's prefix rewrite, what a regex matched by substitution.
func replace(m plan.Match, to string) (prefix string, substitution *matcherv3.RegexMatchAndSubstitute) {
	substitute := func(expr, to string) *matcherv3.RegexMatchAndSubstitute {
		return &matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: expr}, Substitution: to}
	}
	switch {
	case m.Regex != "":
		return "", substitute("^(?:"+m.Regex+")$", to)
	case m.Path != "":
		return to, nil
	case m.Prefix == "/":
		return strings.TrimSuffix(to, "/") + "/", nil
	case strings.Trim(to, "/") == "": // the prefix goes: "/" + "/rest" would have one too many
		return "", substitute("^"+regexp.QuoteMeta(trimSlash(m.Prefix))+"/?", "/")
	default:
		return trimSlash(to), nil
	}
}

func redirect(r *plan.Redirect, m plan.Match) *routev3.RedirectAction {
	out := &routev3.RedirectAction{ResponseCode: redirectCodes[r.Status], StripQuery: r.StripQuery}
	if r.HTTPS {
		out.SchemeRewriteSpecifier = &routev3.RedirectAction_HttpsRedirect{HttpsRedirect: true}
	}
	if r.Host != "" {
		host, port, _ := strings.Cut(r.Host, ":")
		out.HostRedirect = host
		if n, err := strconv.ParseUint(port, 10, 16); err == nil {
			out.PortRedirect = uint32(n)
		}
	}
	if r.Path != "" {
		prefix, substitution := replace(m, r.Path)
		if substitution != nil {
			out.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: substitution}
		} else {
			out.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: prefix}
		}
	}
	return out
}

var redirectCodes = map[uint32]routev3.RedirectAction_RedirectResponseCode{
	301: routev3.RedirectAction_MOVED_PERMANENTLY,
	302: routev3.RedirectAction_FOUND,
	303: routev3.RedirectAction_SEE_OTHER,
	307: routev3.RedirectAction_TEMPORARY_REDIRECT,
	308: routev3.RedirectAction_PERMANENT_REDIRECT,
}

func directResponse(r plan.Rule) *routev3.DirectResponseAction {
	out := &routev3.DirectResponseAction{Status: r.DirectResponse.Status}
	if b := r.DirectResponse.Body; b != "" {
		out.Body = &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: b}}
	}
	return out
}

// headersToAdd are literal: a percent sign is no command of Envoy's.
func headersToAdd(c *plan.HeaderChanges) []*corev3.HeaderValueOption {
	if c == nil {
		return nil
	}
	var out []*corev3.HeaderValueOption
	add := func(values map[string]string, action corev3.HeaderValueOption_HeaderAppendAction) {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			h := setHeader(name, strings.ReplaceAll(values[name], "%", "%%"))
			h.AppendAction = action
			h.KeepEmptyValue = true
			out = append(out, h)
		}
	}
	add(c.Set, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
	add(c.Add, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD)
	return out
}

func headersToRemove(c *plan.HeaderChanges) []string {
	if c == nil {
		return nil
	}
	return c.Remove
}
