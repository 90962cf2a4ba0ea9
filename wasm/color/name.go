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
	if r.assignment.Events&Trusted != 0 {
		return a.groupInBaggage(r, co)
	}
	if co.tenant != "" {
		return a.named(co, len(a.tenants), co.tenant)
	}
	tenant, rule := a.tenantOf(r)
	if rule < 0 {
		return a.remembered(co, co.env, tenant)
	}
	return a.named(co, rule, tenant)
}

// groupInBaggage is group for a trusted peer, whose baggage has the first word.
func (a *Assigner) groupInBaggage(r *Request, co *cohort) *Group {
	baggage := r.get(slotBaggage)
	env := cmp.Or(r.checked(baggageValue(baggage, semconv.Env)), co.env)
	tenant := cmp.Or(r.checked(baggageValue(baggage, semconv.Tenant)), co.tenant)
	if tenant == "" {
		tenant, _ = a.tenantOf(r)
	}
	return a.remembered(co, env, tenant)
}

// tenantOf asks the tenant rules. An impossible value ends the search, so that a
// user cannot reach a later rule by spoiling an earlier one.
//
// The second result is the rule that gave a name of its own, len(a.tenants) for
// the policy's, and -1 where the name came from the request.
func (a *Assigner) tenantOf(r *Request) (name string, rule int) {
	for i := range a.tenants {
		t := &a.tenants[i]
		if t.match != nil && !t.match.holds(r) {
			continue
		}
		if t.name != "" {
			return t.name, i
		}
		if v := r.value(&t.from); v != "" {
			if v = r.checked(v); v != "" {
				return v, -1
			}
			break
		}
		if r.claims.state == claimsBad {
			r.assignment.Events |= ClaimsRejected
		}
	}
	return a.tenant, len(a.tenants)
}

// checked returns v, or "" where it cannot be a name.
func (r *Request) checked(v string) string {
	if v != "" && !validName(v) {
		r.assignment.Events |= ValueRejected
		return ""
	}
	return v
}

func (a *Assigner) named(co *cohort, rule int, tenant string) *Group {
	g := co.groups[rule]
	if g == nil {
		g = newGroup(co, co.env, tenant)
		co.groups[rule] = g
	}
	return g
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
