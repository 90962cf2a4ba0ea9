package color

import (
	"net/netip"
	"strings"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// Assigner is a compiled policy. It is for one goroutine, as a Wasm VM has one
// thread: it remembers the groups it has named.
type Assigner struct {
	layout  *layout
	env     string
	tenant  string
	trusted []netip.Prefix
	cohorts []cohort
	tenants []tenant

	baseline cohort
	groups   map[groupKey]named
}

type cohort struct {
	name   string
	env    string // "" where the policy's holds
	tenant string // "" where the tenant rules decide
	color  group.Color
	match  rule
}

// tenant is one tenant rule: a name, or the value found in from.
type tenant struct {
	name  string
	from  source
	match *rule // nil matches always
}

// Assignment is what an [Assigner] decided for one request.
type Assignment struct {
	Group  group.Group
	ID     group.ID
	Cohort string // "" for baseline
	// Trusted says that the request came from a trusted peer.
	Trusted bool
	// Traceparent, Tracestate and Baggage are what the request must carry from
	// here on; equal to what it came with where nothing is to change, Tracestate ""
	// where it must have none.
	Traceparent string
	Tracestate  string
	Baggage     string
	// Events are the things in the request that could not be taken as they were.
	Events Events
}

// Events is a set of things worth a counter.
type Events uint8

// The events. None of them is an error.
const (
	// MalformedTraceparent: the client's ids were ignored, its tracestate with them.
	MalformedTraceparent Events = 1 << iota
	// TracestateCut: members of the client's tracestate were left out.
	TracestateCut
	// BaggageCut: members of the client's baggage were left out.
	BaggageCut
	// ValueRejected: a claim, header or baggage member named an impossible env or
	// tenant and the default was taken.
	ValueRejected
	// ClaimsRejected: the verified claims could not be read.
	ClaimsRejected
)

// ReadsPeer says whether a reads [Request.Peer], which may be costly to get.
func (a *Assigner) ReadsPeer() bool { return len(a.trusted) > 0 }

// Assign decides about r. The result does not depend on anything but the policy,
// r and rnd, and it always is a valid assignment.
func (a *Assigner) Assign(r *Request, rnd Random) Assignment {
	client, ok := parseTraceparent(r.Traceparent())
	var as Assignment
	if !ok && r.Traceparent() != "" {
		as.Events |= MalformedTraceparent
	}
	as.Trusted = a.trusts(r.Peer)

	var co *cohort
	if as.Trusted && ok {
		co = a.cohortOf(client.traceID)
	} else {
		co = a.cohort(r)
	}
	env, tenant := a.names(r, co, &as)
	g := a.group(co.color, env, tenant)
	as.Group, as.ID, as.Cohort = g.group, g.id, co.name

	if as.Trusted && ok {
		as.Traceparent, as.Tracestate = r.Traceparent(), r.Tracestate()
	} else {
		a.trace(r, client, ok, &rnd, &as)
	}
	a.baggage(r, g, &as)
	if r.claims.state == claimsBad {
		as.Events |= ClaimsRejected
	}
	return as
}

// cohort finds the first cohort that claims r, else the nameless one of baseline.
func (a *Assigner) cohort(r *Request) *cohort {
	for i := range a.cohorts {
		if a.cohorts[i].match.holds(r) {
			return &a.cohorts[i]
		}
	}
	return &a.baseline
}

// cohortOf finds the cohort of a trace that a trusted peer has colored, whatever
// its name: a color that no cohort here has is a color all the same.
func (a *Assigner) cohortOf(traceID string) *cohort {
	c, _ := group.OfTrace(traceID)
	for i := range a.cohorts {
		if a.cohorts[i].color == c {
			return &a.cohorts[i]
		}
	}
	return &cohort{color: c}
}

func (a *Assigner) trusts(peer netip.Addr) bool {
	if !peer.IsValid() {
		return false
	}
	peer = peer.Unmap()
	for _, p := range a.trusted {
		if p.Contains(peer) {
			return true
		}
	}
	return false
}

// names decides env and tenant.
func (a *Assigner) names(r *Request, co *cohort, as *Assignment) (env, tenant string) {
	env, tenant = co.env, co.tenant
	if as.Trusted {
		if v := as.checked(baggageValue(r.Baggage(), semconv.Env)); v != "" {
			env = v
		}
		if v := as.checked(baggageValue(r.Baggage(), semconv.Tenant)); v != "" {
			tenant = v
		}
	}
	if env == "" {
		env = a.env
	}
	if tenant == "" {
		tenant = a.tenantOf(r, as)
	}
	return env, tenant
}

// tenantOf asks the tenant rules. An impossible value ends the search, so that a
// user cannot reach a later rule by spoiling an earlier one.
func (a *Assigner) tenantOf(r *Request, as *Assignment) string {
	for i := range a.tenants {
		t := &a.tenants[i]
		if t.match != nil && !t.match.holds(r) {
			continue
		}
		if t.name != "" {
			return t.name
		}
		if v := r.value(&t.from); v != "" {
			if v = as.checked(v); v != "" {
				return v
			}
			break
		}
	}
	return a.tenant
}

// checked returns v, or "" where it cannot be a name.
func (as *Assignment) checked(v string) string {
	if v != "" && !validName(v) {
		as.Events |= ValueRejected
		return ""
	}
	return v
}

// trace gives the request a new trace of its color. The client's sampled flag
// holds; a request that brings none is sampled, since its trace starts here.
func (a *Assigner) trace(r *Request, client parent, ok bool, rnd *Random, as *Assignment) {
	flags := byte(flagSampled | flagRandom)
	if ok {
		flags = client.flags&flagSampled | flagRandom
		var whole bool
		r.buf, whole = appendTracestate(r.buf[:0], client, r.Tracestate())
		as.Tracestate = string(r.buf)
		if !whole {
			as.Events |= TracestateCut
		}
	}
	r.buf = appendTraceparent(r.buf[:0], as.Group.Color, rnd, flags)
	as.Traceparent = string(r.buf)
}

// baggage puts env and tenant first and keeps the client's other members. A
// trusted peer's baggage that says the same already stays as it is.
func (a *Assigner) baggage(r *Request, g named, as *Assignment) {
	client := r.Baggage()
	if client == "" {
		as.Baggage = g.baggage
		return
	}
	if as.Trusted && len(client) <= maxBaggageBytes &&
		baggageValue(client, semconv.Env) == g.group.Env && baggageValue(client, semconv.Tenant) == g.group.Tenant {
		as.Baggage = client
		return
	}
	var whole bool
	r.buf, whole = appendBaggage(append(r.buf[:0], g.baggage...), client)
	as.Baggage = string(r.buf)
	if !whole {
		as.Events |= BaggageCut
	}
}

// maxGroups bounds what an Assigner remembers: tenants may come from clients.
const maxGroups = 4096

type groupKey struct {
	color       group.Color
	env, tenant string
}

// named is a group with what is derived from it.
type named struct {
	group   group.Group
	id      group.ID
	baggage string
}

// group names a group, from memory where it can. When the memory is full it is
// emptied: a flood of invented tenants costs what it would cost without one.
func (a *Assigner) group(c group.Color, env, tenant string) named {
	key := groupKey{c, env, tenant}
	if g, ok := a.groups[key]; ok {
		return g
	}
	// The values may lie in a buffer that the next request overwrites.
	key.env, key.tenant = strings.Clone(env), strings.Clone(tenant)
	g := named{group: group.Group{Color: c, Env: key.env, Tenant: key.tenant}}
	g.id = g.group.ID()
	g.baggage = semconv.Env + "=" + key.env + "," + semconv.Tenant + "=" + key.tenant
	if len(a.groups) >= maxGroups {
		clear(a.groups)
	}
	a.groups[key] = g
	return g
}
