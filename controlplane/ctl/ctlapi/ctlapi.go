// Package ctlapi is what the control plane and its users say to each other over
// HTTP: the wire types and a small client. The server is controlplane/ctl; the
// console, core's watch of the placement and the load lab use the client.
//
// It is pure but for the client's HTTP calls, and imports no other adapter.
package ctlapi

import (
	"time"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// Paths.
const (
	PathStatus         = "/v1/status"
	PathPlacement      = "/v1/placement"
	PathPlacementWatch = "/v1/placement/watch"
	PathGroups         = "/v1/groups"
	PathDecisions      = "/v1/decisions"
	PathDecisionsWatch = "/v1/decisions/watch"
)

// Heartbeat is how often a watch sends an empty line when it has nothing to say.
const Heartbeat = 5 * time.Second

// Status says what the control plane serves, to whom, and what is wrong.
type Status struct {
	Version     string            `json:"version"`              // of the plan that edges should have
	LastGood    string            `json:"last_good"`            // of the last plan that every connected edge acknowledged
	Programming *Programming      `json:"programming,omitzero"` // a plan that is not acknowledged yet
	Trial       *Trial            `json:"trial,omitzero"`       // a policy that one edge has first
	Edges       []Edge            `json:"edges"`
	Clients     *Clients          `json:"clients,omitempty"` // gRPC clients that balance for themselves; nil: none is connected
	Sources     map[string]Source `json:"sources"`           // "policy", "endpoints", "certificate NAME", "tokens" where there is the file
	Drains      []Drain           `json:"drains,omitempty"`
	Rejected    *Rejection        `json:"rejected,omitzero"`
	// Quarantined are resources that an edge refused: they stay as they were, and
	// everything else of the policy is in force.
	Quarantined []Rejection `json:"quarantined,omitempty"`
	// RolledBack says that the policy that is wanted is not in force because it was taken back.
	RolledBack *RolledBack `json:"rolled_back,omitzero"`
	// LastGoodProblem is why the last good configuration of an earlier run was not used.
	LastGoodProblem string `json:"last_good_problem,omitempty"`
	Mode            string `json:"mode"` // of the policy: observe, recommend or act

	Telemetry       string `json:"telemetry"`       // one of the Telemetry constants
	TelemetryStale  bool   `json:"telemetry_stale"` // no data: no automatic decisions
	TelemetryReason string `json:"telemetry_reason,omitempty"`
	// Saturation is how full pools say they are, by resource; those that say nothing are not there.
	Saturation []sli.Saturation `json:"saturation,omitempty"`
	NotDurable string           `json:"not_durable,omitempty"` // why decisions cannot be kept on disk, so none take effect
	Unsaved    int              `json:"unsaved"`               // decisions that wait for the store
}

// What is known of the traffic. That nothing was measured is two different things: there
// was no request, and nobody knows whether there was one.
const (
	TelemetryFresh     = "fresh"
	TelemetryNoTraffic = "no_traffic"
	TelemetryNoData    = "no_data"
)

// Programming is a plan on its way to the edges.
type Programming struct {
	Version string    `json:"version"`
	Since   time.Time `json:"since"`
	Waiting []string  `json:"waiting"` // edges that have not acknowledged; empty: no edge is connected
	Late    bool      `json:"late"`    // it took too long; the placement was published without them
}

// Trial is a policy that one edge has and the others have not yet.
type Trial struct {
	Revision int       `json:"revision"`
	Edge     string    `json:"edge"` // that has it; empty: none is connected
	Since    time.Time `json:"since,omitzero"`
	Until    time.Time `json:"until,omitzero"`     // zero: the edge has not acknowledged it yet
	Measured string    `json:"measured,omitempty"` // at the edge and at the others, in words
	Next     int       `json:"next,omitempty"`     // a revision that waits for the end of it
}

// Rejection is an input that edges refused; the last good one is served instead.
type Rejection struct {
	Version string    `json:"version"`
	Edge    string    `json:"edge"`
	Nack    Nack      `json:"nack"`
	Time    time.Time `json:"time"`
	// Places are what the operator wrote that it is about, as far as can be told.
	Places []policy.Place `json:"places,omitempty"`
}

// RolledBack is a policy that made a group bad soon after it had come into force, or that
// was bad at the edge that had it first.
type RolledBack struct {
	From int       `json:"from"` // its revision
	To   int       `json:"to"`   // the one in force
	Time time.Time `json:"time"`
	Why  string    `json:"why"`
}

// Edge is one Envoy.
type Edge struct {
	ID        string            `json:"id"`
	Connected bool              `json:"connected"`
	Since     time.Time         `json:"since"`
	InSync    bool              `json:"in_sync"`
	Acked     map[string]string `json:"acked"` // type URL -> version
	Nacks     []Nack            `json:"nacks"`
	Types     []TypeState       `json:"types"` // each type of which there is something
}

// TypeState is how an edge stands with the resources of one type.
type TypeState struct {
	Type   string    `json:"type"`  // cds, eds, sds, lds, ecds, rds, vhds
	State  string    `json:"state"` // one of the Type constants
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"`
}

// States of a type.
const (
	TypeSynced = "synced" // the edge has acknowledged all that it should have
	TypeStale  = "stale"  // a part is on its way, or nobody knows because the edge is not connected
	TypeNacked = "nacked" // the edge refused a part of what is wanted; it may have all that it was given instead
)

// Clients are gRPC clients in sum: there may be many, and nothing waits for them.
type Clients struct {
	Connected int          `json:"connected"`
	Waiting   int          `json:"waiting"`           // that lack a part of what they asked for
	Problem   string       `json:"problem,omitempty"` // why the newest plan is not theirs
	Nacks     []ClientNack `json:"nacks,omitempty"`   // the first few
}

// ClientNack is a configuration that a gRPC client refused.
type ClientNack struct {
	Client string `json:"client"`
	Nack   Nack   `json:"nack"`
}

// Nack is a configuration that an edge refused.
type Nack struct {
	Type     string    `json:"type"` // lds, rds, cds, eds, ecds
	Resource string    `json:"resource"`
	Reason   string    `json:"reason"` // Envoy's own words
	Version  string    `json:"version"`
	Time     time.Time `json:"time"`
	Count    int       `json:"count"`
}

// Source is a file the operator writes. Where Error is set, the version before it
// goes on.
type Source struct {
	File  string `json:"file"`
	Error string `json:"error,omitempty"`
	// Lost are names that nobody answers about; what they last stood for goes on.
	Lost []string `json:"lost,omitempty"`
	// Problems are Error in parts, where the file was read and is wrong.
	Problems []policy.Problem `json:"problems,omitempty"`
	Loaded   time.Time        `json:"loaded,omitzero"` // when the version in use was read

	Expires time.Time `json:"expires,omitzero"` // of a certificate
}

// Group is one traffic group as the control plane sees it.
type Group struct {
	Group  group.ID    `json:"group"`
	Color  group.Color `json:"color"`
	Cohort string      `json:"cohort"` // empty: no cohort
	Env    string      `json:"env"`
	Tenant string      `json:"tenant"`
	Pool   string      `json:"pool"`  // that serves it
	Home   string      `json:"home"`  // that serves it when it is not moved
	State  string      `json:"state"` // one of the State constants
	Since  time.Time   `json:"since,omitzero"`
	Until  time.Time   `json:"until,omitzero"`
	By     string      `json:"by,omitempty"`
	Bad    int         `json:"bad"`             // bad evaluations in a row
	Held   string      `json:"held,omitempty"`  // why it is not moved though it is bad
	Share  uint32      `json:"share,omitempty"` // percent of its users who are home again
	Limit  uint32      `json:"limit,omitempty"` // requests a second that each edge lets it make; 0: any
	Stats  []sli.Stats `json:"stats"`           // of the short window, by service and pool
}

// States of a group.
const (
	StateHome      = "home"
	StateIsolated  = "isolated"  // by policy
	StateForced    = "forced"    // isolated, or pinned to a pool that is not its own, by an operator
	StatePinned    = "pinned"    // kept at home by an operator, or limited by one
	StateReturning = "returning" // by policy: a share of its users is home again
	StateLimited   = "limited"   // at home, and its rate is limited by policy
)

// Order asks to isolate, pin, limit or release a group.
type Order struct {
	Reason   string `json:"reason"`
	By       string `json:"by,omitempty"`       // who asks, in their own words; the name of the token is put before it
	ForMS    int64  `json:"for_ms,omitempty"`   // zero: isolate until released; release for a minute; a pin must have it
	Requests uint32 `json:"requests,omitempty"` // of a limit: a second, and for each edge

	Pool string `json:"pool,omitempty"` // of a pin
	// Identity names a group that has not been seen yet. Its ID must be the one in
	// the path.
	Identity *Identity `json:"identity,omitempty"`
}

// Identity is what a group's ID is made of.
type Identity struct {
	Color  string `json:"color"` // eight hex digits
	Env    string `json:"env"`
	Tenant string `json:"tenant"`
}
