package chat

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/load"
)

func refusalOf(err error) *protocol.Error {
	refusal, _ := errors.AsType[*protocol.Error](err)
	return refusal
}

// judge waits until all is quiet, reads what is stored, and compares.
func (c *crowd) judge(ctx context.Context, rep *Report) error {
	settle, cancel := context.WithTimeout(ctx, c.cfg.Settle)
	defer cancel()
	for _, p := range c.people {
		for _, d := range p.devices {
			d.still.Store(true)
		}
	}
	start := time.Now()
	listening := append(append([]*person{}, c.chatty...), c.visitor)
	listening = append(listening, c.listeners...)
	if err := c.quiet(settle, listening...); err != nil {
		c.log.Error("it does not get quiet", "error", err) // the verdict says what is missing
	}
	rep.SettledMS = ms(time.Since(start))
	// What comes twice comes late: a resume or a push that was on its way.
	pause(ctx, time.Second)
	for i := range c.talks {
		t := &c.talks[i]
		history, err := c.history(ctx, c.people[t.Always[0]], t.ID)
		if err != nil {
			return err
		}
		t.History = history
	}
	resumes, wrong := c.resumes(ctx, rand.New(rand.NewPCG(c.cfg.Seed, 1<<34)))
	online := c.presence(ctx)
	reads := c.reads(ctx)
	rep.Messages = c.book.Verdict(c.talks)
	rep.Sockets = c.stats.counts()
	m := rep.Messages
	rep.Promises = []load.Promise{
		{
			Key: "stored", Claim: "acknowledged = stored", Measured: fmt.Sprintf("%d acknowledged, %d stored, %d without an answer", m.Accepted, m.Stored, m.Unknown),
			Held: m.Accepted == m.Stored && m.Accepted > 0,
		},
		{
			Key: "delivered", Claim: "stored = delivered, to each device once, in order and without a gap",
			Measured: fmt.Sprintf("%d entries, %d deliveries to %d devices: %d lost, %d duplicated, %d out of order, %d gaps, %d wrong",
				m.Entries, m.Deliveries, c.devices(), m.Lost, m.Duplicated, m.OutOfOrder, m.Gaps, m.Wrong),
			Held: m.OK() && m.Deliveries > 0,
		},
		{Key: "resumable", Claim: "any position can be resumed from at any process", Measured: fmt.Sprintf("%d resumes, %d not as the history", resumes, wrong), Held: wrong == 0 && resumes > 0},
		online, reads,
	}
	return ctx.Err()
}

func (c *crowd) devices() (n int) {
	for _, p := range c.people {
		n += len(p.devices)
	}
	return n
}

// resumes has each user come in at each door from a random position, and compares what
// comes with the history.
func (c *crowd) resumes(ctx context.Context, rnd *rand.Rand) (n, wrong int) {
	for _, p := range c.chatty {
		for _, door := range c.world.doors() {
			positions, want := map[string]int64{}, map[string][]protocol.Message{}
			for _, t := range c.talks {
				if _, mine := c.starts(p)[t.ID]; mine && len(t.History) > 0 {
					at := rnd.IntN(len(t.History) + 1)
					positions[t.ID], want[t.ID] = int64(at), t.History[at:]
				}
			}
			n++
			token, err := p.token(ctx, 0)
			if err == nil {
				err = resumeOnce(ctx, door, token, positions, want)
			}
			if err != nil {
				wrong++
				c.book.Problem("%s resumes at %s: %v", p.name, door, err)
			}
		}
	}
	return n, wrong
}

// resumeOnce resumes on a connection of its own, and expects exactly what is wanted.
func resumeOnce(ctx context.Context, door, token string, positions map[string]int64, want map[string][]protocol.Message) error {
	got, resumed, err := replay(ctx, door, token, "", positions)
	if err != nil {
		return err
	}
	total := 0
	for id := range positions {
		total += len(want[id])
		if len(got[id]) != len(want[id]) {
			return fmt.Errorf("%d entries of %s after %d, want %d", len(got[id]), id, positions[id], len(want[id]))
		}
		for i, m := range got[id] {
			if w := want[id][i]; m.Seq != w.Seq || keyOf(m) != keyOf(w) || m.Text != w.Text {
				return fmt.Errorf("entry %d of %s after %d is %+v, want %+v", i, id, positions[id], m, w)
			}
		}
	}
	if !resumed.Recovered || resumed.Replayed < total {
		return fmt.Errorf("answer %+v, want %d entries", resumed, total)
	}
	return nil
}

// replay resumes and returns what comes before the answer. epoch is the greeting's where
// it is empty.
func replay(ctx context.Context, door, token, epoch string, positions map[string]int64) (map[string][]protocol.Message, protocol.Resumed, error) {
	got := map[string][]protocol.Message{}
	s, err := dial(ctx, door, token, 10*time.Second)
	if err != nil {
		return nil, protocol.Resumed{}, err
	}
	defer s.hangUp()
	if epoch == "" {
		epoch = s.hello.Epoch
	}
	const id = 1
	if err := s.write(protocol.Command{ID: id, Resume: &protocol.Resume{Epoch: epoch, Positions: positions}}); err != nil {
		return nil, protocol.Resumed{}, err
	}
	for {
		f, err := s.next(30 * time.Second)
		switch {
		case err != nil:
			return nil, protocol.Resumed{}, err
		case f.Message != nil:
			got[f.Message.Conversation] = append(got[f.Message.Conversation], *f.Message)
		case f.ID == id && f.Error != nil:
			return nil, protocol.Resumed{}, f.Error
		case f.ID == id && f.Resumed != nil:
			return got, *f.Resumed, nil
		}
	}
}

// presence asks each process about users who are connected, and about one that has left.
func (c *crowd) presence(ctx context.Context) load.Promise {
	out := load.Promise{Key: "presence", Claim: "each process knows who is connected"}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := c.live(ctx, c.chatty...); err != nil {
		out.Measured = err.Error()
		return out
	}
	gone := c.chatty[len(c.chatty)-1]
	asker := c.chatty[0]
	agree := func(p *person, want bool) (took time.Duration, ok bool) {
		start := time.Now()
		for ctx.Err() == nil {
			all := true
			for door := range c.world.doors() {
				known, online, err := c.online(ctx, asker, door, p.name)
				all = all && err == nil && known && online == want
			}
			if all {
				return time.Since(start), true
			}
			pause(ctx, 50*time.Millisecond)
		}
		return 0, false
	}
	for _, p := range c.chatty {
		if _, ok := agree(p, true); !ok {
			out.Measured = p.name + " is connected and not seen as online"
			return out
		}
	}
	gone.hangUp()
	took, ok := agree(gone, false)
	out.Measured = fmt.Sprintf("%d online; who left is offline everywhere after %.1f s", len(c.chatty), took.Seconds())
	if out.Held = ok; !ok {
		out.Measured = gone.name + " has left and is still seen as online"
	}
	return out
}

// reads compares the positions that were answered with those that are stored.
func (c *crowd) reads(ctx context.Context) load.Promise {
	out := load.Promise{Key: "receipts", Claim: "a position that was answered never goes back"}
	c.marks.mu.Lock()
	defer c.marks.mu.Unlock()
	back := 0
	for _, p := range c.chatty {
		list, _, err := p.users[1%len(p.users)].Conversations(ctx)
		if err != nil {
			out.Measured = err.Error()
			return out
		}
		for _, conv := range list {
			if conv.Read < c.marks.read[p.name+" "+conv.ID] {
				back++
			}
		}
	}
	out.Measured = fmt.Sprintf("%d positions answered, %d went back", len(c.marks.read), back)
	out.Held = back == 0
	return out
}
