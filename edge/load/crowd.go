package load

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/client"
)

// patience bounds one request of the schedule, its repetitions included.
const patience = 30 * time.Second

// What users do, in turn: half of talking is sending by WebSocket; those who read send one
// of forty.
//
//nolint:gochecknoglobals // constants
var (
	talking = []string{"ws", "rest", "ws", "me", "ws", "history", "ws", "rest", "ws", "me"}
	reading = append([]string{"ws", "history"}, slices.Repeat([]string{"me"}, 38)...)
)

// crowd is one group's users and what they saw.
type crowd struct {
	Group
	id      string // group id, as the edge says
	people  []*person
	ledger  *Ledger
	record  *record
	sockets *sockets
}

// person is a user with a live connection and a partner.
type person struct {
	name         string
	user         *client.User
	session      *client.Session
	conversation string
}

func isAnswer(err error) bool {
	var e *protocol.Error
	return errors.As(err, &e)
}

// gather makes a crowd of users and their conversations. prefix keeps the names of
// runs apart.
func gather(ctx context.Context, cfg Config, spec Group, prefix string) (*crowd, error) {
	c := &crowd{Group: spec, ledger: NewLedger(), record: &record{}, sockets: &sockets{}}
	cc := client.DefaultConfig()
	cc.Address, cc.Host, cc.Header = cfg.Edge, spec.Host, spec.Header
	cc.Timeout = 10 * time.Second
	cc.Retry = client.Retry{Attempts: 10, Base: 50 * time.Millisecond, Max: 2 * time.Second}
	cc.OnAttempt = c.record.attempt
	cl, err := client.New(cc)
	if err != nil {
		return nil, err
	}
	if c.people, err = enroll(ctx, cl, cfg.Users, prefix); err != nil {
		return nil, fmt.Errorf("group %s: %w", spec.Name, err)
	}
	for i := 0; i < len(c.people); i += 2 {
		if err := c.introduce(ctx, c.people[i], c.people[i+1]); err != nil {
			return nil, fmt.Errorf("group %s: %w", spec.Name, err)
		}
	}
	if err := c.check(ctx); err != nil {
		return nil, fmt.Errorf("group %s: %w", spec.Name, err)
	}
	return c, nil
}

// enroll registers and logs in. Core hashes passwords slowly on purpose and refuses
// whom it cannot serve soon, so only a few at a time, and patiently: until ctx ends.
func enroll(ctx context.Context, cl *client.Client, n int, prefix string) ([]*person, error) {
	people := make([]*person, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i := range n {
		g.Go(func() error {
			for try := 0; ; try++ { // under another name each time: the last may have been taken after all
				p, err := enrollOne(ctx, cl, fmt.Sprintf("%s-%d-%d", prefix, i, try))
				if err == nil {
					people[i] = p
					return nil
				}
				refused, ok := errors.AsType[*protocol.Error](err)
				if again := ok && refused.Temporary || errors.Is(err, client.ErrUnknownOutcome); !again || ctx.Err() != nil {
					return err
				}
			}
		})
	}
	return people, g.Wait()
}

func enrollOne(ctx context.Context, cl *client.Client, name string) (*person, error) {
	password := rand.Text()
	if _, _, err := cl.Register(ctx, name, password); err != nil {
		return nil, err
	}
	u, _, err := cl.Login(ctx, name, password)
	if err != nil {
		return nil, err
	}
	return &person{name: name, user: u}, nil
}

func (c *crowd) introduce(ctx context.Context, a, b *person) error {
	conversation, _, err := a.user.Open(ctx, b.name)
	if err != nil {
		return err
	}
	c.ledger.Open(conversation.ID, a.name, b.name)
	a.conversation, b.conversation = conversation.ID, conversation.ID
	return nil
}

// check asks core whether the edge colors the group as its name says.
func (c *crowd) check(ctx context.Context) error {
	me, served, err := c.people[0].user.Me(ctx)
	if err != nil {
		return err
	}
	if got := me.Env + "+" + me.Tenant; got != c.Name {
		return fmt.Errorf("the edge takes it for %q (color %s): the policy must color Host %s and %v as %s", got, me.Color, c.Host, c.Header, c.Name)
	}
	if served.Group == "" || served.Group != me.Group {
		return fmt.Errorf("the edge answers with group %q, core saw %q: did the filter run?", served.Group, me.Group)
	}
	c.id = served.Group
	return nil
}

// connect opens everybody's connection; g runs them until ctx is done.
func (c *crowd) connect(ctx context.Context, g *errgroup.Group) {
	for _, p := range c.people {
		p.session = p.user.Session(client.SessionConfig{
			Positions: map[string]int64{p.conversation: 0},
			OnMessage: func(m protocol.Message) { c.ledger.Received(p.name, m) },
			OnEvent:   func(e client.Event) { c.sockets.note(p.name, e) },
		})
		g.Go(func() error {
			if err := p.session.Run(ctx); err != nil {
				return fmt.Errorf("session of %s: %w", p.name, err)
			}
			return nil
		})
	}
}

// ready waits until every connection of the crowd is open.
func (c *crowd) ready(ctx context.Context) error {
	for _, p := range c.people {
		if err := p.session.WaitReady(ctx); err != nil {
			return fmt.Errorf("group %s: connect %s: %w", c.Name, p.name, err)
		}
	}
	return nil
}

// press makes requests by the clock until ctx is done, and waits for the last answers.
// They are given their own time: a request cut off by us would look like a fault.
func (c *crowd) press(ctx context.Context, cfg Config, start time.Time) {
	work := context.WithoutCancel(ctx)
	mix := talking
	if cfg.Reading {
		mix = reading
	}
	pace(ctx, start, cfg.Rate, cfg.MaxInFlight, func(i int, due time.Time) {
		ctx, cancel := context.WithTimeout(work, patience)
		defer cancel()
		err := c.request(ctx, mix, i)
		c.record.add(sample{due: due, took: time.Since(due), failed: err != nil})
	}, func(_ int, due time.Time) {
		c.record.add(sample{due: due, shed: true})
	})
}

// turn is who makes the ith request of the schedule, and what it is. People take turns, and
// each goes through the mix from another place, so that at any time it is the mix that is
// asked for, and not one thing by all.
func turn(mix []string, people, i int) (who int, what string) {
	who = i % people
	return who, mix[(who+i/people)%len(mix)]
}

// request is the ith of the schedule.
func (c *crowd) request(ctx context.Context, mix []string, i int) error {
	who, what := turn(mix, len(c.people), i)
	p := c.people[who]
	switch what {
	case "ws":
		return c.send(ctx, p, i, p.session.Send)
	case "rest":
		return c.send(ctx, p, i, p.user.Send)
	case "me":
		_, _, err := p.user.Me(ctx)
		return err
	default:
		after := max(p.session.Positions()[p.conversation]-20, 0)
		_, _, err := p.user.History(ctx, p.conversation, after, 50)
		return err
	}
}

type sendFunc func(context.Context, protocol.Send) (protocol.Accepted, client.Served, error)

func (c *crowd) send(ctx context.Context, p *person, i int, by sendFunc) error {
	m := protocol.Send{Conversation: p.conversation, ClientID: fmt.Sprintf("%s-%d", p.name, i)}
	m.Text = "request " + m.ClientID
	c.ledger.Sent(p.name, m)
	a, _, err := by(ctx, m)
	switch {
	case err == nil && a.ClientID != m.ClientID:
		return fmt.Errorf("accepted %q instead of %q", a.ClientID, m.ClientID)
	case err == nil:
		c.ledger.Accepted(p.name, m)
	case isAnswer(err) && !errors.Is(err, client.ErrUnknownOutcome):
		c.ledger.Refused(p.name, m)
	}
	return err
}

// settle waits until every accepted message has reached its recipient, or ctx is done.
func (c *crowd) settle(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for c.ledger.Waiting() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// reconcile pages through the history of every conversation into the ledger.
func (c *crowd) reconcile(ctx context.Context) error {
	seen := map[string]bool{}
	for _, p := range c.people {
		if seen[p.conversation] {
			continue
		}
		seen[p.conversation] = true
		for after := int64(0); ; {
			page, _, err := p.user.History(ctx, p.conversation, after, 200)
			if err != nil {
				return fmt.Errorf("group %s: reconcile: %w", c.Name, err)
			}
			if len(page.Messages) == 0 {
				break
			}
			c.ledger.History(p.conversation, page.Messages)
			last := page.Messages[len(page.Messages)-1].Seq
			if last <= after {
				return fmt.Errorf("group %s: reconcile: history of %s after %d ends with %d", c.Name, p.conversation, after, last)
			}
			after = last
		}
	}
	return nil
}

// sockets notes what happens to the connections of a crowd. It is safe for concurrent use.
type sockets struct {
	mu     sync.Mutex
	events []socketEvent
}

type socketEvent struct {
	who  string
	kind client.EventKind
	time time.Time
	pool string
	err  error
}

func (s *sockets) note(who string, e client.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, socketEvent{who: who, kind: e.Kind, time: e.Time, pool: e.Hello.Pool, err: e.Err})
}

func (s *sockets) snapshot() []socketEvent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// Sockets is what happened to a group's connections.
type Sockets struct {
	Open    int            `json:"open"`    // at the end
	Moved   int            `json:"moved"`   // make-before-break, as core asked
	Dropped int            `json:"dropped"` // ended without being asked to
	Pools   map[string]int `json:"pools"`   // of those open at the end
}

// tally counts the events of connections.
func tally(events []socketEvent) Sockets {
	s := Sockets{Pools: map[string]int{}}
	now := map[string]string{}
	for _, e := range events {
		switch e.kind {
		case client.Opened:
			now[e.who] = e.pool
		case client.Moved:
			s.Moved++
			now[e.who] = e.pool
		case client.Lost:
			s.Dropped++
			delete(now, e.who)
		}
	}
	for _, pool := range now {
		s.Open++
		s.Pools[pool]++
	}
	return s
}

// arrived is when the last of people had its connection in the pool, counting moves
// after since; ok is false while some have not.
func arrived(events []socketEvent, people int, pool string, since time.Time) (last time.Time, n int, ok bool) {
	there := map[string]time.Time{}
	for _, e := range events {
		if e.kind != client.Opened && e.kind != client.Moved || e.time.Before(since) {
			continue
		}
		if e.pool != pool {
			delete(there, e.who)
		} else if _, had := there[e.who]; !had {
			there[e.who] = e.time
		}
	}
	for _, t := range there {
		if t.After(last) {
			last = t
		}
	}
	return last, len(there), len(there) == people
}
