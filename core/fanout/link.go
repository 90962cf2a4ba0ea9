package fanout

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

// link is one subscribing connection: the only one, or that of one hash tag.
type link struct {
	f    *Fanout
	slot int
	wake chan struct{} // there is something in todo

	// todo are users who came or went and are not yet reconciled; nil while there is no
	// connection, which begins with all users. Guarded by f.mu.
	todo map[string]struct{}
	// leaving are the ends of subscriptions, by channel, that the server was asked for and
	// has not answered. Guarded by f.mu.
	leaving map[string]int
}

// quiet is how long a link waits for anything before it asks the server for a sign of
// life, and then again before it takes the connection for dead.
const quiet = 5 * time.Second

// run keeps the link's subscriptions equal to what is wanted, over any number of
// connections.
func (l *link) run(ctx context.Context, to Receiver) {
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		start := time.Now()
		err := l.connection(ctx, to)
		if ctx.Err() != nil {
			return
		}
		l.f.metrics.reconnects.Inc()
		if time.Since(start) > 10*time.Second {
			pause = 20 * time.Millisecond
			l.f.log.Warn("redis subscription broke", "slot", l.slot, "error", err)
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// connection lives until the connection breaks. Reading happens in a goroutine of its
// own, which ends with the connection; it reports users whose channels the server took
// away (a slot that moved to another node) by ending the connection too.
func (l *link) connection(ctx context.Context, to Receiver) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ps := l.f.client.Subscribe(ctx) // without a channel it does not connect yet
	failed := make(chan error, 1)
	reading := false
	up := false
	defer func() {
		_ = ps.Close()
		if reading {
			<-failed //nolint:errcheck // it ends because of the Close above
		}
		if up {
			l.f.up.Add(-1)
		}
		l.f.mu.Lock()
		l.todo, l.leaving = nil, nil
		l.f.mu.Unlock()
	}()
	// The channel of groups is always wanted; by it the link connects.
	if err := l.subscribe(ctx, ps, l.groups()); err != nil {
		return err
	}
	if _, err := ps.ReceiveTimeout(ctx, l.f.cfg.Timeout); err != nil {
		return err
	}
	up = true
	l.f.up.Add(1)
	to.CatchUpAll()
	reading = true
	go func() { failed <- l.read(ctx, ps, to) }()
	for users := l.all; ; users = l.changed {
		if err := l.reconcile(ctx, ps, users()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			reading = false
			return err
		case <-l.wake:
		}
	}
}

// groups is the link's channel of groups.
func (l *link) groups() string { return l.f.groups(l.slot, l.f.sharded.Load()) }

// batch bounds the channels of one command.
const batch = 256

// all are the users whose channels belong to the link.
func (l *link) all() map[string]struct{} {
	sharded := l.f.sharded.Load()
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	l.todo, l.leaving = map[string]struct{}{}, map[string]int{}
	out := make(map[string]struct{}, len(l.f.users)/l.f.width()+1)
	for u := range l.f.users {
		if !sharded || slotOf(u) == l.slot {
			out[u] = struct{}{}
		}
	}
	return out
}

// changed are the users who came or went since the last call. To look at all instead
// made the arrival of 15,000 users quadratic: it was a third of all garbage at 4,000.
func (l *link) changed() map[string]struct{} {
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	out := l.todo
	l.todo = map[string]struct{}{}
	return out
}

// reconcile subscribes to the channels of those users that are wanted, and ends what is
// subscribed for the others. It does not know what is subscribed already: to say it once
// more does no harm, and users who come and go at once are rare.
func (l *link) reconcile(ctx context.Context, ps *redis.PubSub, users map[string]struct{}) error {
	sharded := l.f.sharded.Load()
	var add, drop []string
	l.f.mu.Lock()
	for u := range users {
		if _, wanted := l.f.users[u]; wanted {
			add = append(add, l.f.channel(u, sharded))
		} else {
			drop = append(drop, l.f.channel(u, sharded))
		}
	}
	l.f.mu.Unlock()
	for len(add) > 0 {
		n := min(len(add), batch)
		if err := l.subscribe(ctx, ps, add[:n]...); err != nil {
			return err
		}
		add = add[n:]
	}
	for len(drop) > 0 {
		n := min(len(drop), batch)
		if err := l.unsubscribe(ctx, ps, drop[:n]...); err != nil {
			return err
		}
		drop = drop[n:]
	}
	return nil
}

func (l *link) subscribe(ctx context.Context, ps *redis.PubSub, channels ...string) error {
	if l.f.sharded.Load() {
		return ps.SSubscribe(ctx, channels...)
	}
	return ps.Subscribe(ctx, channels...)
}

func (l *link) unsubscribe(ctx context.Context, ps *redis.PubSub, channels ...string) error {
	l.f.mu.Lock()
	for _, c := range channels { // before the answer can come
		l.leaving[c]++
	}
	l.f.mu.Unlock()
	if l.f.sharded.Load() {
		return ps.SUnsubscribe(ctx, channels...)
	}
	return ps.Unsubscribe(ctx, channels...)
}

var errTakenAway = errors.New("the server took a subscription away")

// read passes on what arrives until the connection breaks.
func (l *link) read(ctx context.Context, ps *redis.PubSub, to Receiver) error {
	asked := false
	for {
		msg, err := ps.ReceiveTimeout(ctx, quiet)
		if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() && !asked && ctx.Err() == nil {
			asked = true
			if err := ps.Ping(ctx); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		asked = false
		switch m := msg.(type) {
		case *redis.Subscription:
			switch m.Kind {
			case "subscribe", "ssubscribe":
				if m.Channel != l.groups() {
					to.CatchUp(userOf(m.Channel))
				}
			case "sunsubscribe", "unsubscribe":
				if l.takenAway(m.Channel) {
					return errTakenAway
				}
			}
		case *redis.Message:
			l.message(m, to)
		}
	}
}

// takenAway says that a subscription which is wanted has ended, and nobody here has asked
// for that. Who left and is back before the answer was read is subscribed anew after it.
func (l *link) takenAway(channel string) bool {
	if channel == l.groups() {
		return true
	}
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	if n := l.leaving[channel]; n > 0 {
		if l.leaving[channel]--; n == 1 {
			delete(l.leaving, channel)
		}
		return false
	}
	_, wanted := l.f.users[userOf(channel)]
	return wanted
}

func (l *link) message(m *redis.Message, to Receiver) {
	user := ""
	if m.Channel != l.groups() {
		user = userOf(m.Channel)
	}
	node, p, ok := decode(user, []byte(m.Payload))
	switch {
	case !ok:
		l.f.metrics.received.WithLabelValues("garbage").Inc()
	case node == l.f.node: // it has been delivered here already
		l.f.metrics.received.WithLabelValues("own").Inc()
	case len(p.Users) > 0:
		l.f.metrics.received.WithLabelValues("named").Inc()
		for _, u := range p.Users {
			to.Deliver(u, p.Conversation, p.Seq, p.Frame)
		}
	case user == "":
		l.f.metrics.received.WithLabelValues("group").Inc()
		to.Group(p.Conversation, p.Version, p.Seq, p.Frame)
	case p.Seq == 0:
		l.f.metrics.received.WithLabelValues("signal").Inc()
		to.Signal(p.User, p.Frame)
	default:
		l.f.metrics.received.WithLabelValues("ok").Inc()
		to.Deliver(p.User, p.Conversation, p.Seq, p.Frame)
	}
}
