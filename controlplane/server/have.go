package server

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tracegate/tracegate/controlplane/xds"
)

// have is what one edge has, as far as its answers tell. It is a value of the
// stream that owns it; its methods are pure.
type have [xds.NumTypes]typeState

// typeState is what an edge has of one type, and how that differs from its target.
type typeState struct {
	wildcard bool
	names    map[string]struct{}     // subscribed by name
	acked    map[string]xds.Resource // Body is nil where the edge brought the version from an earlier stream
	flight   *flight                 // sent and not yet answered; at most one a type
	restore  map[string]struct{}     // names of a rejected response: which of them took effect is unknown
	again    map[string]struct{}     // acknowledged, and to be sent once more
	rejected map[offer]rejection
	changed  time.Time // when the edge last acknowledged a name that was new to it
	state    State
	since    time.Time // of state; zero until there is a target

	// What is left to do, kept by [have.look], so that a change costs what it changes
	// and not what the edge has.
	missing map[string]struct{} // of target, and not held
	stale   map[string]struct{} // acknowledged, and not of target
}

// flight is a response on its way.
type flight struct {
	nonce   string // empty until it is sent
	updated []xds.Resource
	removed []string
}

// offer is what an edge can refuse: a name, or that it is removed.
type offer struct {
	name    string
	removal bool
}

// rejection is a version that an edge refused, and when to offer it again. The
// version of a removal is empty.
type rejection struct {
	version string
	delay   time.Duration
	retryAt time.Time
}

func newTypeState() typeState {
	return typeState{
		names:    map[string]struct{}{},
		acked:    map[string]xds.Resource{},
		restore:  map[string]struct{}{},
		again:    map[string]struct{}{},
		rejected: map[offer]rejection{},
		missing:  map[string]struct{}{},
		stale:    map[string]struct{}{},
	}
}

// look compares what the edge has under one name with target. It must be called
// whenever either has changed.
func (h *have) look(t xds.Type, target *xds.Snapshot, name string) {
	ts := &h[t]
	delete(ts.missing, name)
	delete(ts.stale, name)
	if target == nil {
		return
	}
	r, wanted := target.Find(t, name)
	if wanted && !ts.holds(r) {
		ts.missing[name] = struct{}{}
	}
	if _, acked := ts.acked[name]; acked && !wanted {
		ts.stale[name] = struct{}{}
	}
}

// forget is for a name that the edge asks for again, or lets go.
func (h *have) forget(t xds.Type, target *xds.Snapshot, name string) {
	ts := &h[t]
	if t == xds.VirtualHosts { // it names a route configuration, and means all of it
		for acked := range ts.acked {
			if in(acked, name) {
				delete(ts.acked, acked)
				h.look(t, target, acked)
			}
		}
		return
	}
	delete(ts.acked, name)
	h.look(t, target, name)
}

func (t *typeState) subscribed(typ xds.Type, name string) bool {
	if t.wildcard {
		return true
	}
	if typ == xds.VirtualHosts {
		for config := range t.names {
			if in(name, config) {
				return true
			}
		}
	}
	_, ok := t.names[name]
	return ok
}

// in says whether a virtual host belongs to a route configuration, by their names.
func in(host, config string) bool {
	i := strings.LastIndexByte(host, '/')
	return i >= 0 && host[:i] == config
}

// at says whether the edge has acknowledged everything of one type in its target.
func (h *have) at(t xds.Type) bool { return len(h[t].missing) == 0 }

// holds says whether there is nothing to send for r.
func (t *typeState) holds(r xds.Resource) bool {
	_, again := t.again[r.Name]
	return !again && t.acked[r.Name].Version == r.Version
}

// sent notes that resources of a type are on their way. With a cluster that the
// edge has in another version go its endpoints once more: Envoy makes a changed
// cluster anew beside the old one and does not ask for what it has, and it
// acknowledges the cluster only when that has endpoints or its fetch has timed out
// (15 s).
func (h *have) sent(t xds.Type, target *xds.Snapshot, updated []xds.Resource) {
	for _, r := range updated {
		delete(h[t].again, r.Name)
		h.look(t, target, r.Name)
		if _, had := h[t].acked[r.Name]; !had || t != xds.Clusters {
			continue
		}
		if _, ok := target.Find(xds.Endpoints, r.Name); ok {
			h[xds.Endpoints].again[r.Name] = struct{}{}
			h.look(xds.Endpoints, target, r.Name)
		}
	}
}

// inSync says whether the target is all the edge has.
func (h *have) inSync() bool {
	for i := range h {
		if !h.synced(xds.Type(i)) {
			return false
		}
	}
	return true
}

// synced is inSync of one type.
func (h *have) synced(t xds.Type) bool {
	ts := &h[t]
	if ts.flight != nil || len(ts.restore) > 0 || len(ts.missing) > 0 {
		return false
	}
	switch t {
	case xds.Clusters, xds.Listeners, xds.VirtualHosts:
		return len(ts.stale) == 0
	}
	return true
}

// note keeps since when each type is as it is. It must be called whenever that may have
// changed.
func (h *have) note(target *xds.Snapshot, now time.Time) {
	for i := range h {
		ts, state := &h[i], Stale
		switch t := xds.Type(i); {
		case ts.refuses(t, target):
			state = Nacked
		case h.synced(t):
			state = Synced
		}
		if ts.since.IsZero() || ts.state != state {
			ts.state, ts.since = state, now
		}
	}
}

// refuses says whether the edge has refused a part of what it should have still.
func (t *typeState) refuses(typ xds.Type, target *xds.Snapshot) bool {
	for o, rej := range t.rejected {
		if o.removal {
			if _, stale := t.stale[o.name]; stale {
				return true
			}
			continue
		}
		if _, missing := t.missing[o.name]; !missing {
			continue
		}
		if r, ok := target.Find(typ, o.name); ok && r.Version == rej.version {
			return true
		}
	}
	return false
}

// waits says, in words, why a type that is stale is.
func (h *have) waits(t xds.Type, now time.Time, warmup time.Duration) string {
	ts := &h[t]
	if ts.flight != nil {
		return "sent, and not answered yet"
	}
	if open, wait := h.gate(t, now, warmup); wait > 0 {
		return "new endpoints warm up first"
	} else if !open {
		return "what it refers to goes first"
	}
	for name := range ts.missing {
		if !ts.subscribed(t, name) {
			return "the edge has not asked for all of it"
		}
	}
	return "not sent yet"
}

// next is what the edge may be sent of type t now: make before break.
//
//   - clusters: new and changed ones at once; those that target no longer has only
//     when listeners, routes and virtual hosts of target are acknowledged, and other
//     virtual hosts gone, so nothing points there;
//   - endpoints and filter configuration: whatever is subscribed, at once;
//   - listeners: when clusters and endpoints are acknowledged;
//   - routes: when listeners are as well, and new clusters had time to warm;
//   - scopes: when listeners are; routes come with them;
//   - virtual hosts: when routes are as well, which have the choosers they refer to.
//
// A rejected version is held back until its retry; one of a filter for good, see
// [edge.nack]. wait is above zero where time alone will change the answer.
func (h *have) next(t xds.Type, target *xds.Snapshot, now time.Time, warmup time.Duration) (updated []xds.Resource, removed []string, wait time.Duration) {
	ts := &h[t]
	if updated, removed = h.rollback(t); len(updated)+len(removed) > 0 {
		return updated, removed, 0
	}
	if ok, wait := h.gate(t, now, warmup); !ok {
		return nil, nil, wait
	}
	for _, name := range slices.Sorted(maps.Keys(ts.missing)) {
		r, _ := target.Find(t, name)
		if !ts.subscribed(t, name) {
			continue
		}
		if held := ts.held(offer{name: name}, r.Version, now); held > 0 {
			wait = earlier(wait, held)
			continue
		}
		updated = append(updated, r)
	}
	updated = ts.apart(t, updated)
	for _, name := range h.removable(t) {
		if held := ts.held(offer{name: name, removal: true}, "", now); held > 0 {
			wait = earlier(wait, held)
			continue
		}
		removed = append(removed, name)
	}
	return updated, removed, wait
}

// apart keeps what one resource does wrong from another, where they do not need each
// other: Envoy refuses a response whole. Filters go one at a time, and virtual hosts
// whose response was refused go each alone, behind all others.
func (t *typeState) apart(typ xds.Type, updated []xds.Resource) []xds.Resource {
	suspect := func(r xds.Resource) bool { return t.rejected[offer{name: r.Name}].version == r.Version }
	switch {
	case len(updated) < 2 || typ != xds.Extensions && typ != xds.VirtualHosts:
		return updated
	case typ == xds.VirtualHosts && !slices.ContainsFunc(updated, suspect):
		return updated
	case typ == xds.VirtualHosts && slices.ContainsFunc(updated, func(r xds.Resource) bool { return !suspect(r) }):
		return slices.DeleteFunc(updated, suspect)
	default:
		return updated[:1]
	}
}

// held is how long a rejected version is still to be held back.
func (t *typeState) held(o offer, version string, now time.Time) time.Duration {
	rej, ok := t.rejected[o]
	if !ok || rej.version != version {
		return 0
	}
	return max(0, rej.retryAt.Sub(now))
}

// removable are the names of a type that may be removed now.
func (h *have) removable(t xds.Type) []string {
	switch {
	case t == xds.Listeners || t == xds.VirtualHosts || t == xds.ScopedRoutes:
	case t == xds.Clusters && h.at(xds.Listeners) && h.at(xds.Routes) && h.at(xds.VirtualHosts) && len(h[xds.VirtualHosts].stale) == 0:
	default:
		return nil // ends with its subscription
	}
	return slices.Sorted(maps.Keys(h[t].stale))
}

// gate says whether type t may move towards its target yet.
func (h *have) gate(t xds.Type, now time.Time, warmup time.Duration) (ok bool, wait time.Duration) {
	switch t {
	case xds.Listeners, xds.ScopedRoutes:
		return h.at(xds.Clusters) && h.at(xds.Endpoints), 0
	case xds.Routes, xds.VirtualHosts:
		if !h.at(xds.Clusters) || !h.at(xds.Endpoints) || !h.at(xds.Listeners) || t == xds.VirtualHosts && !h.at(xds.Routes) {
			return false, 0
		}
		// An edge without routes serves nobody yet, and warms by itself before it asks for any.
		if left := warmup - now.Sub(h[xds.Endpoints].changed); left > 0 && len(h[t].acked) > 0 && !h.at(t) {
			return false, left
		}
	}
	return true, 0
}

// rollback sends again what the edge had before it rejected a response: Envoy may
// have applied a part of it. What it did not have is removed, where a type can
// hold a part of a response at all.
func (h *have) rollback(t xds.Type) (updated []xds.Resource, removed []string) {
	for name := range h[t].restore {
		switch r, ok := h[t].acked[name]; {
		case ok && r.Body != nil:
			updated = append(updated, r)
		case !ok && (t == xds.Clusters || t == xds.Listeners || t == xds.VirtualHosts):
			removed = append(removed, name)
		}
	}
	clear(h[t].restore)
	return updated, removed
}

func earlier(a, b time.Duration) time.Duration {
	if a == 0 || b < a {
		return b
	}
	return a
}
