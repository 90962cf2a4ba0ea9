// Package decide says what should happen to a traffic group: nothing, isolation and the
// way back step by step, a rate limit; or that an update of the configuration is taken
// back that made it bad. [Decide] is a pure function of policy, state, statistics and
// time; an operator's orders are [State.Isolate], [State.Pin], [State.Release],
// [State.Shed] and [State.Confirm].
//
// It reads no clock, asks no database and moves nothing: controlplane feeds it and
// carries out what it returns. README.md beside it says how it decides, and which
// designs lost.
package decide

import (
	"fmt"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// Action is what a decision does with a group.
type Action string

// The actions.
const (
	Hold     Action = "hold"     // nothing, and why
	PreWarm  Action = "prewarm"  // room is made, in the isolated pool or in one that is saturated; nothing moves yet
	Isolate  Action = "isolate"  // to the isolated pool, or back to it while being released
	Pin      Action = "pin"      // to a pool that a person names, for a while
	Release  Action = "release"  // home, a share of its users or all
	Shed     Action = "shed"     // edges limit its rate
	Lift     Action = "lift"     // they do not any more
	RollBack Action = "rollback" // the configuration before is in force again
)

// Known says whether there is such an action.
func (a Action) Known() bool {
	switch a {
	case Hold, PreWarm, Isolate, Pin, Release, Shed, Lift, RollBack:
		return true
	}
	return false
}

// Moves says whether edges get something new by it.
func (a Action) Moves() bool { return a != Hold && a != PreWarm }

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
	By       string      `json:"by"`     // "policy", or the name of a token and, after a colon, of who used it
	Stats    sli.Stats   `json:"stats"`
	Baseline *sli.Stats  `json:"baseline,omitempty"` // what Stats was compared with; nil where nothing could be
	Advice   Action      `json:"advice,omitempty"`   // of a Hold: what a person should think about doing
	Confirms string      `json:"confirms,omitempty"` // the Hold whose advice this follows
	Causes   []string    `json:"causes,omitempty"`   // what else was out of the ordinary in FromPool, worst first

	// Saturation is how full FromPool and ToPool are: of each the fullest resource, where it
	// is known.
	Saturation []sli.Saturation `json:"saturation,omitempty"`

	// What it was held against.
	Thresholds *Thresholds `json:"thresholds,omitempty"` // nil: an operator's
	Evidence   *Evidence   `json:"evidence,omitempty"`   // nil: no test was made

	// What it does beside moving the group.
	Share    uint32          `json:"share,omitempty"`    // of a Release: percent of its users who are home then
	Requests uint32          `json:"requests,omitempty"` // of a Shed: that each edge lets through in a second
	Room     []Load          `json:"room,omitempty"`     // of PreWarm and Isolate: what pools will get, or need, besides; of the group's whole path where traces show it
	For      time.Duration   `json:"for,omitempty"`      // of Isolate, Pin and Shed: how long it is meant to be
	Revision *RevisionChange `json:"revision,omitempty"` // of a RollBack

	// Filled in as the decision takes effect.
	FirstBad      time.Time `json:"first_bad,omitzero"`       // start of the first window that broke an objective
	Programmed    time.Time `json:"programmed,omitzero"`      // every connected edge has acknowledged
	Version       string    `json:"version,omitempty"`        // of the plan that carries it
	VersionBefore string    `json:"version_before,omitempty"` // of the plan that it replaced
	Outcome       *Outcome  `json:"outcome,omitempty"`        // measured afterwards; nil: not yet
	Undo          string    `json:"undo,omitempty"`           // a command
}

// Thresholds are what the policy said when a decision was taken.
type Thresholds struct {
	Mode                 Mode          `json:"mode"`
	MaxErrorRatio        float64       `json:"max_error_ratio"`
	MaxP95               time.Duration `json:"max_p95"`
	MaxP99               time.Duration `json:"max_p99,omitempty"` // 0: there was none
	ErrorRatioDifference float64       `json:"error_ratio_difference"`
	P95Factor            float64       `json:"p95_factor"`
	Significance         float64       `json:"significance"`
	QuickWindow          time.Duration `json:"quick_window"`
	ShortWindow          time.Duration `json:"short_window"`
	LongWindow           time.Duration `json:"long_window"`
	MinRequests          uint64        `json:"min_requests"`
	PrewarmSaturation    float64       `json:"prewarm_saturation,omitempty"` // 0: it was not looked at
	LeaveFraction        float64       `json:"leave_fraction,omitempty"`     // 0: of a record that is older than this
}

func (p Policy) thresholds() *Thresholds {
	return &Thresholds{
		Mode: p.Mode, MaxErrorRatio: p.MaxErrorRatio, MaxP95: p.MaxP95, MaxP99: p.MaxP99, ErrorRatioDifference: p.ErrorRatioDifference, P95Factor: p.P95Factor,
		Significance: p.Significance, QuickWindow: p.QuickWindow, ShortWindow: p.ShortWindow, LongWindow: p.LongWindow, MinRequests: p.MinRequests,
		PrewarmSaturation: p.PrewarmSaturation, LeaveFraction: p.LeaveFraction,
	}
}

// Evidence is the test that a decision rests on.
type Evidence struct {
	// Test is what was counted: "errors", "slow requests" (above the objective), "slower
	// requests" (above the group's median), "slowest requests" (above the objective of P99)
	// or "requests" (in the short window, of those in the long one).
	Test   string  `json:"test"`
	Chance float64 `json:"chance"` // of as many or more, where there was no fault: a binomial tail
}

// Load is what a pool will get of a group, or needs besides what it has.
type Load struct {
	Service  string  `json:"service"`
	Pool     string  `json:"pool"`
	Requests float64 `json:"requests"` // a second
}

// RevisionChange is between two policies, by the numbers of their revisions; 0: it is not
// kept. Where Settings is not empty it is between two settings documents of that key
// (mesh/settings); 0: none.
type RevisionChange struct {
	From     int    `json:"from"`
	To       int    `json:"to"`
	Settings string `json:"settings,omitempty"`
}

// What names the kind of document.
func (r RevisionChange) What() string {
	if r.Settings == "" {
		return "policy"
	}
	return "settings " + r.Settings
}

// back says what is in force instead.
func (r RevisionChange) back() string {
	if r.To == 0 {
		return "none is"
	}
	return fmt.Sprintf("%d is", r.To)
}

// Outcome is what was measured after a decision had taken effect.
type Outcome struct {
	Time   time.Time  `json:"time"`
	Stats  *sli.Stats `json:"stats,omitempty"` // of the group where it is now; nil: it made too few requests
	Better bool       `json:"better"`          // it keeps its objectives now
	Words  string     `json:"words"`
}

// Measure says what came of a decision by what its group got in a short window that
// began after it took effect.
func (p Policy) Measure(d Decision, short []sli.Stats, now time.Time) Outcome {
	e := evaluation{Policy: p.For(d.Group), Input: Input{Now: now, Short: short}}
	own := byGroup(short)[d.Group]
	services := servicesOf(own) // an operator's order is about all of them
	if d.Service != "" || len(services) == 0 {
		services = []string{d.Service}
	}
	st, ok := e.worst(services, 1, func(service string) (sli.Stats, bool) { return e.measured(own, service, d.ToPool) })
	if !ok {
		return Outcome{Time: now, Words: fmt.Sprintf("no data: %d requests", st.Requests)}
	}
	o := Outcome{Time: now, Stats: &st, Better: !e.breaks(st, 1), Words: e.figures(st)}
	return o
}

// undo is the command that takes a decision back; empty: there is nothing to take back.
func (d Decision) undo() string {
	switch d.Action {
	case Shed:
		return "tracegate ctl lift " + string(d.Group)
	case Isolate, Pin:
		return "tracegate ctl release " + string(d.Group)
	case Release:
		return "tracegate ctl isolate " + string(d.Group)
	case RollBack:
		if key := d.Revision.Settings; key != "" {
			return fmt.Sprintf("tracegate ctl settings rollback %s %d", key, d.Revision.From)
		}
		return fmt.Sprintf("tracegate ctl rollback %d", d.Revision.From)
	case Lift:
		return fmt.Sprintf("tracegate ctl shed %s --requests %d", d.Group, max(1, d.Requests))
	}
	return ""
}
