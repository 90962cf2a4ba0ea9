package fanout

import (
	"context"
	"slices"

	"github.com/redis/go-redis/v9"
)

// Publish sends pushes to the processes that have their users. It never waits: what
// does not fit into the queue, or cannot be sent, is dropped and counted, and the
// sessions that miss it find it in the store. Pushes of one caller keep their order.
func (f *Fanout) Publish(pushes []Push) {
	if len(pushes) == 0 {
		return
	}
	if f.queued.Add(int64(len(pushes))) <= int64(f.cfg.Queue) {
		select {
		case f.out <- pushes:
			return
		default:
		}
	}
	f.queued.Add(-int64(len(pushes)))
	f.metrics.dropped.WithLabelValues("full").Add(float64(len(pushes)))
}

// publishLoop owns the publishing side: one goroutine, so that order is kept.
func (f *Fanout) publishLoop(ctx context.Context) {
	for {
		select {
		case pushes := <-f.out:
			f.send(context.WithoutCancel(ctx), f.more(pushes))
		case <-ctx.Done():
			f.drain(ctx)
			return
		}
	}
}

// drain sends what still waits, for at most Timeout.
func (f *Fanout) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.cfg.Timeout)
	defer cancel()
	for {
		select {
		case pushes := <-f.out:
			f.send(ctx, f.more(pushes))
		default:
			return
		}
	}
}

// together bounds the pushes of one round trip.
const together = 512

// more adds what waits already to pushes, so that a round trip is not paid for each
// message: while one is under way, others come.
func (f *Fanout) more(pushes []Push) []Push {
	all := slices.Clip(pushes) // the array is its sender's
	for len(all) < together {
		select {
		case next := <-f.out:
			all = append(all, next...)
		default:
			return all
		}
	}
	return all
}

func (f *Fanout) send(ctx context.Context, pushes []Push) {
	f.queued.Add(-int64(len(pushes)))
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	sharded := f.sharded.Load()
	cmds, _ := f.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, push := range pushes {
			channel, payload := f.channelOf(push, sharded), encode(f.node, push)
			if sharded {
				p.SPublish(ctx, channel, payload)
			} else {
				p.Publish(ctx, channel, payload)
			}
		}
		return nil
	})
	failed := 0
	for i, c := range cmds {
		reached, ok := c.(*redis.IntCmd)
		switch {
		case c.Err() != nil:
			failed++
		case ok && pushes[i].User == "":
			f.heard.Store(reached.Val())
		}
	}
	if len(cmds) == 0 {
		failed = len(pushes)
	}
	f.metrics.dropped.WithLabelValues("error").Add(float64(failed))
	f.metrics.published.Add(float64(len(pushes) - failed))
}
