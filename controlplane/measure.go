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
}

// measurement is what one evaluation looks at.
type measurement struct {
	short, long []sli.Stats
	err         error
}

// windows is how far back to look, and at what not; the owner changes it with the policy.
type windows struct {
	short, long time.Duration
	ignore      []string // routes
}

func (w windows) equal(o windows) bool {
	return w.short == o.short && w.long == o.long && slices.Equal(w.ignore, o.ignore)
}

// longEvery is how many short windows are measured for one long one: it changes
// slowly and costs more.
const longEvery = 4

// measure queries one window after the other, never two at a time, so a slow
// store is asked less often and not more.
func measure(ctx context.Context, cfg Config, stats StatsSource, want <-chan windows, out chan<- measurement) error {
	tick := time.NewTicker(cfg.Evaluate)
	defer tick.Stop()
	var (
		w    windows
		long []sli.Stats
		n    int
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
		now := time.Now()
		if n%longEvery == 0 {
			long, m.err = query(ctx, cfg.StatsTimeout, stats, now, w.long, w.ignore)
		}
		if m.err == nil {
			m.short, m.err = query(ctx, cfg.StatsTimeout, stats, now, w.short, w.ignore)
		}
		m.long = long
		if n++; m.err != nil {
			n = 0
		}
		select {
		case out <- m:
		case <-ctx.Done():
			return nil
		}
	}
}

func query(ctx context.Context, timeout time.Duration, stats StatsSource, now time.Time, back time.Duration, ignore []string) ([]sli.Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return stats.GroupStats(ctx, sli.Window{From: now.Add(-back), To: now}, ignore...)
}
