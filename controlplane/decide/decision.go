// Package decide says what should happen to a traffic group: nothing, isolation,
// release. [Decide] is a pure function of policy, state, statistics and time; an
// operator's orders are [State.Isolate] and [State.Release].
//
// It reads no clock, asks no database and moves nothing: controlplane feeds it and
// carries out what it returns. README.md beside it says how it decides, and which
// designs lost.
package decide

import (
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// Action is what a decision does with a group.
type Action string

// The actions. PreWarm has its place here and is not decided yet.
const (
	Hold    Action = "hold"
	PreWarm Action = "prewarm"
	Isolate Action = "isolate"
	Release Action = "release"
)

// Decision is the record of one choice: everything needed to understand it later
// and to undo it.
type Decision struct {
	ID       string      `json:"id"` // time-ordered, unique
	Time     time.Time   `json:"time"`
	Action   Action      `json:"action"`
	Group    group.ID    `json:"group"`
	Color    group.Color `json:"color"`
	Env      string      `json:"env"`
	Tenant   string      `json:"tenant"`
	Service  string      `json:"service"`
	FromPool string      `json:"from_pool"`
	ToPool   string      `json:"to_pool"`
	Reason   string      `json:"reason"` // in words, with the figures
	By       string      `json:"by"`     // "policy" or "operator:<name>"
	Stats    sli.Stats   `json:"stats"`
	Baseline *sli.Stats  `json:"baseline,omitempty"` // what Stats was compared with; nil where nothing could be
	Advice   Action      `json:"advice,omitempty"`   // of a Hold: what a person should think about doing
	Causes   []string    `json:"causes,omitempty"`   // what else was out of the ordinary in FromPool, worst first

	// Filled in as the decision takes effect.
	FirstBad   time.Time `json:"first_bad,omitzero"`  // start of the first window that broke an objective
	Programmed time.Time `json:"programmed,omitzero"` // every connected edge has acknowledged
	Version    string    `json:"version,omitempty"`   // of the plan that carries it
}
