package color

import (
	"fmt"
	"math"
	"strings"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// rule is one checked condition, on its way into a [program].
type rule struct {
	op   op
	arg  string // what a value is compared with
	from source // where the value is taken from
	kids []rule // of opAny, opAll, opNot
	of   uint32 // opPercent: buckets out of group.Buckets
}

type op uint8

const (
	opNever op = iota
	opAny
	opAll
	opNot
	opExact
	opPrefix // of any value where arg is empty
	opSuffix
	opPercent
)

// match compiles one condition. salt is what a percentage uses where it names none.
func (c *compiler) match(field string, m Match, salt string, depth int) rule {
	if depth > maxDepth {
		c.problem(field, "more than %d levels deep", maxDepth)
		return rule{}
	}
	n := count(len(m.Any) > 0, len(m.All) > 0, m.Not != nil, m.Host != "", m.Path != "",
		m.Header != nil, m.Cookie != nil, m.Claim != nil, m.Percent != nil)
	switch {
	case n > 1:
		c.problem(field, "set exactly one of any, all, not, host, path, header, cookie, claim and percent, not %d (join several with any or all)", n)
		return rule{}
	case n == 0 && depth > 0: // inside "not" it would match everything
		c.problem(field, "empty")
		return rule{}
	case n == 0:
		return rule{op: opNever}
	}
	switch {
	case len(m.Any) > 0:
		return rule{op: opAny, kids: c.matches(field+".any", m.Any, salt, depth)}
	case len(m.All) > 0:
		return rule{op: opAll, kids: c.matches(field+".all", m.All, salt, depth)}
	case m.Not != nil:
		return rule{op: opNot, kids: []rule{c.match(field+".not", *m.Not, salt, depth+1)}}
	case m.Host != "":
		return c.host(field+".host", m.Host)
	case m.Path != "":
		return c.path(field+".path", m.Path)
	case m.Header != nil:
		return c.value(field+".header", *m.Header, c.header(field+".header.name", m.Header.Name))
	case m.Cookie != nil:
		return c.value(field+".cookie", *m.Cookie, c.cookie(field+".cookie.name", m.Cookie.Name))
	case m.Claim != nil:
		if m.Claim.Name == "" {
			c.problem(field+".claim.name", "empty")
		}
		return c.value(field+".claim", *m.Claim, c.claim(m.Claim.Name))
	default:
		return c.percent(field+".percent", *m.Percent, salt)
	}
}

func (c *compiler) matches(field string, in []Match, salt string, depth int) []rule {
	out := make([]rule, len(in))
	for i, m := range in {
		out[i] = c.match(fmt.Sprintf("%s[%d]", field, i), m, salt, depth+1)
	}
	return out
}

func (c *compiler) host(field, pattern string) rule {
	p := strings.ToLower(pattern)
	from := source{kind: fromHost, slot: slotHost}
	r := rule{op: opExact, arg: p, from: from}
	if s, ok := strings.CutPrefix(p, "*."); ok {
		r = rule{op: opSuffix, arg: "." + s, from: from}
	} else if s, ok := strings.CutSuffix(p, ".*"); ok {
		r = rule{op: opPrefix, arg: s + ".", from: from}
	}
	if rest := strings.Trim(r.arg, "."); rest == "" || strings.ContainsAny(r.arg, "* \t/") {
		c.problem(field, `%q is not a host, "*.suffix" or "prefix.*"`, pattern)
	} else if i := strings.LastIndexByte(r.arg, ':'); i >= 0 && !strings.Contains(r.arg, "]") {
		c.problem(field, "%q has a port; ports are ignored, leave it out", pattern)
	}
	return r
}

func (c *compiler) path(field, prefix string) rule {
	if !strings.HasPrefix(prefix, "/") || strings.ContainsAny(prefix, "?#") {
		c.problem(field, `%q is not a path: it starts with "/" and has no query`, prefix)
	}
	return rule{op: opPrefix, arg: prefix, from: source{kind: fromPath, slot: slotPath}}
}

func (c *compiler) value(field string, v Value, from source) rule {
	switch {
	case v.Exact != "" && v.Prefix != "":
		c.problem(field, "set exact or prefix, not both")
		return rule{}
	case v.Exact != "":
		return rule{op: opExact, arg: v.Exact, from: from}
	case v.Prefix != "":
		return rule{op: opPrefix, arg: v.Prefix, from: from}
	default:
		return rule{op: opPrefix, from: from}
	}
}

func (c *compiler) percent(field string, p Percent, salt string) rule {
	of := p.Of * group.Buckets / 100
	if !(p.Of >= 0 && p.Of <= 100) || math.Abs(of-math.Round(of)) > 1e-6 {
		c.problem(field+".of", "%v is not 0 to 100 in steps of 0.01", p.Of)
		return rule{}
	}
	if p.Salt != "" {
		salt = p.Salt
	}
	return rule{op: opPercent, arg: salt, from: c.by(field+".by", p.By), of: uint32(math.Round(of))}
}

// by reads the key of a percentage.
func (c *compiler) by(field, by string) source {
	if by == "" || by == "user" {
		return c.claim("sub")
	}
	kind, name, _ := strings.Cut(by, ":")
	switch {
	case kind == "claim" && name != "":
		return c.claim(name)
	case kind == "cookie":
		return c.cookie(field, name)
	case kind == "header":
		return c.header(field, name)
	}
	c.problem(field, `%q is not "user", "claim:NAME", "cookie:NAME" or "header:NAME"`, by)
	return source{}
}

func (c *compiler) header(field, name string) source {
	lower := strings.ToLower(name)
	switch {
	case !validToken(strings.TrimPrefix(lower, ":")):
		c.problem(field, "%q is not the name of a header", name)
		return source{}
	case len(lower) >= maxHeaderName:
		c.problem(field, "%q is longer than %d bytes", name, maxHeaderName-1)
		return source{}
	case len(c.layout.names) >= maxHeaders && c.layout.slot(lower) < 0:
		c.problem(field, "it is one of more than %d different headers", maxHeaders)
		return source{}
	case strings.HasPrefix(lower, semconv.HeaderPrefix):
		c.problem(field, "%q never reaches the filter: the edge removes %s* from requests", name, semconv.HeaderPrefix)
		return source{}
	}
	return source{kind: fromHeader, slot: uint16(c.layout.add(lower))}
}

func (c *compiler) cookie(field, name string) source {
	if !validToken(name) {
		c.problem(field, "%q is not the name of a cookie", name)
	}
	return source{kind: fromCookie, slot: slotCookie, name: name}
}

func (c *compiler) claim(name string) source {
	return source{kind: fromClaim, slot: slotClaims, name: name}
}
