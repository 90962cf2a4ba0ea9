package xds

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/observability/semconv"
)

// ruleMatch says nothing of hosts: its virtual host does.
func ruleMatch(m plan.Match) *routev3.RouteMatch {
	out := match(plan.Route{Path: m.Path, Prefix: m.Prefix}, nil)
	switch {
	case m.Regex != "":
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: m.Regex}}
	case m.Path == "" && m.Prefix == "":
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/"}
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
	if m.Tenant != "" {
		out.Headers = append(out.Headers, isTenant(m.Tenant))
	}
	if m.Cohort != "" {
		out.Headers = append(out.Headers, isColor(m.Color))
	}
	if ofGroups(m) { // else the trace headers are the client's own
		out.Headers = append(out.Headers, isColored())
	}
	for _, k := range m.Cookies {
		c := &routev3.CookieMatcher{Name: k.Name, StringMatch: condition(k.Exact, k.Prefix), InvertMatch: k.Not}
		if k.Present {
			c.StringMatch = regex(`\C*`) // whatever it is, and be it nothing
		}
		out.Cookies = append(out.Cookies, c)
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

// ofGroups says whether m holds for some groups only.
func ofGroups(m plan.Match) bool { return m.Tenant != "" || m.Cohort != "" }

// isTenant finds the member that the filter writes, or has left where a trusted peer put it.
func isTenant(tenant string) *routev3.HeaderMatcher {
	return header(semconv.HeaderBaggage, regex(`(.*,)?[ \t]*`+regexp.QuoteMeta(semconv.Tenant)+`[ \t]*=[ \t]*`+regexp.QuoteMeta(tenant)+`[ \t]*([,;].*)?`))
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
