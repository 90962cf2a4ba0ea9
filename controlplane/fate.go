package controlplane

import (
	"bytes"
	"maps"

	"github.com/tracegate/tracegate/controlplane/source"
)

// fate is what became of the policy that is wanted.
func (l *loop) fate() source.Fate {
	f := source.Fate{Wanted: l.wanted.rawPolicy}
	if l.good != nil {
		f.InForce = l.good.wish.rawPolicy
	}
	switch {
	case l.undone.raw != nil && bytes.Equal(l.undone.raw, f.Wanted):
		f.Refused = "taken back: " + l.undone.why.Why
	case l.bad.rawPolicy != nil && l.rejection != nil:
		f.Refused = why(*l.rejection)
	case l.refused != "":
		f.Refused = l.refused
	}
	for rule, h := range l.held {
		if f.Held == nil {
			f.Held = map[string]string{}
		}
		f.Held[rule.Service+"/"+rule.Name] = why(h.Nack)
	}
	return f
}

// tellFate tells who laid resources over the policy what became of it. Only the newest
// counts: what was not taken yet is replaced.
func (l *loop) tellFate() {
	if l.fates == nil {
		return
	}
	f := l.fate()
	if t := l.told; bytes.Equal(f.Wanted, t.Wanted) && bytes.Equal(f.InForce, t.InForce) && f.Refused == t.Refused && maps.Equal(f.Held, t.Held) {
		return
	}
	l.told = f
	select {
	case <-l.fates:
	default:
	}
	l.fates <- f // it has room, and nobody else sends
}
