package controlplane

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

// Warmer makes room in pools before a group comes: more pods, or processes. It is asked
// for a group's whole path at once, and may do nothing.
type Warmer interface {
	// Warm asks that each pool can serve so many requests a second more, for a while. It
	// is asked again with what is new, and never told that room is not needed any more.
	Warm(ctx context.Context, id group.ID, room []decide.Load, during time.Duration) error
}

// Path is every pool that serves a group's requests, as its traces show; the most asked
// first, and none where there are no traces.
type Path func(ctx context.Context, of group.ID) ([]sli.Hop, error)

const (
	maxWarms    = 16
	warmTimeout = 10 * time.Second

	// pathEvery is how often a group's path is asked for: it changes with releases, not
	// with load.
	pathEvery   = 10 * time.Second
	pathTimeout = 2 * time.Second
	maxPaths    = 256
)

// warms hands requests for room to a warmer, one at a time and outside of the loop. Before
// that it asks the group's traces whom its requests reach, since the decision knows only
// the services that they come in at: a decision does not wait for a trace, and its record
// gets the rest afterwards. (Paths of all groups as an input of each decision lost: a query
// for each group, for decisions that are hardly ever taken.)
type warms struct {
	warmer  Warmer // nil: room is recorded and not asked for
	path    Path   // nil: room is what the decision says
	metrics *metrics
	log     *slog.Logger
	asked   chan warmRequest
	found   chan foundRoom
	paths   map[group.ID]knownPath // run's
}

// warmRequest is a decision that asks for room, and which services have an isolated pool.
type warmRequest struct {
	decision   decide.Decision
	isolatable map[string]bool
}

// foundRoom is the room that a decision asks for along the whole path.
type foundRoom struct {
	id   string
	room []decide.Load
}

type knownPath struct {
	at   time.Time
	hops []sli.Hop
}

func newWarms(w Warmer, path Path, m *metrics, log *slog.Logger) *warms {
	return &warms{
		warmer: w, path: path, metrics: m, log: log,
		asked: make(chan warmRequest, maxWarms), found: make(chan foundRoom), paths: map[group.ID]knownPath{},
	}
}

// ask never blocks: where too many wait, this one is not asked for, counted.
func (w *warms) ask(d decide.Decision, isolatable map[string]bool) {
	if w.warmer == nil && w.path == nil || len(d.Room) == 0 {
		return
	}
	select {
	case w.asked <- warmRequest{d, isolatable}:
	default:
		w.metrics.warms.WithLabelValues("dropped_queue_full").Inc()
	}
}

func (w *warms) run(ctx context.Context) error {
	for {
		var r warmRequest
		select {
		case r = <-w.asked:
		case <-ctx.Done():
			return nil
		}
		room := decide.Along(r.decision, w.hops(ctx, r.decision.Group, time.Now()), r.isolatable)
		if !slices.Equal(room, r.decision.Room) {
			select {
			case w.found <- foundRoom{r.decision.ID, room}:
			case <-ctx.Done():
				return nil
			}
		}
		if w.warmer != nil {
			r.decision.Room = room
			w.warm(ctx, r.decision)
		}
	}
}

// hops is a group's path. Where traces are not to be had the last answer counts.
func (w *warms) hops(ctx context.Context, of group.ID, now time.Time) []sli.Hop {
	if w.path == nil {
		return nil
	}
	last, known := w.paths[of]
	if known && now.Sub(last.at) < pathEvery {
		return last.hops
	}
	ctx, cancel := context.WithTimeout(ctx, pathTimeout)
	defer cancel()
	hops, err := w.path(ctx, of)
	if err != nil {
		w.metrics.paths.WithLabelValues("failed").Inc()
		w.log.Warn("whom a group's requests reach is not known", semconv.Group, string(of), "error", err)
		return last.hops
	}
	result := "found"
	if len(hops) == 0 {
		result = "nothing_found"
	}
	w.metrics.paths.WithLabelValues(result).Inc()
	if !known && len(w.paths) >= maxPaths {
		clear(w.paths) // they are asked for again
	}
	w.paths[of] = knownPath{now, hops}
	return hops
}

// addRoom adds to a decision the room that it asks for along its group's path.
func (l *loop) addRoom(f foundRoom) {
	l.supplement(f.id, func(d *decide.Decision) { d.Room = f.room })
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
