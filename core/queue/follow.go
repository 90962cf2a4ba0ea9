package queue

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Follower reads the log behind the consumer that stores: it is told which conversations
// have records, once those have been stored or buried. It has a group of its own, so that
// each of several followers hears of everything, and goes on after a restart where it was.
//
// That something is stored it knows by the offsets that the storing group has committed.
// (Asking the store for each record lost: of one that was refused there is nothing.)
type Follower struct {
	cfg     Config // of the storing group
	brokers []kgo.Opt
	group   string
	wait    time.Duration
	lag     *prometheus.GaugeVec
	fails   prometheus.Counter
	log     *slog.Logger
}

// NewFollower prepares a follower under a group's name; that of its metrics begins with
// metrics.
func NewFollower(cfg Config, group, metrics string, reg prometheus.Registerer, log *slog.Logger) (*Follower, error) {
	brokers, err := cfg.connection()
	if err != nil {
		return nil, fmt.Errorf("new kafka follower: %w", err)
	}
	f := &Follower{
		cfg: cfg, brokers: brokers, group: group, wait: 100 * time.Millisecond, log: log,
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: metrics + "_lag_records", Help: "Records between the end of a partition and what was taken up, at the last fetch.",
		}, []string{"partition"}),
		fails: prometheus.NewCounter(prometheus.CounterOpts{Name: metrics + "_follow_errors_total", Help: "Times the log could not be followed; it is tried on."}),
	}
	if err := register(reg, f.lag, f.fails); err != nil {
		return nil, fmt.Errorf("register follower metrics: %w", err)
	}
	return f, nil
}

// Run calls each for batches of conversations, each once in a batch, until ctx is done.
// Where each fails, the batch comes again after a pause.
func (f *Follower) Run(ctx context.Context, each func(ctx context.Context, conversations []string) error) error {
	pause := f.cfg.Backoff
	for ctx.Err() == nil {
		start := time.Now()
		err := f.follow(ctx, each)
		if ctx.Err() != nil {
			break
		}
		f.fails.Inc()
		f.log.Warn("following the log, trying on", "error", err)
		if time.Since(start) > time.Minute {
			pause = f.cfg.Backoff
		}
		if sleep(ctx, pause) != nil {
			break
		}
		pause = min(2*pause, 20*f.cfg.Backoff)
	}
	return nil
}

func (f *Follower) follow(ctx context.Context, each func(context.Context, []string) error) error {
	client, err := kgo.NewClient(append(slices.Clone(f.brokers),
		kgo.ConsumerGroup(f.group),
		kgo.ConsumeTopics(f.cfg.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(f.cfg.Session),
		kgo.HeartbeatInterval(min(f.cfg.Session/4, time.Second)),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		// What comes is gathered for a moment: a batch costs its taker much the same whatever
		// is in it.
		kgo.FetchMinBytes(64<<10), kgo.FetchMaxWait(250*time.Millisecond),
		kgo.FetchMaxPartitionBytes(1<<20),
		kgo.WithLogger(franzLogger{f.log}),
	)...)
	if err != nil {
		return fmt.Errorf("new kafka follower: %w", err)
	}
	defer client.CloseAllowingRebalance()
	for {
		fetches := client.PollRecords(ctx, f.cfg.Batch)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		f.behind(fetches, func(records []*kgo.Record) int64 { return records[0].Offset })
		records := fetches.Records()
		if err := f.stored(ctx, kadm.NewClient(client), fetches); err != nil {
			return err
		}
		if err := each(ctx, conversationsOf(records)); err != nil {
			return err
		}
		if err := f.commit(ctx, client, records); err != nil {
			return err
		}
		f.behind(fetches, func(records []*kgo.Record) int64 { return records[len(records)-1].Offset + 1 })
		client.AllowRebalance()
	}
}

// behind sets the lag of the partitions of a fetch, by how far each is done.
func (f *Follower) behind(fetches kgo.Fetches, done func([]*kgo.Record) int64) {
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) > 0 {
			f.lag.WithLabelValues(strconv.Itoa(int(p.Partition))).Set(float64(max(p.HighWatermark-done(p.Records), 0)))
		}
	})
}

// commit goes on after ctx is done, or what was taken up would come again.
func (f *Follower) commit(ctx context.Context, client *kgo.Client, records []*kgo.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.cfg.Timeout)
	defer cancel()
	if err := client.CommitRecords(ctx, records...); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

func conversationsOf(records []*kgo.Record) []string {
	var out []string
	seen := map[string]bool{}
	for _, r := range records {
		if key := string(r.Key); !seen[key] {
			seen[key] = true
			out = append(out, key)
		}
	}
	return out
}

// stored waits until the storing group has committed what was fetched. It gives up after
// a while, so that the membership does not outlive a broken store: the same is fetched
// again then.
func (f *Follower) stored(ctx context.Context, admin *kadm.Client, fetches kgo.Fetches) error {
	want := map[int32]int64{}
	fetches.EachRecord(func(r *kgo.Record) { want[r.Partition] = max(want[r.Partition], r.Offset+1) })
	ctx, cancel := context.WithTimeout(ctx, 3*f.cfg.Session)
	defer cancel()
	for len(want) > 0 {
		offsets, err := admin.FetchOffsets(ctx, f.cfg.Group)
		if err != nil {
			return fmt.Errorf("read what is stored: %w", err)
		}
		for partition, offset := range want {
			if at, ok := offsets.Lookup(f.cfg.Topic, partition); ok && at.At >= offset {
				delete(want, partition)
			}
		}
		if len(want) > 0 {
			if err := sleep(ctx, f.wait); err != nil {
				return fmt.Errorf("wait until it is stored: %w", err)
			}
		}
	}
	return nil
}
