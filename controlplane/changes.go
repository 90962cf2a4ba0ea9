package controlplane

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/policy"
)

const (
	// changedWithin is how long before a fault what changed is a possible cause.
	changedWithin = 5 * time.Minute
	maxChanges    = 3   // said of one decision
	maxJoined     = 100 // remembered
)

// changed is something that happened to services.
type changed struct {
	at      time.Time
	what    string // a sentence
	touches func(decide.Pool) bool
}

// justBefore says what changed where an isolated group was bad, shortly before it first was,
// the newest first. What changed in the first bad window counts: the fault may have begun at
// the end of it.
func justBefore(d decide.Decision, changes []changed) []string {
	if d.FirstBad.IsZero() || d.Thresholds == nil {
		return nil
	}
	changes = slices.DeleteFunc(slices.Clone(changes), func(c changed) bool {
		before := d.FirstBad.Sub(c.at)
		return before > changedWithin || before < -d.Thresholds.ShortWindow || !c.touches(decide.Pool{Service: d.Service, Name: d.FromPool})
	})
	slices.SortStableFunc(changes, func(a, b changed) int { return b.at.Compare(a.at) })
	var out []string
	for _, c := range changes[:min(maxChanges, len(changes))] {
		when := "as it began"
		if before := d.FirstBad.Sub(c.at).Round(time.Second); before > 0 {
			when = before.String() + " before"
		}
		out = append(out, c.what+" "+when)
	}
	return out
}

// changes are all that is known of.
func (l *loop) changes() []changed {
	out := slices.Clone(l.joined)
	for _, c := range l.updates() {
		out = append(out, changed{at: c.At, what: inForce(c.Revision), touches: func(p decide.Pool) bool { return c.Services[p.Service] }})
	}
	return out
}

func inForce(r decide.RevisionChange) string {
	switch {
	case r.To > 0:
		return fmt.Sprintf("%s revision %d came into force", r.What(), r.To)
	case r.Settings != "":
		return r.What() + " were removed"
	}
	return "another policy came into force"
}

// joined are the instances that a reading of endpoints has and the one before had not, by
// pool.
func joined(before, now policy.Endpoints, at time.Time) []changed {
	var out []changed
	for _, service := range slices.Sorted(maps.Keys(now.Services)) {
		for _, pool := range slices.Sorted(maps.Keys(now.Services[service])) {
			instances := slices.DeleteFunc(slices.Clone(now.Services[service][pool]), func(i string) bool {
				return slices.Contains(before.Services[service][pool], i)
			})
			if len(instances) == 0 {
				continue
			}
			what := fmt.Sprintf("instance %s of pool %s joined", instances[0], pool)
			if more := len(instances) - 1; more > 0 {
				what = fmt.Sprintf("instance %s of pool %s and %d more joined", instances[0], pool, more)
			}
			here := decide.Pool{Service: service, Name: pool}
			out = append(out, changed{at: at, what: what, touches: func(p decide.Pool) bool { return p == here }})
		}
	}
	return out
}
