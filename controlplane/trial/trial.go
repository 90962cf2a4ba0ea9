// Package trial says how a policy is tried on one edge before the others get it: which
// edge, for how long, and what ends it. It is pure: controlplane feeds it what edges
// answered and what was measured, and carries out what it returns.
//
// # The life of a trial
//
// A policy that is new goes to one edge ([Config.Choose]). Once that has acknowledged all
// of it, it is watched for [Config.Watch]. The trial fails at the first of these, and the
// edge gets back what the others have:
//
//   - it refuses a part of the policy; what is refused of a policy that is on trial takes
//     all of it back, so that there is one thing to mend and nothing half in force;
//   - it does not acknowledge it within [Config.Answer];
//   - its clients get more errors (5xx, or no answer) than those of the other edges in the
//     same seconds and than its own did before, as sure as the policy's objectives ask of
//     a decision ([Judge]);
//   - it is away when the time is up, or has still not acknowledged what came meanwhile:
//     an Envoy that a policy kills must not take the next one with it.
//
// Else it passes when the time is up. That little or nothing was measured is no reason to
// fail: nobody was hurt, or nobody knows; an update that is bad for a group is still taken
// back later (decide.RollBack). To wait for enough requests lost: at night no policy would
// ever be in force.
//
// Only policies are tried. Endpoints, certificates and the moves of groups are urgent and
// known to be right or wrong by others; they go to all edges at once, planned with the
// policy on trial for the one edge and with the present policy for the others. So does a
// policy that was in force once: going back must be quick.
//
// A share of each edge's requests, instead of one edge, lost: what Envoy refuses or dies of
// is of a process. One edge after the other lost, too: a change would take the time of all
// of them, and the second says little that the first did not.
package trial

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Config is how policies are tried.
type Config struct {
	Watch  time.Duration // after the edge has it all; 0: policies are not tried
	Answer time.Duration // that the edge may take to acknowledge
	Edges  []string      // that are taken first, the first that is connected; may be empty
}

// Edge is what is known of an edge.
type Edge struct {
	ID        string
	Connected bool
	InSync    bool   // it has acknowledged all that it should have
	Refused   string // why it refused a part of that; empty: it has not
}

// Choose is the edge that a policy is tried on: the first of Edges that is connected, else
// the one whose id comes first of those that are in sync, else of all that are connected.
// It is the same each time, so that who looks for it knows where. ok is false where none
// is connected: then the trial waits for one.
//
// (The edge with the least traffic lost: it is the one that says least. Drawing one lost:
// everybody's users would be the first in turn, and nobody could say whose.)
func (c Config) Choose(edges []Edge) (id string, ok bool) {
	connected := slices.DeleteFunc(slices.Clone(edges), func(e Edge) bool { return !e.Connected })
	if len(connected) == 0 {
		return "", false
	}
	rank := func(e Edge) int {
		switch i := slices.Index(c.Edges, e.ID); {
		case i >= 0:
			return i
		case e.InSync:
			return len(c.Edges)
		}
		return len(c.Edges) + 1
	}
	return slices.MinFunc(connected, func(a, b Edge) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	}).ID, true
}

// Trial is one that is under way.
type Trial struct {
	Edge  string
	Since time.Time // it was given the policy
	Acked time.Time // it had all of it; zero: not yet
}

// Verdict is what became of a trial.
type Verdict int

// The verdicts.
const (
	GoesOn Verdict = iota
	Passed
	Failed
)

// Next is the trial after a look at its edge and at what was measured since it has the
// policy, and the verdict with why.
func (t Trial) Next(c Config, now time.Time, e Edge, f Finding) (_ Trial, v Verdict, why string) {
	if t.Acked.IsZero() && e.Connected && e.InSync {
		t.Acked = now
	}
	due := t.Due(c)
	switch {
	case e.Refused != "":
		return t, Failed, e.Refused
	case t.Acked.IsZero():
		if now.Before(due) {
			return t, GoesOn, ""
		}
		if !e.Connected {
			return t, Failed, fmt.Sprintf("edge %s went away when it was given the policy", t.Edge)
		}
		return t, Failed, fmt.Sprintf("edge %s has not acknowledged the policy within %s", t.Edge, c.Answer)
	case f.Bad:
		return t, Failed, fmt.Sprintf("edge %s, which had the policy for %s: %s", t.Edge, now.Sub(t.Acked).Round(100*time.Millisecond), f.Words)
	case now.Before(due):
		return t, GoesOn, ""
	case !e.Connected:
		return t, Failed, fmt.Sprintf("edge %s went away while it had the policy", t.Edge)
	case !e.InSync && now.Before(due.Add(c.Answer)):
		return t, GoesOn, ""
	case !e.InSync:
		return t, Failed, fmt.Sprintf("edge %s has not acknowledged what came while it had the policy", t.Edge)
	}
	return t, Passed, fmt.Sprintf("edge %s had the policy for %s: %s", t.Edge, c.Watch, f.Words)
}

// Due is when the trial needs a look though nothing has happened.
func (t Trial) Due(c Config) time.Time {
	if t.Acked.IsZero() {
		return t.Since.Add(c.Answer)
	}
	return t.Acked.Add(c.Watch)
}
