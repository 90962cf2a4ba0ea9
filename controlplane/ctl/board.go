package ctl

import (
	"slices"
	"sync"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/mesh/placement"
	"github.com/tracegate/tracegate/mesh/settings"
)

// Board is what the API shows. The owner of the control plane's state writes it,
// handlers read it; a reader is never waited for, and one that fell behind sees
// the newest state and not what it missed.
type Board struct {
	mu      sync.Mutex
	view    View
	changed chan struct{} // closed at the next change
	rev     uint64
}

// View is one state of the board. Readers must not change what it refers to.
type View struct {
	Ready     bool
	Status    ctlapi.Status
	Groups    []ctlapi.Group
	Placement *placement.Placement // nil until one was published
	Decisions []Entry              // oldest first
	Basis     *Basis               // nil until there was a plan
	Settings  ctlapi.Settings
	// Handed are the settings documents that instances get, by key; nil until a source
	// was read, or something was left by an earlier run.
	Handed map[string]settings.Document
}

// Basis is what edges were last given, and what it was made of.
type Basis struct {
	Document  []byte // the policy
	Endpoints policy.Endpoints
	Plan      plan.Plan
	Snapshot  *xds.Snapshot
}

// Entry is a decision and when, in the order of changes, it was last changed.
type Entry struct {
	Rev uint64
	decide.Decision
}

// MaxDecisions bounds what the board remembers; the store has them all.
const MaxDecisions = 1000

// NewBoard returns an empty board.
func NewBoard() *Board { return &Board{changed: make(chan struct{})} }

// Read returns the view and a channel that is closed when there is another.
func (b *Board) Read() (View, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.view, b.changed
}

// Write changes the view. It must replace what the view refers to, not edit it.
func (b *Board) Write(change func(*View)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.view)
	close(b.changed)
	b.changed = make(chan struct{})
}

// Decision is one that is remembered.
func (b *Board) Decision(id string) (decide.Decision, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range slices.Backward(b.view.Decisions) {
		if e.ID == id {
			return e.Decision, true
		}
	}
	return decide.Decision{}, false
}

// Record adds decisions, or replaces those of the same id.
func (b *Board) Record(ds ...decide.Decision) {
	if len(ds) == 0 {
		return
	}
	b.Write(func(v *View) {
		all := slices.Clone(v.Decisions)
		for _, d := range ds {
			all = slices.DeleteFunc(all, func(e Entry) bool { return e.ID == d.ID })
			b.rev++
			all = append(all, Entry{Rev: b.rev, Decision: d})
		}
		slices.SortStableFunc(all, func(x, y Entry) int { return x.Time.Compare(y.Time) })
		v.Decisions = all[max(0, len(all)-MaxDecisions):]
	})
}
