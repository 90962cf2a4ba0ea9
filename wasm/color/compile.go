package color

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// Names for requests where neither a rule nor the policy says otherwise.
const (
	DefaultEnv    = "default"
	DefaultTenant = "default"
)

const (
	maxCohorts = 1024
	maxTenants = 1024
	maxDepth   = 16 // of nested conditions; the filter's stack is small
)

// FieldError says which field of a policy is wrong, by its path in the policy file
// (cohorts[1].match.any[0].header.name). Take it from a Compile error with errors.As.
type FieldError struct {
	Field   string
	Problem string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

// Compile checks p and prepares it. The error joins one [FieldError] for each
// field that is wrong.
func Compile(p Policy) (*Assigner, error) {
	c := compiler{layout: newLayout()}
	a := &Assigner{
		layout: c.layout,
		groups: make(map[groupKey]*Group),
		env:    c.name("env", p.Env, DefaultEnv),
		tenant: c.name("tenant", p.Tenant, DefaultTenant),
	}
	for i, s := range p.TrustedPeers {
		a.trusted = append(a.trusted, c.prefix(fmt.Sprintf("trustedPeers[%d]", i), s))
	}
	cohorts := c.cohorts(p.Cohorts)
	tenants := c.tenants(p.Tenants)
	if err := errors.Join(c.problems...); err != nil {
		return nil, err
	}
	for _, id := range p.Releasing {
		if a.releasing == nil {
			a.releasing = map[group.ID]bool{}
		}
		a.releasing[id] = true
	}
	a.addTenants(tenants)
	a.addCohorts(cohorts)
	return a, nil
}

// addCohorts makes the program whose outcome is the first cohort that matches, or
// else baseline, which is the last.
func (a *Assigner) addCohorts(in []cohortRule) {
	next := outcome(len(in))
	for i := len(in) - 1; i >= 0; i-- {
		next = a.cohortOf.add(&in[i].match, outcome(i), next)
	}
	a.cohortOf.start = next
	for _, c := range append(in, cohortRule{}) {
		c.env = cmp.Or(c.env, a.env)
		c.groups = make([]*Group, len(a.tenants))
		a.cohorts = append(a.cohorts, c.cohort)
	}
}

// addTenants makes the program whose outcome is the first tenant rule that yields a
// name, or else the policy's, which is the last.
func (a *Assigner) addTenants(in []tenantRule) {
	next := outcome(len(in))
	for i := len(in) - 1; i >= 0; i-- {
		yes := outcome(i)
		if in[i].name == "" { // where the value is there
			yes = a.tenantOf.add(&rule{op: opPrefix, from: in[i].from}, yes, next)
		}
		next = a.tenantOf.add(&in[i].match, yes, next)
	}
	a.tenantOf.start = next
	for _, t := range in {
		a.tenants = append(a.tenants, t.tenant)
	}
	a.tenants = append(a.tenants, tenant{name: a.tenant})
}

// compiler collects problems, so that an operator sees all of them at once.
type compiler struct {
	layout   *layout
	problems []error
}

func (c *compiler) problem(field, format string, args ...any) {
	c.problems = append(c.problems, &FieldError{Field: field, Problem: fmt.Sprintf(format, args...)})
}

// name checks an env, tenant or cohort name; fallback stands for an empty one.
func (c *compiler) name(field, s, fallback string) string {
	if s == "" {
		return fallback
	}
	if !validName(s) {
		c.problem(field, "%q is not 1 to %d of a-z 0-9 . _ -", s, maxName)
	}
	return s
}

func (c *compiler) prefix(field, s string) netip.Prefix {
	p, err := netip.ParsePrefix(s)
	if err == nil {
		return p.Masked()
	}
	if a, err := netip.ParseAddr(s); err == nil {
		c.problem(field, "%q is an address, write %s/%d", s, a, a.BitLen())
	} else {
		c.problem(field, "%q is not a network such as 10.0.0.0/8", s)
	}
	return netip.Prefix{}
}

// cohortRule is a cohort with its condition.
type cohortRule struct {
	cohort
	match rule
}

func (c *compiler) cohorts(in []Cohort) []cohortRule {
	if len(in) > maxCohorts {
		c.problem("cohorts", "%d cohorts, at most %d", len(in), maxCohorts)
		return nil
	}
	names := map[string]int{}
	colors := map[group.Color]int{group.Baseline: -1}
	out := make([]cohortRule, 0, len(in))
	for i, p := range in {
		field := fmt.Sprintf("cohorts[%d]", i)
		if p.Name == "" {
			c.problem(field+".name", "empty")
		} else if p.Name == semconv.PoolBaseline {
			c.problem(field+".name", "%q is what no cohort claims; choose another name", p.Name)
		} else if j, taken := names[p.Name]; taken {
			c.problem(field+".name", "%q is also the name of cohorts[%d]", p.Name, j)
		}
		names[p.Name] = i
		co := cohortRule{
			cohort: cohort{
				name:   c.name(field+".name", p.Name, ""),
				env:    c.name(field+".env", p.Env, ""),
				tenant: c.name(field+".tenant", p.Tenant, ""),
				color:  c.color(field+".color", p),
			},
			match: c.match(field+".match", p.Match, p.Name, 0),
		}
		switch j, taken := colors[co.color]; {
		case taken && j < 0:
			c.problem(field+".color", "%s is the color of baseline", co.color)
		case taken && in[j].Name != p.Name:
			c.problem(field+".color", "%s is also the color of cohorts[%d] (%s); give one of them another color", co.color, j, in[j].Name)
		}
		colors[co.color] = i
		out = append(out, co)
	}
	return out
}

func (c *compiler) color(field string, p Cohort) group.Color {
	if p.Color == "" {
		return group.ColorOf(p.Name)
	}
	col, ok := group.ParseColor(p.Color)
	if !ok {
		c.problem(field, "%q is not eight lower-case hex digits", p.Color)
		return group.ColorOf(p.Name)
	}
	return col
}

// tenantRule is a tenant with its condition.
type tenantRule struct {
	tenant
	match rule
}

func (c *compiler) tenants(in []Tenant) []tenantRule {
	if len(in) > maxTenants {
		c.problem("tenants", "%d rules, at most %d", len(in), maxTenants)
		return nil
	}
	out := make([]tenantRule, 0, len(in))
	for i, p := range in {
		field := fmt.Sprintf("tenants[%d]", i)
		t := tenantRule{
			tenant: tenant{name: c.name(field+".name", p.Name, "")},
			match:  rule{op: opAll}, // of nothing: always
		}
		if n := count(p.Name != "", p.Claim != "", p.Header != ""); n != 1 {
			c.problem(field, "set exactly one of name, claim and header, not %d", n)
		}
		if p.Claim != "" {
			t.from = c.claim(p.Claim)
		}
		if p.Header != "" {
			t.from = c.header(field+".header", p.Header)
		}
		if p.Match != nil {
			t.match = c.match(field+".match", *p.Match, field, 0)
		}
		out = append(out, t)
	}
	return out
}

func count(set ...bool) int {
	n := 0
	for _, s := range set {
		if s {
			n++
		}
	}
	return n
}
