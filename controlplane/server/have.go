package server

import (
	"time"

	"github.com/tracegate/tracegate/controlplane/xds"
)

// have is what one edge has, as far as its answers tell. It is a value of the
// stream that owns it; its methods are pure.
type have [xds.NumTypes]typeState

// typeState is what an edge has of one type.
type typeState struct {
	wildcard bool
	names    map[string]struct{}     // subscribed by name
	acked    map[string]xds.Resource // Body is nil where the edge brought the version from an earlier stream
	flight   *flight                 // sent and not yet answered; at most one a type
	restore  map[string]struct{}     // names of a rejected response: which of them took effect is unknown
	again    map[string]struct{}     // acknowledged, and to be sent once more
	rejected map[offer]rejection
	changed  time.Time // when the edge last acknowledged a name that was new to it
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
	}
}

func (t *typeState) subscribed(name string) bool {
	if t.wildcard {
		return true
	}
	_, ok := t.names[name]
	return ok
}

// at says whether the edge has acknowledged everything of one type in target.
func (h *have) at(t xds.Type, target *xds.Snapshot) bool {
	for _, r := range target.Resources[t] {
		if !h[t].holds(r) {
			return false
		}
	}
	return true
}

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
		if _, had := h[t].acked[r.Name]; !had || t != xds.Clusters {
			continue
		}
		if _, ok := target.Find(xds.Endpoints, r.Name); ok {
			h[xds.Endpoints].again[r.Name] = struct{}{}
		}
	}
}

// stale are the acknowledged names of a type that target does not have.
func (h *have) stale(t xds.Type, target *xds.Snapshot) []string {
	var out []string
	for name := range h[t].acked {
		if _, ok := target.Find(t, name); !ok {
			out = append(out, name)
		}
	}
	return out
}

// inSync says whether target is all the edge has.
func (h *have) inSync(target *xds.Snapshot) bool {
	for i := range h {
		t := xds.Type(i)
		if h[t].flight != nil || len(h[t].restore) > 0 || !h.at(t, target) {
			return false
		}
	}
	return len(h.stale(xds.Clusters, target)) == 0 && len(h.stale(xds.Listeners, target)) == 0
}

// next is what the edge may be sent of type t now: make before break.
//
//   - clusters: new and changed ones at once; those that target no longer has only
//     when listeners and routes of target are acknowledged, so nothing points there;
//   - endpoints and filter configuration: whatever is subscribed, at once;
//   - listeners: when clusters and endpoints are acknowledged;
//   - routes: when listeners are as well, and new clusters had time to warm.
//
// A rejected version is held back until its retry; one of a filter for good, see
// [edge.nack]. wait is above zero where time alone will change the answer.
func (h *have) next(t xds.Type, target *xds.Snapshot, now time.Time, warmup time.Duration) (updated []xds.Resource, removed []string, wait time.Duration) {
	ts := &h[t]
	if updated, removed = h.rollback(t); len(updated)+len(removed) > 0 {
		return updated, removed, 0
	}
	if ok, wait := h.gate(t, target, now, warmup); !ok {
		return nil, nil, wait
	}
	for _, r := range target.Resources[t] {
		if !ts.subscribed(r.Name) || ts.holds(r) {
			continue
		}
		if held := ts.held(offer{name: r.Name}, r.Version, now); held > 0 {
			wait = earlier(wait, held)
			continue
		}
		updated = append(updated, r)
	}
	// One filter at a time: Envoy refuses a response whole, and what one filter did
	// wrong must not keep another from its configuration.
	if t == xds.Extensions && len(updated) > 1 {
		updated = updated[:1]
	}
	for _, name := range h.removable(t, target) {
		if held := ts.held(offer{name: name, removal: true}, "", now); held > 0 {
			wait = earlier(wait, held)
			continue
		}
		removed = append(removed, name)
	}
	return updated, removed, wait
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
func (h *have) removable(t xds.Type, target *xds.Snapshot) []string {
	switch {
	case t == xds.Listeners:
		return h.stale(t, target)
	case t == xds.Clusters && h.at(xds.Listeners, target) && h.at(xds.Routes, target):
		return h.stale(t, target)
	default:
		return nil // ends with its subscription
	}
}

// gate says whether type t may move towards target yet.
func (h *have) gate(t xds.Type, target *xds.Snapshot, now time.Time, warmup time.Duration) (ok bool, wait time.Duration) {
	switch t {
	case xds.Listeners:
		return h.at(xds.Clusters, target) && h.at(xds.Endpoints, target), 0
	case xds.Routes:
		if !h.at(xds.Clusters, target) || !h.at(xds.Endpoints, target) || !h.at(xds.Listeners, target) {
			return false, 0
		}
		// An edge without routes serves nobody yet, and warms by itself before it asks for any.
		if left := warmup - now.Sub(h[xds.Endpoints].changed); left > 0 && len(h[t].acked) > 0 && !h.at(t, target) {
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
		case !ok && (t == xds.Clusters || t == xds.Listeners):
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
