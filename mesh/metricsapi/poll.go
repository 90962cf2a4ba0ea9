package metricsapi

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// Stats measures groups.
type Stats interface {
	// GroupStats returns what was counted in the window, by group, service and pool.
	GroupStats(ctx context.Context, w sli.Window, ignore ...string) ([]sli.Stats, error)
}

// Poller asks for statistics again and again, so that no answer waits for them and
// many autoscalers cost as much as one.
type Poller struct {
	Stats  Stats
	Every  time.Duration // 250 ms where zero, as often as the control plane decides
	Window time.Duration // 2 s where zero
	// Delay is how long ago the window ends: telemetry of the last moment is on its way.
	Delay time.Duration
	Log   *slog.Logger

	// Measured is sent to, where it is not nil and has room, with each new snapshot.
	Measured chan<- struct{}

	last atomic.Pointer[Snapshot]
}

// Run works until ctx is done. A failed query leaves the last snapshot, which gets stale.
func (p *Poller) Run(ctx context.Context) error {
	every, window := p.Every, p.Window
	if every <= 0 {
		every = 250 * time.Millisecond
	}
	if window <= 0 {
		window = 2 * time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	failing := false
	for {
		to := time.Now().Add(-p.Delay)
		w := sli.Window{From: to.Add(-window), To: to}
		ask, cancel := context.WithTimeout(ctx, max(2*every, time.Second))
		stats, err := p.Stats.GroupStats(ask, w)
		cancel()
		switch {
		case err == nil:
			p.last.Store(&Snapshot{Window: w, Stats: stats})
			select {
			case p.Measured <- struct{}{}: // a nil channel never has room
			default:
			}
		case !failing && ctx.Err() == nil:
			p.Log.Warn("statistics are not to be had, metrics get stale", "error", err)
		}
		failing = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Rate is requests a second of a pool, of one group where it is not empty. It fails where
// nothing is newer than staleAfter.
func (p *Poller) Rate(service, pool string, of group.ID, staleAfter time.Duration) (float64, error) {
	v, err := p.Last().Value(QPS, Selection{Service: service, Pool: pool, Group: of}, time.Now(), staleAfter)
	return float64(v.Milli) / 1000, err
}

// Last is the newest snapshot.
func (p *Poller) Last() Snapshot {
	if s := p.last.Load(); s != nil {
		return *s
	}
	return Snapshot{}
}
