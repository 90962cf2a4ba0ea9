package decide

import (
	"maps"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
)

// State is what must be remembered between evaluations. It is a value: Decide
// returns a new one and leaves its argument alone. It is saved as JSON, so that
// isolated groups stay isolated when the control plane restarts.
type State struct {
	Groups map[group.ID]GroupState `json:"groups"`
	// RolledBack is when an update was taken back last. What it had done is in the windows
	// for a while.
	RolledBack time.Time `json:"rolled_back,omitzero"`
	// Pools are those that are saturated, or may be, by [Pool.String].
	Pools map[string]PoolState `json:"pools,omitempty"`
}

// PoolState is what is remembered of one pool's saturation.
type PoolState struct {
	Looks     int       `json:"looks,omitempty"`     // in a row that found it above the threshold
	Saturated bool      `json:"saturated,omitempty"` // enough of them, and not below LeaveFraction of it since
	Measured  time.Time `json:"measured,omitzero"`   // what was looked at last
	Warmed    time.Time `json:"warmed,omitzero"`     // when room was made in it last
}

// GroupState is one group's.
type GroupState struct {
	Color  group.Color `json:"color"`
	Env    string      `json:"env"`
	Tenant string      `json:"tenant"`

	// Pool is where the group was moved to; empty: it is at home, in the pool of
	// its cohort.
	Pool  string    `json:"pool,omitempty"`
	Since time.Time `json:"since,omitzero"` // of the last move
	By    string    `json:"by,omitempty"`   // of the last move
	// Until is when an operator's word ends; zero: with their next word. It counts
	// while Manual is set, and then nothing but time and the operator moves the group.
	Manual bool      `json:"manual,omitempty"`
	Until  time.Time `json:"until,omitzero"`

	// Share is, of a group that is released step by step, how much of it is home again,
	// in percent of its users; Left is when it left home.
	Share uint32    `json:"share,omitempty"`
	Left  time.Time `json:"left,omitzero"`

	// Shed is how many requests a second each edge lets it make since ShedAt; 0: as many
	// as it likes.
	Shed   uint32    `json:"shed,omitempty"`
	ShedAt time.Time `json:"shed_at,omitzero"`
	// ShedBy is the operator whose limit it is, empty where it is policy's, and ShedUntil when
	// theirs ends; zero: with their next word. Where the group is, it does not say.
	ShedBy    string    `json:"shed_by,omitempty"`
	ShedUntil time.Time `json:"shed_until,omitzero"`
	Warmed    time.Time `json:"warmed,omitzero"` // when room was made for it last

	IsolatedFor time.Duration `json:"isolated_for,omitempty"` // how long this or the last isolation by policy is meant to be
	Released    time.Time     `json:"released,omitzero"`      // when the last isolation by policy ended

	Bad      int       `json:"bad,omitempty"` // bad evaluations in a row
	FirstBad time.Time `json:"first_bad,omitzero"`
	Held     string    `json:"held,omitempty"` // why it is not moved though it is bad
	Seen     time.Time `json:"seen,omitzero"`  // last evaluation with requests

	// Told is which holds were recorded lately, by what they say, and when. It is
	// replaced, never edited.
	Told map[string]time.Time `json:"told,omitempty"`
}

// unlimited ends its limit.
func (g *GroupState) unlimited() {
	g.Shed, g.ShedAt, g.ShedBy, g.ShedUntil = 0, time.Time{}, "", time.Time{}
}

// Group is the group the state is about.
func (g GroupState) Group() group.Group {
	return group.Group{Color: g.Color, Env: g.Env, Tenant: g.Tenant}
}

// Moves maps each moved group to its pool.
func (s State) Moves() map[group.ID]string {
	out := map[group.ID]string{}
	for id, g := range s.Groups {
		if g.Pool != "" {
			out[id] = g.Pool
		}
	}
	return out
}

// Home maps each group that is released step by step to its share that is home again.
func (s State) Home() map[group.ID]uint32 {
	out := map[group.ID]uint32{}
	for id, g := range s.Groups {
		if g.Pool != "" && g.Share > 0 {
			out[id] = g.Share
		}
	}
	return out
}

// Sheds maps each group that is limited to the requests it may make in a second.
func (s State) Sheds() map[group.ID]uint32 {
	out := map[group.ID]uint32{}
	for id, g := range s.Groups {
		if g.Shed > 0 {
			out[id] = g.Shed
		}
	}
	return out
}

func (s State) clone() State {
	out := s
	out.Groups = maps.Clone(s.Groups)
	if out.Groups == nil {
		out.Groups = map[group.ID]GroupState{}
	}
	out.Pools = maps.Clone(s.Pools)
	return out
}

// isolated counts the groups that policy isolated or limited.
func (s State) isolated() int {
	n := 0
	for _, g := range s.Groups {
		if !g.Manual && (g.Pool != "" || g.Shed > 0 && g.ShedBy == "") {
			n++
		}
	}
	return n
}

const (
	maxGroups = 10_000           // remembered; more are not decided on
	forget    = 15 * time.Minute // after which a quiet group that is at home is forgotten
)

// prune forgets groups about which there is nothing to remember.
func (s State) prune(now time.Time) {
	for id, g := range s.Groups {
		if g.Pool == "" && g.Shed == 0 && !g.Manual && now.Sub(g.Seen) > forget && now.Sub(g.Released) > max(forget, g.IsolatedFor) {
			delete(s.Groups, id)
		}
	}
}
