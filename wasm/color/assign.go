package color

import (
	"net/netip"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// Assigner is a compiled policy. It is for one goroutine, as a Wasm VM has one
// thread: it remembers the groups it has named.
type Assigner struct {
	layout   *layout
	env      string
	tenant   string
	trusted  []netip.Prefix
	cohortOf program  // yields an index of cohorts
	tenantOf program  // yields an index of tenants
	cohorts  []cohort // the last is baseline
	tenants  []tenant // the last is the policy's own
	groups   map[groupKey]*Group
	// releasing are groups whose users are told apart; nil: none.
	releasing map[group.ID]bool
}

type cohort struct {
	name   string // "" for baseline and for colors that are not ours
	env    string
	tenant string // "" where the tenant rules decide
	color  group.Color
	groups []*Group // by index of tenants; filled as they occur, nil for a color that is not ours
}

// tenant is a name, or where to find it.
type tenant struct {
	name string
	from source
}

// Assignment is what an [Assigner] decided for one request. It is valid until the
// next assignment to the same [Request].
type Assignment struct {
	*Group
	// Kept are the trace headers that are right as they are.
	Kept Kept
	// Events are the things in the request that could not be taken as they were.
	Events Events
	// Claims says that the request carries claims, which are for this package only.
	Claims bool
	// Place is the user's, see [group.PlaceText]; "" where nobody asks for it, or the user
	// is not known.
	Place string

	// The long ones last, so that what most requests touch lies together.
	tracestateSize int
	baggageSize    int // 0 for the group's own
	traceparent    [traceparentSize]byte
	tracestate     [maxStateBytes]byte
	baggage        [maxBaggageBytes]byte
}

// Traceparent is the header that the request must carry, unless it is kept.
func (as *Assignment) Traceparent() string { return text(as.traceparent[:]) }

// Tracestate is the header that the request must carry, unless it is kept; "" where
// it must have none.
func (as *Assignment) Tracestate() string { return text(as.tracestate[:as.tracestateSize]) }

// Baggage is the header that the request must carry, unless it is kept.
func (as *Assignment) Baggage() string {
	if as.baggageSize == 0 {
		return as.Group.baggage
	}
	return text(as.baggage[:as.baggageSize])
}

// Kept is a set of trace headers.
type Kept uint8

// The trace headers.
const (
	KeptTraceparent Kept = 1 << iota
	KeptTracestate
	KeptBaggage
)

// Events is a set of things worth a counter.
type Events uint8

// The events. None of them is an error.
const (
	// Trusted: the request came from a trusted peer.
	Trusted Events = 1 << iota
	// MalformedTraceparent: the client's ids were ignored, its tracestate with them.
	MalformedTraceparent
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
func (a *Assigner) Assign(r *Request, rnd *Random) *Assignment {
	as := &r.assignment
	as.Kept, as.Events, as.Claims, as.Place = 0, 0, r.at[slotClaims].size != 0, ""

	client, flags := r.get(slotTraceparent), byte(flagSampled)
	valid := false
	if client != "" {
		var f byte
		if f, valid = parseTraceparent(client); valid {
			flags = f & flagSampled
		} else {
			as.Events = MalformedTraceparent
		}
	}
	if a.trusted != nil && a.trusts(r.Peer) {
		as.Events |= Trusted
		if valid {
			a.keepTrace(r, client)
			a.place(r)
			return as
		}
	}
	as.Group = a.group(r, &a.cohorts[a.cohortOf.run(r)])
	writeTraceparent(&as.traceparent, as.Color, rnd, flags|flagRandom)
	r.setTracestate(client, valid)
	r.setBaggage()
	a.place(r)
	return as
}

// place tells users of a group apart that is released step by step.
func (a *Assigner) place(r *Request) {
	as := &r.assignment
	if a.releasing == nil || !as.Claims || !a.releasing[as.ID] {
		return
	}
	if user := r.claims.get(r.get(slotClaims), "sub"); user != "" {
		as.Place = group.PlaceText(group.Place(as.ID, user))
	}
}

// keepTrace takes a trusted peer's trace as it is.
func (a *Assigner) keepTrace(r *Request, client string) {
	as := &r.assignment
	as.Group = a.group(r, a.colored(client[3:35]))
	as.Kept = KeptTraceparent | KeptTracestate
	r.setBaggage()
}

// colored finds the cohort of a trace that a trusted peer has colored, whatever its
// name: a color that no cohort here has is a color all the same.
func (a *Assigner) colored(traceID string) *cohort {
	c, _ := group.OfTrace(traceID)
	for i := range a.cohorts {
		if a.cohorts[i].color == c {
			return &a.cohorts[i]
		}
	}
	return &cohort{color: c, env: a.env}
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

// setTracestate keeps the client's ids, where there are any, and its list.
func (r *Request) setTracestate(client string, valid bool) {
	as := &r.assignment
	list := r.get(slotTracestate)
	as.tracestateSize = 0
	if !valid {
		if list == "" {
			as.Kept |= KeptTracestate
		}
		return
	}
	n := copy(as.tracestate[:], semconv.TracestateKey+"=")
	as.tracestateSize = n + copy(as.tracestate[n:], client[3:52])
	if list != "" && !as.addTracestate(list) {
		as.Events |= TracestateCut
	}
}

// setBaggage puts env and tenant first and keeps the client's other members.
func (r *Request) setBaggage() {
	as := &r.assignment
	as.baggageSize = 0
	client := r.get(slotBaggage)
	if client == "" {
		return
	}
	if as.Events&Trusted != 0 && as.saysSame(client) {
		as.Kept |= KeptBaggage
		return
	}
	as.baggageSize = copy(as.baggage[:], as.Group.baggage)
	if !as.addBaggage(client) {
		as.Events |= BaggageCut
	}
}

// saysSame says whether a trusted peer's baggage can stay as it is.
func (as *Assignment) saysSame(client string) bool {
	return len(client) <= maxBaggageBytes &&
		baggageValue(client, semconv.Env) == as.Env && baggageValue(client, semconv.Tenant) == as.Tenant
}
