package xds

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tracegate/tracegate/controlplane/plan"
)

// anyHost is the pattern of what names no host.
const anyHost = "*"

// noHost has a virtual host in every plan, so that Envoy is never left waiting for
// its first ones: it takes an empty response for none. The domain is reserved (RFC 6761).
const noHost = "none.invalid"

// ruleTable finds the rules of a host. Its patterns are those that rules name, exact
// or *.suffix, and [anyHost]. It is filled anew with each plan; what it knows of a
// service's rules it keeps as long as these are the same in memory.
type ruleTable struct {
	patterns map[string]*hostRules
	services map[string]serviceRules
	sorted   []*hostRules // without anyHost
	found    []placedRule // of the last look-up

	mirrors map[string]bool // clusters that rules send copies to
	buffers bool            // a rule wants the buffer filter
}

// hostRules are the rules that name a pattern, in the order in which they are tried.
type hostRules struct {
	pattern, name string // name of its virtual host
	rules         []placedRule
}

type placedRule struct {
	order   int
	service int // index of the one that serves
	rule    *plan.Rule
}

// serviceRules are what the rules of one service say.
type serviceRules struct {
	rules   []plan.Rule
	named   []namedHost
	mirrors []string
	buffers bool
}

// namedHost is a pattern that a rule names; at is the rule's index.
type namedHost struct {
	at      int
	pattern string
}

// fill refuses a rule of a service that the plan does not have.
func (t *ruleTable) fill(p plan.Plan) error {
	if t.patterns == nil {
		t.patterns = map[string]*hostRules{}
	}
	for _, h := range t.patterns {
		h.rules = h.rules[:0]
	}
	index := make(map[string]int, len(p.Services))
	for i, s := range p.Services {
		index[s.Name] = i
	}
	services := make(map[string]serviceRules, len(p.Services))
	t.mirrors, t.buffers = map[string]bool{}, false
	order := 0
	for _, s := range p.Services {
		known, ok := t.services[s.Name]
		if !ok || !shared(known.rules, s.Rules) {
			known = newServiceRules(s.Rules)
		}
		services[s.Name] = known
		for _, name := range known.mirrors {
			t.mirrors[name] = true
		}
		t.buffers = t.buffers || known.buffers
		for _, n := range known.named {
			rule := &known.rules[n.at]
			serves, ok := index[rule.Service]
			if !ok {
				return fmt.Errorf("rule %q of %s: no service %q", rule.Name, s.Name, rule.Service)
			}
			t.add(n.pattern, placedRule{order + n.at, serves, rule})
		}
		order += len(s.Rules)
	}
	t.services = services
	t.sort()
	return nil
}

func (t *ruleTable) add(pattern string, r placedRule) {
	h := t.patterns[pattern]
	if h == nil {
		h = &hostRules{pattern: pattern, name: hostName(pattern)}
		t.patterns[pattern], t.sorted = h, nil
	}
	h.rules = append(h.rules, r)
}

// sort drops what no rule names any more.
func (t *ruleTable) sort() {
	for pattern, h := range t.patterns {
		if len(h.rules) == 0 {
			delete(t.patterns, pattern)
			t.sorted = nil
		}
	}
	if t.sorted != nil {
		return
	}
	for pattern, h := range t.patterns {
		if pattern != anyHost {
			t.sorted = append(t.sorted, h)
		}
	}
	slices.SortFunc(t.sorted, func(a, b *hostRules) int { return cmp.Compare(a.pattern, b.pattern) })
}

func newServiceRules(rules []plan.Rule) serviceRules {
	out := serviceRules{rules: rules}
	for i := range rules {
		r := &rules[i]
		first := len(out.named)
		add := func(pattern string) {
			if n := (namedHost{i, pattern}); !slices.Contains(out.named[first:], n) {
				out.named = append(out.named, n)
			}
		}
		for _, m := range r.Match {
			if len(m.Hosts) == 0 {
				add(anyHost)
			}
			for _, host := range m.Hosts {
				add(host)
			}
		}
		if r.Mirror != nil {
			out.mirrors = append(out.mirrors, plan.ClusterName(r.Service, r.Mirror.Pool))
		}
		out.buffers = out.buffers || r.MaxRequestBytes > 0
	}
	return out
}

// hosts are the patterns that get a virtual host of their own, sorted.
func (t *ruleTable) hosts() []*hostRules { return t.sorted }

// of are all rules that may take a request for the host, in order, up to the first
// that takes every one; all says whether there is such a rule. The slice is good
// until the next call.
//
// Envoy looks for the virtual host of the most specific pattern and for no other. A
// pattern that matches a request's host beside that one covers it whole. So the rules
// of all patterns that cover this one are the only ones that count, and none of them
// has to look at the host again.
func (t *ruleTable) of(host string) (_ []placedRule, all bool) {
	t.found = t.found[:0]
	lists := 0
	for pattern, ok := host, true; ok; pattern, ok = above(pattern) {
		if h := t.patterns[pattern]; h != nil {
			t.found = append(t.found, h.rules...)
			lists++
		}
	}
	if lists > 1 {
		slices.SortFunc(t.found, func(a, b placedRule) int { return cmp.Compare(a.order, b.order) })
		t.found = slices.Compact(t.found)
	}
	for i, r := range t.found {
		if takesAll(r.rule, host) {
			return t.found[:i+1], true
		}
	}
	return t.found, false
}

// above is the next wider pattern: a.b.c, *.b.c, *.c, *. It allocates nothing where
// the host has a star, and one string elsewhere.
func above(pattern string) (string, bool) {
	if pattern == anyHost {
		return "", false
	}
	rest, wild := strings.CutPrefix(pattern, "*.")
	dot := strings.IndexByte(rest, '.')
	switch {
	case dot < 0:
		return anyHost, true
	case wild:
		return "*" + rest[dot:], true
	default:
		return "*" + pattern[dot:], true
	}
}

func covers(m plan.Match, host string) bool {
	if len(m.Hosts) == 0 {
		return true
	}
	for pattern, ok := host, true; ok; pattern, ok = above(pattern) {
		if slices.Contains(m.Hosts, pattern) {
			return true
		}
	}
	return false
}

// takesAll says whether no request for the host passes the rule.
func takesAll(r *plan.Rule, host string) bool {
	return slices.ContainsFunc(r.Match, func(m plan.Match) bool {
		return m.Path == "" && m.Regex == "" && (m.Prefix == "" || m.Prefix == "/") &&
			len(m.Methods)+len(m.Headers)+len(m.Cookies)+len(m.Query) == 0 && !ofGroups(m) && covers(m, host)
	})
}

// Has says whether the routes of a rule are in a resource: a virtual host, or the route
// configuration, which has those of no host.
func Has(t Type, resource string, r plan.Rule) bool {
	host := anyHost
	if t == VirtualHosts {
		var ok bool
		if host, ok = strings.CutPrefix(resource, hostName("")); !ok {
			return false
		}
	}
	return slices.ContainsFunc(r.Match, func(m plan.Match) bool { return covers(m, host) })
}
