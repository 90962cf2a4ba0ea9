package load

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// held is a run in which everything was as promised, at the very limits.
func held() ([]Mark, []GroupReport) {
	fine := Figures{Requests: 10, Attempts: 10}
	phases := Phases{Before: fine, Fault: fine, Isolated: fine, After: fine}
	hurt := Figures{Requests: 40, Attempts: 60, Errors5xx: 20, ErrorsTransport: 1}
	return []Mark{
			{Event: EventFaultOn, Time: at(10)},
			{Event: EventDecision, Time: at(13)},
			{Event: EventProgrammed, Time: at(13.3)},
			{Event: EventSocketsMoved, Time: at(14)},
			{Event: EventRelease, Time: at(40), Note: "by policy"},
			{Event: EventFirstReleased, Time: at(41)},
			{Event: EventSocketsBack, Time: at(42)},
		}, []GroupReport{
			{Name: "hurt", Faulty: true, Phases: phases, Total: hurt, Messages: Messages{Accepted: 5}},
			{Name: "other", Phases: phases, Total: fine, Messages: Messages{Accepted: 5}},
		}
}

func TestCirclePromises(t *testing.T) {
	without := func(event string) func([]Mark, []GroupReport) {
		return func(m []Mark, _ []GroupReport) {
			for i := range m {
				if m[i].Event == event {
					m[i].Time = time.Time{}
				}
			}
		}
	}
	for _, tt := range []struct {
		name   string
		change func([]Mark, []GroupReport)
		broken []string
	}{
		{"all held, at the limits", func([]Mark, []GroupReport) {}, nil},
		{"decided a millisecond late", func(m []Mark, _ []GroupReport) { m[1].Time = at(13.001) }, []string{"decision"}},
		{"programmed a millisecond late", func(m []Mark, _ []GroupReport) { m[2].Time = at(13.301) }, []string{"programmed"}},
		{"never decided", without(EventDecision), []string{"decision", "programmed"}},
		{"never acknowledged", without(EventProgrammed), []string{"programmed"}},
		{"a socket stayed", without(EventSocketsMoved), []string{"sockets", "healed"}},
		{"a socket was dropped", func(_ []Mark, g []GroupReport) { g[1].Sockets.Dropped = 1 }, []string{"sockets"}},
		{"lost", func(_ []Mark, g []GroupReport) { g[0].Messages.Lost = 1 }, []string{"messages"}},
		{"duplicated", func(_ []Mark, g []GroupReport) { g[1].Messages.Duplicated = 1 }, []string{"messages"}},
		{"out of order", func(_ []Mark, g []GroupReport) { g[1].Messages.OutOfOrder = 1 }, []string{"messages"}},
		{"no messages prove nothing", func(_ []Mark, g []GroupReport) { g[0].Messages.Accepted, g[1].Messages.Accepted = 0, 0 }, []string{"messages"}},
		{"another group sees a 5xx", func(_ []Mark, g []GroupReport) { g[1].Total.Errors5xx = 1 }, []string{"others"}},
		{"another group sees a reset", func(_ []Mark, g []GroupReport) { g[1].Total.ErrorsTransport = 1 }, []string{"others"}},
		{"errors while isolated", func(_ []Mark, g []GroupReport) { g[0].Phases.Isolated.Errors5xx = 1 }, []string{"healed"}},
		{"not released", without(EventFirstReleased), []string{"released"}},
		{"a socket did not come back", without(EventSocketsBack), []string{"released"}},
		{"the lab fell behind", func(_ []Mark, g []GroupReport) { g[1].Total.Shed = 1 }, []string{"pace"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			marks, groups := held()
			tt.change(marks, groups)
			promises := circlePromises(marks, groups, DefaultConfig().Limits)
			if diff := cmp.Diff(tt.broken, brokenKeys(promises)); diff != "" {
				t.Errorf("broken (-want +got):\n%s", diff)
			}
			if allHeld(promises) != (tt.broken == nil) {
				t.Errorf("allHeld = %v", allHeld(promises))
			}
			for _, p := range promises {
				if p.Claim == "" || p.Measured == "" {
					t.Errorf("promise %s says nothing: %+v", p.Key, p)
				}
			}
		})
	}
	if allHeld(nil) {
		t.Error("no promises are all held")
	}
}

func TestTimeline(t *testing.T) {
	got := timeline(at(10), []Mark{{Event: EventLoadOn, Time: at(0)}, {Event: EventDecision, Time: at(11.5)}, {Event: EventRelease}})
	want := []Mark{{Event: EventLoadOn, Time: at(0), AfterFault: -10_000}, {Event: EventDecision, Time: at(11.5), AfterFault: 1500}, {Event: EventRelease}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestArrived(t *testing.T) {
	events := []socketEvent{
		{who: "a", kind: "opened", time: at(0), pool: "canary"},
		{who: "b", kind: "opened", time: at(0), pool: "canary"},
		{who: "a", kind: "moved", time: at(5), pool: "isolated"},
		{who: "b", kind: "moved", time: at(6), pool: "isolated"},
		{who: "b", kind: "moved", time: at(7), pool: "canary"},
	}
	if last, n, ok := arrived(events[:4], 2, "isolated", at(1)); !last.Equal(at(6)) || n != 2 || !ok {
		t.Errorf("got %v, %d, %v; want all by %v", last, n, ok, at(6))
	}
	if _, n, ok := arrived(events, 2, "isolated", at(1)); n != 1 || ok {
		t.Errorf("%d there, %v: one has left again", n, ok)
	}
	if _, n, _ := arrived(events, 2, "canary", at(1)); n != 1 {
		t.Errorf("%d there: what was before does not count", n)
	}
}
