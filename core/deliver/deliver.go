// Package deliver is what happens to an accepted record: it is stored, and then shown
// to its conversation's members, on this process directly and on others by the fan-out.
// It is the queue's handler.
//
// Where there are no more members than other processes, they are told one by one, each
// wherever it is. Otherwise one push goes to all processes, each of which finds out for
// itself whom of the members it has; it names them up to [Named], and past that says by
// which version of the roster. So what a message costs grows with the lesser of the two.
// (It was one by one up to 100 until a room of 100 on two processes had a third of the
// deliveries a second of the centrifuge library.)
//
// Only storing counts: a push that gets lost is found by the session that misses it. A
// record that was stored before is pushed again, as a hint without content, because the
// process that stored it may have died before it pushed.
package deliver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/fanout"
	"github.com/tracegate/tracegate/core/protocol"
)

// Store stores batches.
type Store interface {
	// Append stores all records of a batch or none, and numbers them without gaps. It
	// answers chat.ErrUnstorable where the database refuses some row of it for good.
	Append(ctx context.Context, records []chat.Record) ([]chat.Numbered, error)
	// SweepRefusals forgets that records were refused which the log took before a time.
	SweepRefusals(ctx context.Context, before time.Time) error
}

// Named is up to how many members of a conversation are named in pushes.
const Named = 100

// Local pushes to the connections of this process; it must not block.
type Local interface {
	Deliver(user, conversation string, seq int64, frame []byte)
	// DeliverAll is Deliver for all members.
	DeliverAll(members *chat.Roster, conversation string, seq int64, frame []byte)
}

// Remote pushes to those of other processes; it must not block.
type Remote interface {
	Publish([]fanout.Push)
	// Processes is how many of them there are, as far as that is known.
	Processes() int
}

// Deliverer stores and pushes.
type Deliverer struct {
	store  Store
	local  Local
	remote Remote
	stored *prometheus.CounterVec
	log    *slog.Logger
}

// New prepares a deliverer.
func New(store Store, local Local, remote Remote, reg prometheus.Registerer, log *slog.Logger) (*Deliverer, error) {
	d := &Deliverer{
		store: store, local: local, remote: remote, log: log,
		stored: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "core_stored_messages_total", Help: "Messages by what became of them: stored, duplicate or refused.",
		}, []string{"result"}),
	}
	if err := reg.Register(d.stored); err != nil {
		return nil, fmt.Errorf("register deliver metrics: %w", err)
	}
	return d, nil
}

// sweepEvery is how often refusals are swept.
const sweepEvery = 10 * time.Minute

// Run forgets which records were refused longer ago than the log keeps records, until ctx is
// done. A log deletes segments whole, so a record may be there for twice its retention.
func (d *Deliverer) Run(ctx context.Context, retention time.Duration, now func() time.Time) error {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		if err := d.store.SweepRefusals(ctx, now().Add(-2*retention)); err != nil && ctx.Err() == nil {
			d.log.Warn("sweep refusals, going on at the next one", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// Store is the queue's handler: it stores a batch and pushes what came of it.
func (d *Deliverer) Store(ctx context.Context, batch []chat.Record) ([]chat.Reason, error) {
	numbered, err := d.store.Append(ctx, batch)
	if errors.Is(err, chat.ErrUnstorable) {
		d.log.Warn("the database refuses a batch, storing one by one", "records", len(batch), "error", err)
		numbered, err = d.oneByOne(ctx, batch)
	}
	if err != nil {
		return nil, err
	}
	reasons := make([]chat.Reason, len(numbered))
	pushes := make([]fanout.Push, 0, 2*len(numbered))
	for i, n := range numbered {
		reasons[i] = n.Refused
		d.count(n)
		if n.Refused == "" {
			pushes = d.push(pushes, n)
		}
	}
	d.remote.Publish(pushes)
	return reasons, nil
}

// oneByOne finds the record that the database refuses; the order is kept.
func (d *Deliverer) oneByOne(ctx context.Context, batch []chat.Record) ([]chat.Numbered, error) {
	out := make([]chat.Numbered, 0, len(batch))
	for _, r := range batch {
		n, err := d.store.Append(ctx, []chat.Record{r})
		switch {
		case errors.Is(err, chat.ErrUnstorable):
			out = append(out, chat.Numbered{Record: r, Refused: chat.ReasonRefused})
		case err != nil:
			return nil, err
		default:
			out = append(out, n...)
		}
	}
	return out, nil
}

// Announce pushes an entry that was stored without the log: the first of a group.
func (d *Deliverer) Announce(n chat.Numbered) { d.remote.Publish(d.push(nil, n)) }

func (d *Deliverer) push(pushes []fanout.Push, n chat.Numbered) []fanout.Push {
	var frame []byte
	if !n.Duplicate { // the stored one may differ from a repetition in time and trace
		frame = Frame(n.Message())
	}
	d.local.DeliverAll(n.Roster, n.Conversation, n.Seq, frame)
	push := fanout.Push{Conversation: n.Conversation, Seq: n.Seq, Frame: frame}
	switch members := n.Roster.Members; {
	case len(members) > Named:
		push.Version = n.Roster.Version
		pushes = append(pushes, push)
		push.Version = 0
	case len(members) > max(1, d.remote.Processes()):
		for _, m := range members {
			push.Users = append(push.Users, m.ID)
		}
		pushes = append(pushes, push)
		push.Users = nil
	default:
		for _, m := range members {
			push.User = m.ID
			pushes = append(pushes, push)
		}
	}
	if n.Kind == protocol.EventRemoved { // not in the roster any more, but to be told
		push.User = n.Members[0].ID
		d.local.Deliver(push.User, n.Conversation, n.Seq, frame)
		pushes = append(pushes, push)
	}
	return pushes
}

// Frame is the wire form of a message, made once for all who get it.
func Frame(m protocol.Message) []byte {
	b, _ := json.Marshal(protocol.Frame{Message: &m}) // strings, numbers and a valid time always encode
	return b
}

func (d *Deliverer) count(n chat.Numbered) {
	result := "stored"
	switch {
	case n.Refused != "":
		result = "refused"
	case n.Duplicate:
		result = "duplicate"
	}
	d.stored.WithLabelValues(result).Inc()
}
