package server

import (
	"strings"
	"time"

	"github.com/tracegate/tracegate/controlplane/xds"
)

// Edge is what is known of one edge.
type Edge struct {
	ID        string
	Connected bool
	Since     time.Time           // of Connected
	Version   string              // the snapshot it should have
	InSync    bool                // it has acknowledged all of Version
	Acked     map[xds.Type]string // type -> Version, where all of the type is acknowledged
	Nacks     []Nack              // newest last
	Types     []Type              // in the order of [xds.Type], without those of which there is nothing
}

// Type is how an edge stands with the resources of one type.
type Type struct {
	Type   xds.Type
	State  State
	Since  time.Time
	Reason string // empty where it is synced
}

// State compares what an edge has with what it should have.
type State string

// The states.
const (
	Synced State = "synced" // all of it is acknowledged
	Stale  State = "stale"  // a part is on its way, or nobody knows because the edge is not connected
	Nacked State = "nacked" // a part is refused
)

// Client is what is known of one gRPC client.
type Client struct {
	ID       string
	Since    time.Time
	Services []string // that it calls
	InSync   bool     // it has acknowledged all that it asked for
	Nacks    []Nack   // newest last
}

// Rejected says whether the edge refused a part of the snapshot.
func (e Edge) Rejected(version string) (Nack, bool) {
	for i := len(e.Nacks) - 1; i >= 0; i-- {
		if e.Nacks[i].Version == version {
			return e.Nacks[i], true
		}
	}
	return Nack{}, false
}

// Nack is a configuration that an edge refused.
type Nack struct {
	Type     xds.Type
	Resource string    // Names in one line
	Names    []string  // that are blamed: those that Reason mentions, else all of the response
	Reason   string    // Envoy's own words
	Version  string    // of the snapshot
	Time     time.Time // the last one
	Count    int       // of the same kind
}

const (
	maxNacks  = 10
	maxReason = 500
)

// remember adds n, or counts it where the last of its kind says the same.
func remember(nacks []Nack, n Nack) []Nack {
	for i, old := range nacks {
		if old.Type == n.Type && old.Resource == n.Resource && old.Reason == n.Reason && old.Version == n.Version {
			n.Count += old.Count
			nacks = append(nacks[:i:i], nacks[i+1:]...)
			break
		}
	}
	if len(nacks) >= maxNacks {
		nacks = nacks[1:]
	}
	return append(nacks[:len(nacks):len(nacks)], n)
}

func clip(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}

// serves is who the edge is once it has all it should have; 0 before that.
func (e *edge) serves() (id string, generation int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.target == nil || !e.has.inSync() {
		return "", 0
	}
	return e.id, e.gen
}

func (e *edge) status() Edge {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := Edge{ID: e.id, Connected: !e.closed, Since: e.since, Acked: map[xds.Type]string{}, Nacks: e.nacks}
	if e.target == nil {
		return out
	}
	out.Version = e.target.Version
	out.InSync = e.has.inSync()
	for i := range e.has {
		t := xds.Type(i)
		if e.has.at(t) {
			out.Acked[t] = e.target.Version
		}
		if len(e.target.Resources[t])+len(e.has[t].acked) > 0 {
			out.Types = append(out.Types, e.typeStatus(t))
		}
	}
	return out
}

func (e *edge) typeStatus(t xds.Type) Type {
	out := Type{Type: t, State: e.has[t].state, Since: e.has[t].since}
	switch out.State {
	case Stale:
		out.Reason = e.has.waits(t, time.Now(), e.cfg.Warmup)
	case Nacked:
		for _, n := range e.nacks {
			if n.Type == t {
				out.Reason = n.Reason
			}
		}
	}
	return out
}

// left is the status of an edge that has gone: what it does next nobody knows.
func (e Edge) left(now time.Time) Edge {
	e.Connected, e.Since = false, now
	for i, t := range e.Types {
		e.Types[i] = Type{Type: t.Type, State: Stale, Since: now, Reason: "not connected"}
	}
	return e
}
