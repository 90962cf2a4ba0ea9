package controlplane

import (
	"context"
	"log/slog"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// Warmer makes room in pools before a group comes: more pods, or processes. It is asked
// for a group's whole path at once, and may do nothing.
type Warmer interface {
	// Warm asks that each pool can serve so many requests a second more, for a while. It
	// is asked again with what is new, and never told that room is not needed any more.
	Warm(ctx context.Context, id group.ID, room []decide.Load, during time.Duration) error
}

const (
	maxWarms    = 16
	warmTimeout = 10 * time.Second
)

// warms hands requests for room to a warmer, one at a time and outside of the loop.
type warms struct {
	warmer  Warmer // nil: room is recorded and not asked for
	metrics *metrics
	log     *slog.Logger
	asked   chan decide.Decision
}

func newWarms(w Warmer, m *metrics, log *slog.Logger) *warms {
	return &warms{warmer: w, metrics: m, log: log, asked: make(chan decide.Decision, maxWarms)}
}

// ask never blocks: where too many wait, this one is not asked for, counted.
func (w *warms) ask(d decide.Decision) {
	if w.warmer == nil || len(d.Room) == 0 {
		return
	}
	select {
	case w.asked <- d:
	default:
		w.metrics.warms.WithLabelValues("dropped_queue_full").Inc()
	}
}

func (w *warms) run(ctx context.Context) error {
	for {
		select {
		case d := <-w.asked:
			w.warm(ctx, d)
		case <-ctx.Done():
			return nil
		}
	}
}

// defaultWarm is how long room is asked for where the decision has no end.
const defaultWarm = time.Minute

func (w *warms) warm(ctx context.Context, d decide.Decision) {
	ctx, cancel := context.WithTimeout(ctx, warmTimeout)
	defer cancel()
	during := d.For
	if during == 0 {
		during = defaultWarm
	}
	if err := w.warmer.Warm(ctx, d.Group, d.Room, during); err != nil {
		w.metrics.warms.WithLabelValues("failed").Inc()
		w.log.Warn("no room could be made for a group", semconv.Group, string(d.Group), "error", err)
		return
	}
	w.metrics.warms.WithLabelValues("asked").Inc()
}
