package controlplane

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/observability/semconv"
)

// WhySource looks for what the bad requests have in common that led to an isolation, and
// that the good ones have not: in their traces, for example.
type WhySource interface {
	// Why returns sentences, best first. The policy that decided says which requests are
	// bad, and which routes say nothing.
	Why(ctx context.Context, d decide.Decision, p decide.Policy) ([]string, error)
}

const (
	maxWhys    = 16
	whyTimeout = 5 * time.Second
)

// whys asks a source about decisions that have taken effect, one at a time and outside of
// the loop, which never waits for it.
type whys struct {
	source  WhySource // nil: none
	metrics *metrics
	log     *slog.Logger
	asked   chan question
	found   chan finding
}

type question struct {
	decision decide.Decision
	policy   decide.Policy
}

// finding is what became known of a decision; that nothing did, too.
type finding struct {
	id     string
	causes []string
}

func newWhys(source WhySource, m *metrics, log *slog.Logger) *whys {
	return &whys{source: source, metrics: m, log: log, asked: make(chan question, maxWhys), found: make(chan finding)}
}

// ask never blocks: where too many questions wait, this one is not asked, counted.
func (w *whys) ask(d decide.Decision, p decide.Policy) {
	if w.source == nil {
		return
	}
	select {
	case w.asked <- question{d, p}:
	default:
		w.metrics.whys.WithLabelValues("dropped_queue_full").Inc()
	}
}

// run answers until ctx is done.
func (w *whys) run(ctx context.Context) error {
	for {
		var q question
		select {
		case q = <-w.asked:
		case <-ctx.Done():
			return nil
		}
		causes, err := w.why(ctx, q)
		result := "found"
		switch {
		case err != nil:
			result, causes = "failed", nil
			w.log.Warn("no traces explain a decision", semconv.Group, string(q.decision.Group), "error", err)
		case len(causes) == 0:
			result = "nothing_found"
		}
		w.metrics.whys.WithLabelValues(result).Inc()
		select {
		case w.found <- finding{q.decision.ID, causes}:
		case <-ctx.Done():
			return nil
		}
	}
}

func (w *whys) why(ctx context.Context, q question) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, whyTimeout)
	defer cancel()
	return w.source.Why(ctx, q.decision, q.policy)
}

// addCauses adds to a decision what became known of it, whoever found it. One that the
// board has forgotten stays as it is.
func (l *loop) addCauses(f finding, now time.Time) {
	if len(f.causes) == 0 {
		return
	}
	l.supplement(f.id, func(d *decide.Decision) {
		d.Causes = slices.Clone(d.Causes)
		for _, c := range f.causes {
			if !slices.Contains(d.Causes, c) {
				d.Causes = append(d.Causes, c)
			}
		}
		l.log.Info("explained", semconv.Group, string(d.Group), "causes", f.causes, "after", now.Sub(d.Time).Round(time.Millisecond))
	})
}

// supplement adds to a decision that is on the board.
func (l *loop) supplement(id string, what func(*decide.Decision)) {
	if d, ok := l.board.Decision(id); ok {
		what(&d)
		l.amend(d)
	}
}
