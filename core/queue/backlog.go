package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// lookEvery is how often the backlog is looked at: what is accepted in between may exceed
// the bound.
const lookEvery = time.Second

// Backlog is what was accepted and is not stored yet, by all processes together. Above a
// bound senders are refused, until a tenth less is left: a store that cannot keep up slows
// them down, and does not fall behind for as long as the log keeps records.
type Backlog struct {
	max     int64 // 0: none
	read    func(context.Context) (int64, error)
	refused prometheus.Counter
	fails   prometheus.Counter
	log     *slog.Logger
	records atomic.Int64
	full    atomic.Bool
}

// NewBacklog prepares a backlog of at most max records, 0 for any number. How many there
// are is read from Kafka by read; refused counts senders.
func NewBacklog(max int64, read func(context.Context) (int64, error), refused prometheus.Counter, reg prometheus.Registerer, log *slog.Logger) (*Backlog, error) {
	b := &Backlog{
		max: max, read: read, refused: refused, log: log,
		fails: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "core_queue_backlog_errors_total", Help: "Times it was not known how much is not stored yet; what was known last holds on.",
		}),
	}
	records := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "core_queue_backlog_records", Help: "Records in the log that are not stored yet, of all processes together.",
	}, func() float64 { return float64(b.records.Load()) })
	if err := register(reg, b.fails, records); err != nil {
		return nil, fmt.Errorf("register backlog metrics: %w", err)
	}
	return b, nil
}

// Run looks at the backlog about once a second until ctx is done.
func (b *Backlog) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for known := true; ; {
		err := b.Look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			b.fails.Inc()
		}
		if err != nil && known {
			b.log.Warn("look at what is not stored yet, trying on", "error", err)
		}
		known = err == nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Look reads once how much is not stored yet. Where it cannot, what was known last holds on.
func (b *Backlog) Look(ctx context.Context) error {
	n, err := b.read(ctx)
	if err != nil {
		return err
	}
	b.records.Store(n)
	switch full := b.full.Load(); {
	case !full && b.max > 0 && n > b.max:
		b.full.Store(true)
		b.log.Warn("messages are not stored fast enough, senders are refused", "records", n, "max", b.max)
	case full && n < b.max-b.max/10:
		b.full.Store(false)
		b.log.Info("messages are accepted again", "records", n)
	}
	return nil
}

// Full says that a sender must be refused, and counts it then.
func (b *Backlog) Full() bool {
	full := b.full.Load()
	if full {
		b.refused.Inc()
	}
	return full
}

// unstored is how many records of the topic the storing group has not committed. What
// retention has deleted is not among them.
func unstored(ctx context.Context, admin *kadm.Client, cfg Config) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	committed, err := admin.FetchOffsets(ctx, cfg.Group)
	if err == nil {
		err = committed.Error()
	}
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // nobody has stored anything yet
		return 0, fmt.Errorf("read what is stored: %w", err)
	}
	starts, ends, err := extent(ctx, admin, cfg.Topic)
	if err != nil {
		return 0, fmt.Errorf("read where the log ends: %w", err)
	}
	var n int64
	ends.Each(func(end kadm.ListedOffset) {
		var from int64
		if start, ok := starts.Lookup(cfg.Topic, end.Partition); ok {
			from = start.Offset
		}
		if at, ok := committed.Lookup(cfg.Topic, end.Partition); ok {
			from = max(from, at.At)
		}
		n += max(end.Offset-from, 0)
	})
	return n, nil
}
