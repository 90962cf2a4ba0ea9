// Package backtest plays stored statistics past decide.Decide, under any policy, and sets
// what it would have decided against what was. It is pure; `tracegate ctl backtest` reads
// the store for it.
//
// Five things differ from the past as it was lived. Every second is known whole when it is
// over, so decisions come sooner here than they did, by as long as requests took to end and
// to arrive. The traffic is as it was: a group that would have been isolated, and was not,
// goes on as badly, and one that was isolated is measured where it was then. Nothing is
// rolled back, as updates of the configuration are not played: a group that one made bad is
// isolated here. How full pools were is not played, so nothing is judged by it. And an operator's orders are not played, only shown: it is the policy that
// is asked.
package backtest

import (
	"slices"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// Setup is what decisions depend on besides statistics.
type Setup struct {
	Policy     decide.Policy
	Homes      map[group.Color]string
	Isolatable map[string]bool
}

// Player decides second by second. It is used by one goroutine.
type Player struct {
	setup              Setup
	quick, short, long window
	at                 time.Time    // start of the second that is being collected; zero: none yet
	current            []sli.Second // what was counted in it
	newest             time.Time    // until when requests were counted
	state              decide.State
	decided            []decide.Decision
}

// looks is how often a second is decided on, as the control plane does.
const looks = 4

// New returns a player. It acts, whatever mode the policy is in.
func New(s Setup) *Player {
	s.Policy.Mode, s.Policy.Groups = decide.ModeAct, slices.Clone(s.Policy.Groups)
	for i := range s.Policy.Groups {
		s.Policy.Groups[i].Mode = ""
	}
	return &Player{setup: s, quick: newWindow(s.Policy.QuickWindow), short: newWindow(s.Policy.ShortWindow), long: newWindow(s.Policy.LongWindow)}
}

// Add takes what was counted in one second. Seconds come in the order of time; what comes
// for one that is over is left out.
func (p *Player) Add(s sli.Second) {
	if p.at.IsZero() {
		p.at = s.Start
	}
	p.Until(s.Start)
	if s.Start.Equal(p.at) {
		p.current = append(p.current, s)
	}
}

// Until decides on every second that is over at t, seconds without requests too.
func (p *Player) Until(t time.Time) {
	for !p.at.IsZero() && p.at.Before(t) {
		p.quick.push(p.current)
		p.short.push(p.current)
		p.long.push(p.current)
		p.at = p.at.Add(time.Second)
		if len(p.current) > 0 {
			p.newest = p.at // all of it is known
		}
		p.current = nil
		p.decide(p.at)
	}
}

// Decided is what was decided until now, oldest first.
func (p *Player) Decided() []decide.Decision { return p.decided }

// decide looks at the windows that end at now, once where there is nothing to go on with.
func (p *Player) decide(now time.Time) {
	in := decide.Input{
		Quick: p.quick.stats(now), Short: p.short.stats(now), Long: p.long.stats(now), Newest: p.newest,
		Homes: p.setup.Homes, Isolatable: p.setup.Isolatable,
	}
	for look := range looks {
		in.Now = now.Add(time.Duration(look) * time.Second / looks)
		ds, next := decide.Decide(p.setup.Policy, p.state, in)
		p.state = next
		p.decided = append(p.decided, ds...)
		if len(ds) == 0 && p.calm() {
			return
		}
	}
}

// calm says that no group is away or on its way.
func (p *Player) calm() bool {
	for _, g := range p.state.Groups {
		if g.Pool != "" || g.Shed > 0 || g.Bad > 0 {
			return false
		}
	}
	return true
}
