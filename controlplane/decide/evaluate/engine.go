package evaluate

import (
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

// Method makes the detectors that are compared.
type Method struct {
	Name string
	New  func(groups []Group) Detector
}

// Detector watches one run.
type Detector interface {
	// Look is called every [Tick] and gives the groups to isolate.
	Look(now time.Duration, b *board) []int
}

// Engine is our method: decide.Decide under a policy.
func Engine(name string, p decide.Policy) Method {
	return Method{Name: name, New: func(groups []Group) Detector {
		e := &engine{policy: p, index: map[group.ID]int{}}
		for i := range groups {
			e.index[groups[i].ID()] = i
		}
		e.input.Homes = map[group.Color]string{canary: semconv.PoolCanary}
		e.input.Isolatable = map[string]bool{semconv.ServiceCore: true}
		return e
	}}
}

// epoch is when runs start; nothing depends on it.
var epoch = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

type engine struct {
	policy decide.Policy
	state  decide.State
	input  decide.Input
	index  map[group.ID]int
	busy   bool // the state has something to go on with
	whole  bool // call Decide every time: for the test that the shortcut changes nothing
}

// longEvery is how many short windows the control plane measures for one long one.
const longEvery = 4

// Look implements [Detector]. Where no group breaks an objective in the windows that end now,
// and nothing is under way, Decide decides nothing by its contract, and a run of days
// would spend its time on that: it is not called.
func (e *engine) Look(now time.Duration, b *board) []int {
	if b.newest < 0 {
		return nil
	}
	if now/Tick%longEvery == 0 {
		e.input.Long = nil // measured when it is needed, as of then
	}
	if !e.whole && !e.busy && e.calm(b) {
		return nil
	}
	e.input.Now = epoch.Add(now)
	e.input.Newest = epoch.Add(seconds(b.newest))
	if e.policy.QuickWindow > 0 {
		e.input.Quick = b.stats(&b.quick, now, epoch)
	}
	e.input.Short = b.stats(&b.short, now, epoch)
	if e.input.Long == nil {
		e.input.Long = b.stats(&b.long, now, epoch)
	}
	decisions, next := decide.Decide(e.policy, e.state, e.input)
	e.state = next
	e.busy = false
	for _, g := range next.Groups {
		e.busy = e.busy || g.Pool != "" || g.Bad > 0 || g.Shed > 0 || g.Held != "" || g.Manual
	}
	var out []int
	for _, d := range decisions {
		if d.Action == decide.Isolate {
			out = append(out, e.index[d.Group])
		}
	}
	return out
}

// calm says that no group breaks an objective in the quick or the short window.
func (e *engine) calm(b *board) bool {
	return e.keeps(&b.quick) && e.keeps(&b.short)
}

func (e *engine) keeps(w *window) bool {
	for i := range w.groups {
		c := &w.groups[i]
		st := sli.Stats{Requests: uint64(c.requests + c.lost), Errors: uint64(c.errors + c.lost)}
		if st.ErrorRatio() > e.policy.MaxErrorRatio || c.slow > c.requests-rank(c.requests, 0.95) {
			return false
		}
	}
	return true
}
