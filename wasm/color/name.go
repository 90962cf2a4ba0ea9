package color

import (
	"cmp"
	"strings"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// Group is a traffic group with what follows from it.
type Group struct {
	group.Group
	ID     group.ID
	Cohort string // "" for baseline and for a trusted peer's color that is not ours

	baggage string
}

func newGroup(co *cohort, env, tenant string) *Group {
	// The values may lie in memory that the next request overwrites.
	g := group.Group{Color: co.color, Env: strings.Clone(env), Tenant: strings.Clone(tenant)}
	return &Group{
		Group:   g,
		ID:      g.ID(),
		Cohort:  co.name,
		baggage: semconv.Env + "=" + g.Env + "," + semconv.Tenant + "=" + g.Tenant,
	}
}

// group decides env and tenant and names the group, from memory where it can: by
// index where a rule gave the tenant, by value where the request did.
func (a *Assigner) group(r *Request, co *cohort) *Group {
	if r.assignment.Events&Trusted != 0 || co.tenant != "" {
		return a.groupByValue(r, co)
	}
	i := a.tenantOf.run(r)
	if a.tenants[i].name == "" || r.claims.state == claimsBad {
		return a.groupByValue(r, co)
	}
	g := co.groups[i]
	if g == nil {
		g = newGroup(co, co.env, a.tenants[i].name)
		co.groups[i] = g
	}
	return g
}

// groupByValue is group where the cohort, or the request, names the tenant. The
// baggage of a trusted peer has the first word.
func (a *Assigner) groupByValue(r *Request, co *cohort) *Group {
	env, tenant := co.env, co.tenant
	if r.assignment.Events&Trusted != 0 {
		baggage := r.get(slotBaggage)
		env = cmp.Or(r.checked(baggageValue(baggage, semconv.Env)), env)
		tenant = cmp.Or(r.checked(baggageValue(baggage, semconv.Tenant)), tenant)
	}
	if tenant == "" {
		t := &a.tenants[a.tenantOf.run(r)]
		if tenant = t.name; tenant == "" {
			// An impossible value ends the search, so that a user cannot reach a later
			// rule by spoiling an earlier one.
			tenant = cmp.Or(r.checked(r.inside(r.get(int(t.from.slot)), &t.from)), a.tenant)
		}
	}
	if r.claims.state == claimsBad {
		r.assignment.Events |= ClaimsRejected
	}
	return a.remembered(co, env, tenant)
}

// checked returns v, or "" where it cannot be a name.
func (r *Request) checked(v string) string {
	if v != "" && !validName(v) {
		r.assignment.Events |= ValueRejected
		return ""
	}
	return v
}

// maxGroups bounds what an Assigner remembers by value: tenants may come from
// clients.
const maxGroups = 4096

type groupKey struct {
	color       group.Color
	env, tenant string
}

// remembered names a group. When the memory is full it is emptied: a flood of
// invented tenants then costs what it would cost without a memory.
func (a *Assigner) remembered(co *cohort, env, tenant string) *Group {
	if g, ok := a.groups[groupKey{co.color, env, tenant}]; ok {
		return g
	}
	g := newGroup(co, env, tenant)
	if len(a.groups) >= maxGroups {
		clear(a.groups)
	}
	a.groups[groupKey{co.color, g.Env, g.Tenant}] = g
	return g
}
