package fanout

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

func itoa(n int) string { return strconv.Itoa(n) }

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
			f.send(context.WithoutCancel(ctx), pushes)
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
			f.send(ctx, pushes)
		default:
			return
		}
	}
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
	for _, c := range cmds {
		if c.Err() != nil {
			failed++
		}
	}
	if len(cmds) == 0 {
		failed = len(pushes)
	}
	f.metrics.dropped.WithLabelValues("error").Add(float64(failed))
	f.metrics.published.Add(float64(len(pushes) - failed))
}

// presenceLoop says again and again which users are connected here, and at once when
// one comes or goes.
func (f *Fanout) presenceLoop(ctx context.Context) {
	t := time.NewTicker(f.cfg.PresenceTTL / 3)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			f.eachBatch(ctx, f.present(), f.say)
		case user := <-f.changed:
			users := []string{user}
			for len(users) < batch && len(f.changed) > 0 {
				users = append(users, <-f.changed)
			}
			f.eachBatch(ctx, users, f.say)
		case <-ctx.Done():
			// An orderly stop: nobody is here any more.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.cfg.Timeout)
			defer cancel()
			f.eachBatch(ctx, f.present(), func(ctx context.Context, p redis.Pipeliner, user string) {
				p.ZRem(ctx, f.presence(user), f.node)
			})
			return
		}
	}
}

// presence is the key of a user's set of nodes; scores are the times, in milliseconds,
// until which each is believed.
func (f *Fanout) presence(user string) string {
	return f.cfg.Prefix + ":{" + itoa(slotOf(user)) + "}:presence:" + user
}

func (f *Fanout) present() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]string, 0, len(f.users))
	for u := range f.users {
		out = append(out, u)
	}
	return out
}

// say writes whether a user is here.
func (f *Fanout) say(ctx context.Context, p redis.Pipeliner, user string) {
	f.mu.Lock()
	_, here := f.users[user]
	f.mu.Unlock()
	key := f.presence(user)
	if !here {
		p.ZRem(ctx, key, f.node)
		return
	}
	p.ZAdd(ctx, key, redis.Z{Score: float64(time.Now().Add(f.cfg.PresenceTTL).UnixMilli()), Member: f.node})
	p.PExpire(ctx, key, f.cfg.PresenceTTL)
}

func (f *Fanout) eachBatch(ctx context.Context, users []string, do func(context.Context, redis.Pipeliner, string)) {
	for len(users) > 0 {
		n := min(len(users), batch)
		_, err := f.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, u := range users[:n] {
				do(ctx, p, u)
			}
			return nil
		})
		if err != nil {
			f.metrics.presenceErrors.Inc()
			return
		}
		users = users[n:]
	}
}

// Online says on how many processes a user is connected, as far as Redis knows: after a
// failure of Redis a user may be missing for a third of PresenceTTL, and one whose
// process died stays for PresenceTTL.
func (f *Fanout) Online(ctx context.Context, user string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	n, err := f.client.ZCount(ctx, f.presence(user), itoa(int(time.Now().UnixMilli())), "+inf").Result()
	return int(n), err
}
