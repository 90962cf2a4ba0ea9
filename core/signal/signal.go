// Package signal is what the members of a conversation tell each other beside its log:
// how far they have read, which is kept, and that they are typing, which is not.
//
// A position is one number of a member, not a row for a message, and only grows. So
// whatever comes within a moment is written as one, in one transaction for all members of
// all conversations ([Signals.Mark]), and who asks is answered when that has committed.
// Other members are told by pushes that may get lost, since the positions can be read;
// in conversations of more than [Config.Shown] members, which would drown in each
// other's receipts, only the member's own devices are told, and nobody of typing.
//
// Its callers are core/api and core/session; run it.
package signal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/fanout"
	"github.com/tracegate/tracegate/core/protocol"
)

// Config bounds what signals cost.
type Config struct {
	Every   time.Duration // how long marks are collected before they are written
	Waiting int           // members whose marks wait; beyond it they are refused
	Timeout time.Duration // of one write
	Shown   int           // up to how many members of a conversation tell each other
	Typing  time.Duration // a member is passed on as typing once in so long, in one conversation
}

// DefaultConfig fits a process with some ten thousand connections.
func DefaultConfig() Config {
	return Config{Every: 100 * time.Millisecond, Waiting: 10_000, Timeout: 10 * time.Second, Shown: 50, Typing: time.Second}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	switch {
	case c.Every <= 0 || c.Every > 10*time.Second:
		return errors.New("every: must be above 0 and at most 10s")
	case c.Waiting < 1:
		return errors.New("waiting: must be at least 1")
	case c.Timeout <= 0:
		return errors.New("timeout: must be positive")
	case c.Shown < 2:
		return errors.New("shown: must be at least 2")
	case c.Typing <= 0:
		return errors.New("typing: must be positive")
	}
	return nil
}

// Store is where positions are kept.
type Store interface {
	// Standing answers chat.ErrNotFound where there is no such conversation.
	Standing(ctx context.Context, conversation string) (chat.Standing, error)
	// StandingOf is the same for who only asks about one user.
	StandingOf(ctx context.Context, conversation, userID string) (chat.Standing, error)
	// Mark moves positions, never back, and returns those that hold now; who is not a
	// member is left out.
	Mark(ctx context.Context, marks []chat.Mark) ([]chat.Mark, error)
}

// Local pushes to the connections of this process; it must not block.
type Local interface {
	Signal(user string, frame []byte)
}

// Remote pushes to those of other processes; it must not block.
type Remote interface {
	Publish([]fanout.Push)
}

// Signals is safe for concurrent use. Run it.
type Signals struct {
	cfg    Config
	store  Store
	remote Remote
	now    func() time.Time
	marks  *prometheus.CounterVec

	typingDropped prometheus.Counter

	mu      sync.Mutex
	waiting map[key]*waiting
	closed  bool
	wake    chan struct{} // something waits

	typingMu sync.Mutex
	typing   map[key]time.Time // last passed on
	out      chan told         // typing on its way
}

// told is a frame for members of a conversation.
type told struct {
	to    []chat.Member
	frame []byte
}

// typingQueue bounds what waits to be passed on.
const typingQueue = 1024

type key struct{ conversation, user string }

// waiting is a mark with those who are to be told of it.
type waiting struct {
	mark  chat.Mark
	name  string
	large bool // more members than are told
	done  []func(protocol.Receipt, error)
}

// New prepares it.
func New(cfg Config, store Store, remote Remote, now func() time.Time, reg prometheus.Registerer) (*Signals, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("signal config: %w", err)
	}
	s := &Signals{
		cfg: cfg, store: store, remote: remote, now: now, out: make(chan told, typingQueue),
		waiting: map[key]*waiting{}, wake: make(chan struct{}, 1), typing: map[key]time.Time{},
		marks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "core_marks_total", Help: "Receipts by what became of them: written, coalesced with another, refused (too many wait) or failed.",
		}, []string{"result"}),
	}
	for _, r := range []string{"written", "coalesced", "refused", "failed"} {
		s.marks.WithLabelValues(r)
	}
	s.typingDropped = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "core_typing_dropped_total", Help: "Typing not passed on because too much waited.",
	})
	for _, c := range []prometheus.Collector{s.marks, s.typingDropped} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register signal metrics: %w", err)
		}
	}
	return s, nil
}

// Mark moves a member's positions and calls done exactly once, when they are durable. Its
// error is a *protocol.Error, or another one that the member must not see.
func (s *Signals) Mark(ctx context.Context, from chat.User, m protocol.Mark, done func(protocol.Receipt, error)) {
	mark := chat.Mark{Conversation: m.Conversation, UserID: from.ID, Read: m.Read, Delivered: m.Delivered}
	standing, err := s.standing(ctx, from, m.Conversation)
	if err == nil {
		if bad := chat.CheckMark(mark, standing.LastSeq); bad != nil {
			err = bad
		} else if !s.collect(mark, from.Name, standing.Count > s.cfg.Shown, done) {
			s.marks.WithLabelValues("refused").Inc()
			err = protocol.NewError(protocol.CodeUnavailable, "", "too many receipts are waiting")
		}
	}
	if err != nil {
		done(protocol.Receipt{}, err)
	}
}

// standing is that of a conversation of which the user must be a member.
func (s *Signals) standing(ctx context.Context, from chat.User, conversation string) (chat.Standing, error) {
	if err := chat.CheckConversationID("conversation", conversation); err != nil {
		return chat.Standing{}, err
	}
	standing, err := s.store.StandingOf(ctx, conversation, from.ID)
	if errors.Is(err, chat.ErrNotFound) {
		return standing, chat.NoConversation()
	}
	if err != nil {
		return standing, fmt.Errorf("check membership: %w", err)
	}
	if _, in := standing.Roster.Find(from.ID); !in {
		return standing, chat.NoConversation()
	}
	return standing, nil
}

// collect takes a mark; false where too many wait.
func (s *Signals) collect(mark chat.Mark, name string, large bool, done func(protocol.Receipt, error)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key{mark.Conversation, mark.UserID}
	w := s.waiting[k]
	switch {
	case s.closed || w == nil && len(s.waiting) >= s.cfg.Waiting:
		return false
	case w == nil:
		w = &waiting{mark: mark, name: name}
		s.waiting[k] = w
	default:
		s.marks.WithLabelValues("coalesced").Inc()
	}
	w.mark, w.large = w.mark.With(mark), large
	w.done = append(w.done, done)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return true
}

// Run writes and passes on until ctx is done, and then writes what still waits.
func (s *Signals) Run(ctx context.Context, local Local) error {
	var passing sync.WaitGroup
	passing.Go(func() { s.passOn(ctx, local) })
	defer passing.Wait()
	t := time.NewTimer(s.cfg.Every)
	defer t.Stop()
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			s.write(ctx, local, s.take(true))
			return nil
		}
		t.Reset(s.cfg.Every)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		s.write(ctx, local, s.take(false))
	}
}

// passOn pushes who is typing.
func (s *Signals) passOn(ctx context.Context, local Local) {
	for {
		select {
		case t := <-s.out:
			s.remote.Publish(push(nil, local, t))
		case <-ctx.Done():
			return
		}
	}
}

func push(pushes []fanout.Push, local Local, t told) []fanout.Push {
	for _, m := range t.to {
		local.Signal(m.ID, t.frame)
		pushes = append(pushes, fanout.Push{User: m.ID, Frame: t.frame})
	}
	return pushes
}

func (s *Signals) take(last bool) map[key]*waiting {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.waiting
	s.waiting, s.closed = map[key]*waiting{}, s.closed || last
	return out
}

func (s *Signals) write(ctx context.Context, local Local, batch map[key]*waiting) {
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timeout)
	defer cancel()
	marks := make([]chat.Mark, 0, len(batch))
	for _, w := range batch {
		marks = append(marks, w.mark)
	}
	written, err := s.store.Mark(ctx, marks)
	if err != nil {
		s.marks.WithLabelValues("failed").Add(float64(len(batch)))
		err = errors.Join(protocol.NewError(protocol.CodeUnavailable, "", "receipts cannot be written now: send it again"), err)
	}
	rosters := map[string][]chat.Member{}
	var pushes []fanout.Push
	for _, m := range written {
		k := key{m.Conversation, m.UserID}
		w := batch[k]
		delete(batch, k)
		receipt := protocol.Receipt{Conversation: m.Conversation, User: w.name, Read: m.Read, Delivered: m.Delivered}
		w.answer(receipt, nil)
		frame, _ := json.Marshal(protocol.Frame{Receipt: &receipt}) // strings and numbers always encode
		to := []chat.Member{{ID: m.UserID}}
		if !w.large {
			to = s.members(ctx, rosters, m.Conversation)
		}
		pushes = push(pushes, local, told{to: to, frame: frame})
	}
	s.marks.WithLabelValues("written").Add(float64(len(written)))
	s.remote.Publish(pushes)
	if err == nil { // who is left is not a member any more
		err = chat.NoConversation()
	}
	for _, w := range batch {
		w.answer(protocol.Receipt{}, err)
	}
}

func (w *waiting) answer(r protocol.Receipt, err error) {
	for _, done := range w.done {
		done(r, err)
	}
}

// members are those of a small conversation as they are now: who was removed since the
// mark came is not told. Nobody is where they cannot be read.
func (s *Signals) members(ctx context.Context, known map[string][]chat.Member, conversation string) []chat.Member {
	list, ok := known[conversation]
	if !ok {
		if st, err := s.store.Standing(ctx, conversation); err == nil {
			list = st.Roster.Members
		}
		known[conversation] = list
	}
	return list
}

// Typing tells the other members that a user is typing. Too often is rate_limited.
func (s *Signals) Typing(ctx context.Context, from chat.User, conversation string) error {
	if err := chat.CheckConversationID("conversation", conversation); err != nil { // before it is remembered
		return err
	}
	if !s.mayType(key{conversation, from.ID}) {
		return protocol.NewError(protocol.CodeRateLimited, "", "typing was said a moment ago")
	}
	standing, err := s.standing(ctx, from, conversation)
	if err != nil || standing.Count > s.cfg.Shown {
		return err
	}
	if no := standing.Speaks(from.ID); no != nil {
		return no
	}
	to := s.members(ctx, map[string][]chat.Member{}, conversation)
	frame, _ := json.Marshal(protocol.Frame{Typing: &protocol.Typing{Conversation: conversation, User: from.Name}}) // always encodes
	others := slices.DeleteFunc(slices.Clone(to), func(m chat.Member) bool { return m.ID == from.ID })
	select {
	case s.out <- told{to: others, frame: frame}:
	default:
		s.typingDropped.Inc()
	}
	return nil
}

// maxTyping bounds the memory of who typed when.
const maxTyping = 50_000

func (s *Signals) mayType(k key) bool {
	now := s.now()
	s.typingMu.Lock()
	defer s.typingMu.Unlock()
	if now.Sub(s.typing[k]) < s.cfg.Typing {
		return false
	}
	if len(s.typing) >= maxTyping {
		clear(s.typing) // each may then be passed on once too often
	}
	s.typing[k] = now
	return true
}
