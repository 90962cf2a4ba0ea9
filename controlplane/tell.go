package controlplane

import (
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
)

// tellWithin is how long after an isolation people are told of it where nothing explains it.
const tellWithin = 5 * time.Second

// untold is a decision that webhooks have not been given yet.
type untold struct {
	decision decide.Decision
	until    time.Time // when its causes are not waited for any more; zero: they are not
}

// tell has webhooks told of a decision. An isolation waits for its causes, and what comes
// behind it waits too: messages are in order. The journal has what waits when the process
// ends, and the next one sends it.
func (l *loop) tell(d decide.Decision) {
	u := untold{decision: d}
	if d.Action == decide.Isolate && d.By == decide.ByPolicy && len(d.Causes) == 0 {
		u.until = d.Time.Add(tellWithin)
	}
	l.untold = append(l.untold, u)
}

// tellDue gives webhooks what does not wait any more, with all that is known of it.
func (l *loop) tellDue(now time.Time) {
	for len(l.untold) > 0 && !l.untold[0].until.After(now) {
		d := l.untold[0].decision
		if known, ok := l.board.Decision(d.ID); ok {
			d = known
		}
		l.notifier.Add(d)
		l.untold = l.untold[1:]
	}
}

// nextTold is when something waits no more; zero: nothing does.
func (l *loop) nextTold() time.Time {
	if len(l.untold) == 0 {
		return time.Time{}
	}
	return l.untold[0].until
}

// answered ends the wait for the causes of a decision, unless none were found and probes may
// yet say some.
func (l *loop) answered(f finding) {
	if len(f.causes) == 0 && l.causes.source != nil {
		return
	}
	for i, u := range l.untold {
		if u.decision.ID == f.id {
			l.untold[i].until = time.Time{}
		}
	}
}
