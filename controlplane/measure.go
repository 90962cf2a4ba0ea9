package controlplane

import (
	"context"
	"slices"
	"time"

	"github.com/tracegate/tracegate/observability/sli"
)

// StatsSource measures groups.
type StatsSource interface {
	// GroupStats returns what was counted in the window, by group, service and pool.
	// Requests of the routes to ignore are not counted.
	GroupStats(ctx context.Context, w sli.Window, ignore ...string) ([]sli.Stats, error)
	// Watermark is until when all that was received is in the statistics; zero: not known.
	Watermark(ctx context.Context) (time.Time, error)
}

// SaturationSource measures pools.
type SaturationSource interface {
	// Saturation returns how full pools were in the window, by service, pool and resource.
	// Pools that said nothing are not there.
	Saturation(ctx context.Context, w sli.Window) ([]sli.Saturation, error)
}

// EdgeSource measures edges. It is asked while a policy is on trial only.
type EdgeSource interface {
	// EdgeStats returns what came in at each edge in the window, by service and route.
	EdgeStats(ctx context.Context, w sli.Window) ([]sli.EdgeStats, error)
}

// measurement is what one evaluation looks at.
type measurement struct {
	quick, short, long []sli.Stats
	watermark          time.Time // zero where it was not asked for: the statistics are new enough
	err                error
	trial              edgesMeasured
	saturation         []sli.Saturation // measured after the statistics of a look before
}

// edgesMeasured is what came in at edges since one of them has a policy that is on trial,
// and for as long before.
type edgesMeasured struct {
	of            trialWindow // zero: nothing was asked for
	since, before []sli.EdgeStats
	err           error
}

// trialWindow is when a trial began to count, and what to compare that with: before it and
// not after until; zero: there is none.
type trialWindow struct{ before, until, since time.Time }

// windows is how far back to look, and at what not; the owner changes it with the policy.
type windows struct {
	quick, short, long time.Duration // quick may be 0
	fresh              time.Duration // for how long what pools say of themselves counts
	ignore             []string      // routes
	trial              trialWindow
}

func (w windows) equal(o windows) bool {
	return w.quick == o.quick && w.short == o.short && w.long == o.long && w.fresh == o.fresh && slices.Equal(w.ignore, o.ignore) && w.trial == o.trial
}

// longEvery is how many short windows are measured for one long one: it changes
// slowly and costs more. Pools say of themselves how full they are as often.
const longEvery = 4

// measure queries one window after the other, never two at a time, so a slow
// store is asked less often and not more.
func measure(ctx context.Context, cfg Config, deps Deps, metrics *metrics, want <-chan windows, out chan<- measurement) error {
	tick := time.NewTicker(cfg.Evaluate)
	defer tick.Stop()
	var (
		w      windows
		stats  = deps.Stats
		long   []sli.Stats
		trials edgesMeasured
		full   []sli.Saturation
		n      int
	)
	// What can happen: other windows are wanted, it is time to measure, the end.
	for {
		select {
		case w = <-want:
			n = 0
			continue
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if w.short == 0 {
			continue // no policy yet
		}
		var m measurement
		now, slowly := time.Now(), n%longEvery == 0
		if slowly {
			long, m.err = query(ctx, cfg.StatsTimeout, stats, now, w.long, w.ignore)
		}
		if m.err == nil && w.quick > 0 {
			m.quick, m.err = query(ctx, cfg.StatsTimeout, stats, now, w.quick, w.ignore)
		}
		if m.err == nil {
			m.short, m.err = query(ctx, cfg.StatsTimeout, stats, now, w.short, w.ignore)
		}
		if m.err == nil && !fresh(m.short, now) {
			m.watermark, m.err = watermark(ctx, cfg.StatsTimeout, stats)
		}
		if deps.Edges != nil {
			trials = measureEdges(ctx, cfg.StatsTimeout, deps.Edges, now, w.trial, trials)
			m.trial = trials
		}
		m.long, m.saturation = long, full
		if n++; m.err != nil {
			n = 0
		}
		select {
		case out <- m:
		case <-ctx.Done():
			return nil
		}
		if slowly && deps.Saturation != nil { // no decision waits for it
			full = measurePools(ctx, cfg.StatsTimeout, deps.Saturation, now, w.fresh, metrics)
		}
	}
}

// measurePools is how full pools are; nothing where the source does not answer, counted:
// that stops no decision.
func measurePools(ctx context.Context, timeout time.Duration, pools SaturationSource, now time.Time, back time.Duration, m *metrics) []sli.Saturation {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	full, err := pools.Saturation(ctx, sli.Window{From: now.Add(-back), To: now})
	if err != nil {
		m.unsaturated.Inc()
		return nil
	}
	return full
}

// measureEdges measures for a trial; what was before it is asked for once.
func measureEdges(ctx context.Context, timeout time.Duration, edges EdgeSource, now time.Time, w trialWindow, last edgesMeasured) edgesMeasured {
	if w == (trialWindow{}) {
		return edgesMeasured{}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	out := edgesMeasured{of: w, before: last.before}
	if last.of != w || last.err != nil {
		out.before, out.err = edges.EdgeStats(ctx, sli.Window{From: w.before, To: w.until})
	}
	if out.err == nil {
		out.since, out.err = edges.EdgeStats(ctx, sli.Window{From: w.since, To: now})
	}
	return out
}

// fresh says whether statistics have a request of the last second.
func fresh(stats []sli.Stats, now time.Time) bool {
	return slices.ContainsFunc(stats, func(s sli.Stats) bool { return now.Sub(s.Newest) < time.Second })
}

func watermark(ctx context.Context, timeout time.Duration, stats StatsSource) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return stats.Watermark(ctx)
}

func query(ctx context.Context, timeout time.Duration, stats StatsSource, now time.Time, back time.Duration, ignore []string) ([]sli.Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return stats.GroupStats(ctx, sli.Window{From: now.Add(-back), To: now}, ignore...)
}
