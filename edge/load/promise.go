package load

import (
	"fmt"
	"time"
)

// circlePromises holds what a run of [Circle] saw against what the product claims. It
// is pure. A moment that did not come breaks every promise about it.
func circlePromises(timeline []Mark, groups []GroupReport, l Limits) []Promise {
	at := func(event string) time.Time { return mark(timeline, event) }
	return []Promise{
		within("decision", "a bad group is isolated by decision", "the fault", at(EventFaultOn), at(EventDecision), l.Decision),
		within("programmed", "the edge has the new routes", "the decision", at(EventDecision), at(EventProgrammed), l.Programmed),
		messages(groups),
		othersUnharmed(groups),
		socketsMoved(at(EventSocketsMoved), groups),
		healed(at(EventSocketsMoved), groups),
		released(timeline),
		kept(groups),
	}
}

func within(key, claim, after string, from, to time.Time, limit time.Duration) Promise {
	p := Promise{Key: key, Claim: fmt.Sprintf("%s within %v of %s", claim, limit, after)}
	switch {
	case from.IsZero() || to.IsZero():
		p.Measured = "never"
	default:
		p.Measured = fmt.Sprintf("%.0f ms", ms(to.Sub(from)))
		p.Held = to.Sub(from) <= limit
	}
	return p
}

func messages(groups []GroupReport) Promise {
	var sum Messages
	ok := len(groups) > 0
	for _, g := range groups {
		m := g.Messages
		sum.Accepted += m.Accepted
		sum.Lost += m.Lost
		sum.Duplicated += m.Duplicated
		sum.OutOfOrder += m.OutOfOrder
		sum.Gaps += m.Gaps
		sum.Wrong += m.Wrong
		ok = ok && m.OK()
	}
	return Promise{
		Key:   "messages",
		Claim: "no accepted message is lost, duplicated or out of order",
		Measured: fmt.Sprintf("%d accepted: %d lost, %d duplicated, %d out of order, %d gaps, %d wrong",
			sum.Accepted, sum.Lost, sum.Duplicated, sum.OutOfOrder, sum.Gaps, sum.Wrong),
		Held: ok && sum.Accepted > 0,
	}
}

func othersUnharmed(groups []GroupReport) Promise {
	n5xx, transport, requests := 0, 0, 0
	for _, g := range groups {
		if !g.Faulty {
			n5xx += g.Total.Errors5xx
			transport += g.Total.ErrorsTransport
			requests += g.Total.Requests
		}
	}
	return Promise{
		Key:      "others",
		Claim:    "groups without the fault see no error",
		Measured: fmt.Sprintf("%d 5xx and %d transport errors in %d requests", n5xx, transport, requests),
		Held:     n5xx+transport == 0 && requests > 0,
	}
}

func socketsMoved(moved time.Time, groups []GroupReport) Promise {
	p := Promise{Key: "sockets", Claim: "all sockets of the bad group move to the isolated pool, none is dropped", Measured: "not all moved"}
	dropped := 0
	for _, g := range groups {
		dropped += g.Sockets.Dropped
	}
	if !moved.IsZero() {
		p.Measured = fmt.Sprintf("all moved, %d dropped in all groups", dropped)
		p.Held = dropped == 0
	}
	return p
}

func healed(moved time.Time, groups []GroupReport) Promise {
	p := Promise{Key: "healed", Claim: "the isolated group sees no error", Measured: "never isolated"}
	for _, g := range groups {
		if !g.Faulty || moved.IsZero() {
			continue
		}
		f := g.Phases.Isolated
		p.Measured = fmt.Sprintf("%d errors in %d requests, P95 %.0f ms", f.Errors(), f.Requests, f.P95)
		p.Held = f.Errors() == 0 && f.Requests > 0
	}
	return p
}

func released(timeline []Mark) Promise {
	p := Promise{Key: "released", Claim: "the group is released and served by its own pool again, sockets too", Measured: "not by the end"}
	switch {
	case mark(timeline, EventFirstReleased).IsZero():
	case mark(timeline, EventSocketsBack).IsZero():
		p.Measured = "requests yes, not all sockets"
	default:
		p.Measured, p.Held = "yes", true
		for _, m := range timeline {
			if m.Event == EventRelease && m.Note != "" { // the lab asks for it where policy would take too long
				p.Measured += ", " + m.Note
			}
		}
	}
	return p
}

func kept(groups []GroupReport) Promise {
	shed := 0
	for _, g := range groups {
		shed += g.Total.Shed
	}
	return Promise{
		Key:      "pace",
		Claim:    "the lab kept its pace (else its figures flatter)",
		Measured: fmt.Sprintf("%d requests not started", shed),
		Held:     shed == 0,
	}
}

func allHeld(promises []Promise) bool {
	for _, p := range promises {
		if !p.Held {
			return false
		}
	}
	return len(promises) > 0
}
