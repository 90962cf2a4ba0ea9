package chat

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/client"
)

// World is the product that is pressed: addresses on this machine.
type World struct {
	Edge   string   // base URL
	Cores  []string // base URLs of core processes, past the edge
	Faults []Fault  // trouble that can be made; for Faults only
}

// doors are where a device may come in.
func (w World) doors() []string { return append([]string{w.Edge}, w.Cores...) }

// room is users with their devices, and the account of what they saw.
type room struct {
	world   World
	book    *Book
	clients []*client.Client // one for each door
	stats   Connections
	log     *slog.Logger
	prefix  string // of names, so that runs do not meet

	people  map[string]*person
	talks   []Talk
	running sync.WaitGroup
}

// person is a user.
type person struct {
	name     string
	password string         // kept for who logs in later, or again
	users    []*client.User // the same user and session, by each door
	devices  []*device
	stop     context.CancelFunc // hangs up all devices
	stats    *Connections
	reviving sync.Mutex
}

// attemptTime is longer than core takes to say that it does not know.
const attemptTime = 14 * time.Second

func newRoom(w World, log *slog.Logger) (*room, error) {
	r := &room{world: w, book: NewBook(), log: log, prefix: strings.ToLower("chat-" + rand.Text()[:6]), people: map[string]*person{}}
	for _, door := range w.doors() {
		cfg := client.DefaultConfig()
		cfg.Address, cfg.Timeout, cfg.Retry.Attempts = door, attemptTime, 1 // we repeat, elsewhere
		cfg.OnAttempt = func(a client.Attempt) {
			if a.Op == "refresh" && a.Fault() {
				r.stats.Unanswered.Add(1)
			}
		}
		c, err := client.New(cfg)
		if err != nil {
			return nil, err
		}
		r.clients = append(r.clients, c)
	}
	return r, nil
}

func (r *room) close() {
	for _, p := range r.people {
		p.hangUp()
	}
	r.running.Wait()
	for _, c := range r.clients {
		c.Close()
	}
}

// enroll registers users and logs them in, a few at a time: core hashes passwords slowly
// on purpose. Names are given a prefix.
func (r *room) enroll(ctx context.Context, names ...string) ([]*person, error) {
	people := make([]*person, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for i, name := range names {
		g.Go(func() (err error) {
			if people[i], err = r.register(ctx, r.prefix+"-"+name); err == nil {
				err = r.login(ctx, people[i])
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("enroll: %w", err)
	}
	for _, p := range people {
		r.people[p.name] = p
	}
	return people, nil
}

// register makes a user who is not logged in.
func (r *room) register(ctx context.Context, name string) (*person, error) {
	p := &person{name: name, password: rand.Text(), stop: func() {}, stats: &r.stats}
	err := r.again(ctx, nil, func() error {
		_, _, err := r.clients[1%len(r.clients)].Register(ctx, name, p.password)
		if refusal := refusalOf(err); refusal != nil && refusal.Code == protocol.CodeAlreadyExists {
			return nil // by an attempt before, whose answer was lost
		}
		return err
	})
	return p, err
}

func (r *room) login(ctx context.Context, p *person) error {
	return r.again(ctx, nil, func() error {
		u, _, err := r.clients[1%len(r.clients)].Login(ctx, p.name, p.password)
		if err == nil {
			for _, c := range r.clients {
				p.users = append(p.users, u.At(c))
			}
		}
		return err
	})
}

// again repeats what a user does until it works, is refused for good, or ctx is done. Who
// has not logged in yet is nil.
func (r *room) again(ctx context.Context, p *person, do func() error) error {
	for {
		err := do()
		if err == nil || ctx.Err() != nil || p.final(ctx, err) {
			return err
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// forGood says whether core has said no, and would say it again.
func forGood(err error) bool {
	refusal, ok := errors.AsType[*protocol.Error](err)
	return ok && !refusal.Temporary
}

// final is forGood, but for a session that ended and that the user may have a new one for.
func (p *person) final(ctx context.Context, err error) bool {
	if p == nil || !forGood(err) || refusalOf(err).Code != protocol.CodeUnauthenticated {
		return forGood(err)
	}
	return p.revive(ctx) != nil && ctx.Err() == nil
}

// token is an access token that is good now, refreshed at a door where that is due.
func (p *person) token(ctx context.Context, door int) (string, error) {
	return p.users[door%len(p.users)].Access(ctx)
}

// revive sees to it that the user's session goes on. Core repeats the answer to a refresh
// for 10 s; who cannot ask again within that holds a token that was used, and has to log
// in, as people do. A session that ends though each refresh was answered is a broken
// promise.
func (p *person) revive(ctx context.Context) error {
	p.reviving.Lock()
	defer p.reviving.Unlock()
	for door := 0; ; door++ {
		u := p.users[door%len(p.users)]
		_, _, err := u.Me(ctx) // with a new token, where the session goes on
		if refusal := refusalOf(err); err != nil && refusal != nil && refusal.Code == protocol.CodeUnauthenticated {
			if p.stats.Logins.Load() >= p.stats.Unanswered.Load() {
				return err
			}
			if err = u.LoginAgain(ctx, p.password); err == nil {
				p.stats.Logins.Add(1)
			}
		}
		if err == nil || ctx.Err() != nil || forGood(err) {
			return err
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// direct opens the conversation of two.
func (r *room) direct(ctx context.Context, a, b *person) (id string, err error) {
	err = r.again(ctx, a, func() error {
		c, _, err := a.users[1%len(a.users)].Open(ctx, b.name)
		id = c.ID
		return err
	})
	return id, err
}

// maxAtOnce is how many members a group may be given at once.
const maxAtOnce = 100

// group makes a group of an owner and others.
func (r *room) group(ctx context.Context, name string, owner *person, others ...*person) (id string, err error) {
	var names []string
	for _, p := range others {
		names = append(names, p.name)
	}
	first := names[:min(len(names), maxAtOnce)]
	err = r.again(ctx, owner, func() error {
		c, _, err := owner.users[1%len(owner.users)].CreateGroup(ctx, "make-"+name, name, first...)
		id = c.ID
		return err
	})
	for rest := names[len(first):]; err == nil && len(rest) > 0; {
		n := min(len(rest), maxAtOnce)
		err = r.again(ctx, owner, func() error {
			_, _, err := owner.users[1%len(owner.users)].AddMembers(ctx, id, rest[:n]...)
			return err
		})
		rest = rest[n:]
	}
	return id, err
}

// connect gives a user devices that run until ctx is done or the user hangs up. positions
// are what they start from; hop bounds how long they stay at a door.
func (r *room) connect(ctx context.Context, p *person, devices int, positions map[string]int64, hop time.Duration, seed uint64) {
	ctx, p.stop = context.WithCancel(ctx)
	for i := range devices {
		d := &device{
			name: fmt.Sprintf("%s/%d", p.name, len(p.devices)+1), owner: p, book: r.book, doors: r.world.doors(), hop: hop, stats: &r.stats,
			rnd: mrand.New(mrand.NewPCG(seed, uint64(len(r.people)*100+i))),
		}
		p.devices = append(p.devices, d)
		r.book.Device(d.name, p.name, positions)
		r.running.Go(func() { d.run(ctx) })
	}
}

func (p *person) hangUp() { p.stop() }

// live waits until all devices of a user have a connection.
func (r *room) live(ctx context.Context, people ...*person) error {
	for _, p := range people {
		for _, d := range p.devices {
			for d.live() == nil {
				if ctx.Err() != nil {
					return fmt.Errorf("%s has no connection: %w", d.name, ctx.Err())
				}
				pause(ctx, 5*time.Millisecond)
			}
		}
	}
	return nil
}

// insist asks for something until core has answered, at one door after the other. It is
// false where that was no, or ctx was done first.
func (r *room) insist(ctx context.Context, p *person, i Intent, rnd *mrand.Rand) bool {
	r.book.Asked(i)
	for ctx.Err() == nil {
		err := p.attempt(ctx, i, rnd)
		switch {
		case err == nil:
			r.book.Accepted(i.Key)
			return true
		case p.final(ctx, err):
			r.book.Refused(i.Key, err)
			return false
		}
		pause(ctx, time.Duration(rnd.Int64N(int64(200*time.Millisecond))))
	}
	return false
}

// attempt asks once, by a device or by REST.
func (p *person) attempt(ctx context.Context, i Intent, rnd *mrand.Rand) error {
	// Sometimes it does not wait for the answer that core is still to give.
	ctx, cancel := context.WithTimeout(ctx, attemptTime/time.Duration(1+rnd.IntN(7)))
	defer cancel()
	var s *socket
	if len(p.devices) > 0 && rnd.IntN(2) == 0 {
		s = p.devices[rnd.IntN(len(p.devices))].live()
	}
	if s != nil {
		f, err := s.do(ctx, i.command())
		if err == nil && f.Accepted == nil {
			err = errors.New("the reply is neither accepted nor an error")
		}
		return err
	}
	return i.rest(ctx, p.users[rnd.IntN(len(p.users))])
}

func (i Intent) command() protocol.Command {
	k := i.Key
	switch {
	case i.Target == 0:
		return protocol.Command{Send: &protocol.Send{Conversation: k.Conversation, ClientID: k.ID, Text: i.Text}}
	case i.Emoji != "":
		_, id, _ := strings.Cut(k.ID, ".")
		r := &protocol.React{Conversation: k.Conversation, Seq: i.Target, Emoji: i.Emoji, ClientID: id}
		if i.Off {
			return protocol.Command{Unreact: r}
		}
		return protocol.Command{React: r}
	case k.ID == recallID(i.Target):
		return protocol.Command{Recall: &protocol.Recall{Conversation: k.Conversation, Seq: i.Target}}
	default:
		return protocol.Command{Edit: &protocol.Edit{Conversation: k.Conversation, Seq: i.Target, ClientID: k.ID, Text: i.Text}}
	}
}

func (i Intent) rest(ctx context.Context, u *client.User) (err error) {
	switch cmd := i.command(); {
	case cmd.Send != nil:
		_, _, err = u.Send(ctx, *cmd.Send)
	case cmd.React != nil:
		_, _, err = u.React(ctx, *cmd.React)
	case cmd.Unreact != nil:
		_, _, err = u.Unreact(ctx, *cmd.Unreact)
	case cmd.Recall != nil:
		_, _, err = u.Recall(ctx, *cmd.Recall)
	default:
		_, _, err = u.Edit(ctx, *cmd.Edit)
	}
	return err
}

// history is all that a user sees of a conversation.
func (r *room) history(ctx context.Context, p *person, conversation string) ([]protocol.Message, error) {
	var out []protocol.Message
	for after := int64(0); ; {
		var page client.Page
		err := r.again(ctx, p, func() (err error) {
			page, _, err = p.users[1%len(p.users)].History(ctx, conversation, after, 200)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("history of %s: %w", conversation, err)
		}
		if len(page.Messages) == 0 {
			return out, nil
		}
		out = append(out, page.Messages...)
		last := page.Messages[len(page.Messages)-1].Seq
		if last <= after {
			return nil, fmt.Errorf("history of %s after %d ends with %d", conversation, after, last)
		}
		after = last
	}
}

// heads are the newest seqs of users' conversations, as core lists them.
func (r *room) heads(ctx context.Context, people ...*person) (map[string]map[string]int64, error) {
	out := map[string]map[string]int64{}
	for _, p := range people {
		out[p.name] = map[string]int64{}
		err := r.again(ctx, p, func() error {
			list, _, err := p.users[1%len(p.users)].Conversations(ctx)
			for _, c := range list {
				out[p.name][c.ID] = c.LastSeq
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("conversations of %s: %w", p.name, err)
		}
	}
	return out, nil
}

// quiet waits until all that was accepted is stored and every device of people has it all.
func (r *room) quiet(ctx context.Context, people ...*person) error {
	for {
		waiting := r.book.Waiting()
		var behind []string
		if waiting == 0 {
			heads, err := r.heads(ctx, people...)
			if err != nil {
				return err
			}
			if behind = r.book.Behind(heads); len(behind) == 0 {
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("not quiet: %d accepted and not seen, behind: %s", waiting, strings.Join(behind[:min(3, len(behind))], "; "))
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// online asks a process whether a user is connected anywhere.
func (r *room) online(ctx context.Context, asker *person, door int, name string) (known, online bool, err error) {
	p, _, err := asker.users[door%len(asker.users)].Lookup(ctx, name)
	if err != nil || p.Online == nil {
		return false, false, err
	}
	return true, *p.Online, nil
}
