package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/core/protocol"
)

// ErrEnded is what Send says once Run has returned.
var ErrEnded = errors.New("session has ended")

// CloseError ends a session for good: the server closed with a code of 3500 or above,
// or refused the handshake with an error that is not temporary.
type CloseError struct {
	Code   int // WebSocket close code; 0 where the handshake was refused
	Reason string
}

func (e *CloseError) Error() string { return fmt.Sprintf("closed for good: %d %s", e.Code, e.Reason) }

// EventKind says what happened to a session's connection.
type EventKind string

// The kinds.
const (
	Opened EventKind = "opened" // a connection is ready; it replaced none that was alive
	Moved  EventKind = "moved"  // a connection is ready and took over from one that is still open
	Lost   EventKind = "lost"   // the connection broke or was closed by the server; the next is being opened
	Reset  EventKind = "reset"  // the server's epoch changed, or it has lost messages: OnMessage will see all again, from the first seqs on
)

// Event is a change of state, for people and for measurements.
type Event struct {
	Kind   EventKind
	Time   time.Time
	Hello  protocol.Hello // of the connection concerned
	Served Served         // of its handshake
	Err    error          // why it was lost
}

// SessionConfig says what a session starts from and whom it tells.
type SessionConfig struct {
	// Positions are the seqs last seen, by conversation. What came after them is
	// delivered first.
	Positions map[string]int64
	// OnMessage gets every message of the user's conversations (the user's own as
	// well), one at a time. While it runs the connection is not read.
	OnMessage func(protocol.Message)
	// OnSignal gets receipts and typing of the user's conversations, and changes of its
	// friends; some may be lost.
	// While it runs the connection is not read.
	OnSignal func(Signal)
	// OnEvent is told of changes of state. It must not block or call the session.
	OnEvent func(Event)
}

// Signal is what users tell each other beside the log; one of them is set.
type Signal struct {
	Receipt *protocol.Receipt
	Typing  *protocol.Typing
	Friend  *protocol.Friend
}

// Stats counts what the session had to make good.
type Stats struct {
	Opened, Moved, Lost int64
	// Duplicates came twice on the wire and were given out once, as when a resume
	// overlaps with live messages.
	Duplicates int64
	// Repairs is how often history was paged because a message was missing.
	Repairs int64
	// Dropped counts messages that came while too many were waiting for an earlier
	// one; they were taken from the history.
	Dropped int64
}

// Session is the live connection of a user. Run must be called once; Send may be
// called by any number of goroutines.
type Session struct {
	user *User
	cfg  SessionConfig
	wg   sync.WaitGroup // successors started by moves

	inMu sync.Mutex // held while OnMessage runs: order spans two connections during a move
	in   *inbox

	mu      sync.Mutex
	current *conn
	changed chan struct{} // closed and replaced when current changes
	epoch   string
	resume  string // token of the newest Hello or Reconnect
	stats   Stats

	ended chan struct{}
	err   error // set before ended is closed
}

// Session prepares a session; Run connects it.
func (u *User) Session(cfg SessionConfig) *Session {
	if cfg.OnMessage == nil {
		cfg.OnMessage = func(protocol.Message) {}
	}
	if cfg.OnSignal == nil {
		cfg.OnSignal = func(Signal) {}
	}
	if cfg.OnEvent == nil {
		cfg.OnEvent = func(Event) {}
	}
	return &Session{
		user:    u,
		cfg:     cfg,
		in:      newInbox(u.profile.Name, cfg.Positions),
		changed: make(chan struct{}),
		ended:   make(chan struct{}),
	}
}

// Run keeps the session connected until ctx is done (then it closes the connection
// and returns nil) or until the server ended it for good (then it returns a *CloseError).
func (s *Session) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.live(ctx, cancel, nil)
	s.wg.Wait() // a successor starts the next one before it ends, so the count cannot touch zero between

	var closed *CloseError
	if errors.As(context.Cause(ctx), &closed) {
		s.err = closed
	}
	close(s.ended)
	if s.err != nil {
		return s.err
	}
	return nil
}

// live opens a connection, makes it the current one and reads it until it ends; then
// the next, until ctx is done, the server ends the session for good, or a successor
// has taken over. old is the connection that this one replaces during a move.
func (s *Session) live(ctx context.Context, cancel context.CancelCauseFunc, old *conn) {
	for attempt := 0; ctx.Err() == nil; {
		c, err := s.open(ctx)
		if err != nil {
			if fatal := s.final(ctx, err); fatal != nil {
				cancel(fatal)
				return
			}
			if !sleep(ctx, s.pause(attempt)) {
				return
			}
			attempt++
			continue
		}
		born := time.Now()
		s.promote(c, old)
		old = nil
		err = s.read(ctx, c, func() {
			s.wg.Go(func() { s.succeed(ctx, cancel, c) })
		})
		c.close(websocket.CloseNormalClosure)
		if ctx.Err() != nil {
			err = nil // it was us
		}
		s.demote(c, err)
		if fatal := s.final(ctx, err); fatal != nil {
			cancel(fatal)
			return
		}
		if c.successor != nil {
			close(c.successor) // it is in charge now, and at once
			return
		}
		if time.Since(born) > s.user.c.cfg.Retry.Max {
			attempt = 0
		}
		if !sleep(ctx, s.pause(attempt)) {
			return
		}
		attempt++
	}
}

// succeed takes over from old after the pause that the server asked for, or at once
// when old ends before.
func (s *Session) succeed(ctx context.Context, cancel context.CancelCauseFunc, old *conn) {
	t := time.NewTimer(old.delay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-old.successor:
	case <-ctx.Done():
		return
	}
	s.live(ctx, cancel, old)
}

func (s *Session) pause(attempt int) time.Duration {
	cfg := s.user.c.cfg
	return cfg.Retry.Pause(attempt, cfg.Random())
}

// promote makes c current, and lets old go once its replies are in.
func (s *Session) promote(c, old *conn) {
	moved := old != nil && old.alive()
	kind := Opened
	s.mu.Lock()
	if moved {
		kind = Moved
		s.stats.Moved++
	} else {
		s.stats.Opened++
	}
	s.current = c
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	s.cfg.OnEvent(Event{Kind: kind, Time: time.Now(), Hello: c.hello, Served: c.served})
	if old != nil {
		old.retire(s.user.c.cfg.Timeout)
	}
}

// demote takes c away when it has ended; err is why, nil when the session ends.
func (s *Session) demote(c *conn, err error) {
	s.mu.Lock()
	if s.current == c {
		s.current = nil
		close(s.changed)
		s.changed = make(chan struct{})
	} else {
		err = nil // replaced already: nobody misses it
	}
	if err != nil {
		s.stats.Lost++
	}
	s.mu.Unlock()
	if err != nil {
		s.cfg.OnEvent(Event{Kind: Lost, Time: time.Now(), Hello: c.hello, Served: c.served, Err: err})
	}
}

// ready waits for a connection to send on.
func (s *Session) ready(ctx context.Context) (*conn, error) {
	for {
		s.mu.Lock()
		c, changed := s.current, s.changed
		s.mu.Unlock()
		if c != nil {
			return c, nil
		}
		select {
		case <-changed:
		case <-s.ended:
			if s.err != nil {
				return nil, fmt.Errorf("%w: %w", ErrEnded, s.err)
			}
			return nil, ErrEnded
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for connection: %w", ctx.Err())
		}
	}
}

// Send sends a message; it is durable when Send returns without an error. It waits
// for a connection, and repeats under the same client id over reconnects, within
// the bounds of Config.Retry and ctx.
func (s *Session) Send(ctx context.Context, m protocol.Send) (protocol.Accepted, Served, error) {
	return s.command(ctx, "ws send", protocol.Command{Send: &m})
}

// Edit replaces the text of a message of the user's own, as surely as Send.
func (s *Session) Edit(ctx context.Context, m protocol.Edit) (protocol.Accepted, Served, error) {
	return s.command(ctx, "ws edit", protocol.Command{Edit: &m})
}

// Recall takes back a message, as surely as Send.
func (s *Session) Recall(ctx context.Context, m protocol.Recall) (protocol.Accepted, Served, error) {
	return s.command(ctx, "ws recall", protocol.Command{Recall: &m})
}

// React reacts to a message, as surely as Send.
func (s *Session) React(ctx context.Context, m protocol.React) (protocol.Accepted, Served, error) {
	return s.command(ctx, "ws react", protocol.Command{React: &m})
}

// Unreact takes a reaction back, as surely as Send.
func (s *Session) Unreact(ctx context.Context, m protocol.React) (protocol.Accepted, Served, error) {
	return s.command(ctx, "ws unreact", protocol.Command{Unreact: &m})
}

// Mark says how far the user has read, and how far this device has got; see
// protocol.Mark. The positions are durable when it returns without an error.
func (s *Session) Mark(ctx context.Context, m protocol.Mark) (r protocol.Receipt, served Served, err error) {
	f, served, err := s.do(ctx, "ws mark", protocol.Command{Mark: &m})
	switch {
	case err != nil:
		return r, served, err
	case f.Receipt == nil:
		return r, served, errors.New("ws mark: reply is neither a receipt nor an error")
	}
	return *f.Receipt, served, nil
}

// Typing tells the others that the user is typing. It is not repeated: the next one
// comes soon.
func (s *Session) Typing(ctx context.Context, conversation string) error {
	if _, _, _, err := s.once(ctx, protocol.Command{Typing: &protocol.Typing{Conversation: conversation}}); err != nil {
		return fmt.Errorf("ws typing: %w", err)
	}
	return nil
}

// command has something accepted.
func (s *Session) command(ctx context.Context, op string, cmd protocol.Command) (a protocol.Accepted, served Served, err error) {
	f, served, err := s.do(ctx, op, cmd)
	switch {
	case err != nil:
		return a, served, err
	case f.Accepted == nil:
		return a, served, fmt.Errorf("%s: reply is neither accepted nor an error", op)
	}
	return *f.Accepted, served, nil
}

// do makes the attempts of a command that may be repeated.
func (s *Session) do(ctx context.Context, op string, cmd protocol.Command) (protocol.Frame, Served, error) {
	cfg := s.user.c.cfg
	unknown := false
	for i := 0; ; i++ {
		start := time.Now()
		f, served, wrote, err := s.once(ctx, cmd)
		s.user.c.observe(Attempt{Op: op, Start: start, Took: time.Since(start), Served: served, Err: err})
		if err == nil {
			return f, served, nil
		}
		temporary, maybe := judge(err)
		unknown = unknown || maybe && wrote
		if temporary && !errors.Is(err, ErrEnded) && i+1 < cfg.Retry.Attempts && sleep(ctx, s.pause(i)) {
			continue
		}
		if unknown {
			return f, served, fmt.Errorf("%s: %w: %w", op, ErrUnknownOutcome, err)
		}
		return f, served, fmt.Errorf("%s: %w", op, err)
	}
}

// once makes one attempt; wrote says whether the server may have seen it.
func (s *Session) once(ctx context.Context, cmd protocol.Command) (f protocol.Frame, by Served, wrote bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.user.c.cfg.Timeout)
	defer cancel()
	c, err := s.ready(ctx)
	if err != nil {
		return f, by, false, err
	}
	by = Served{Group: c.hello.Group, Pool: c.hello.Pool, Node: c.hello.Node}
	f, wrote, err = c.do(ctx, cmd)
	if err == nil && f.Error != nil {
		err = f.Error
	}
	return f, by, wrote, err
}

// Follow makes the session expect a conversation's messages after seq, so that a
// first message that is lost on the way is noticed. Conversations in
// SessionConfig.Positions, and those of which a message has come, are followed already.
func (s *Session) Follow(conversation string, seq int64) {
	s.inMu.Lock()
	defer s.inMu.Unlock()
	s.in.follow(conversation, seq)
}

// Positions is the last seq given out, by conversation: what another session could
// start from.
func (s *Session) Positions() map[string]int64 {
	s.inMu.Lock()
	defer s.inMu.Unlock()
	return s.in.positions()
}

// Hello is what the current connection was greeted with; ok is false while there is none.
func (s *Session) Hello() (h protocol.Hello, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return h, false
	}
	return s.current.hello, true
}

// WaitReady waits until there is a connection, ctx is done, or the session has ended.
func (s *Session) WaitReady(ctx context.Context) error {
	_, err := s.ready(ctx)
	return err
}

// Stats is what happened so far.
func (s *Session) Stats() Stats {
	s.mu.Lock()
	st := s.stats
	s.mu.Unlock()
	s.inMu.Lock()
	defer s.inMu.Unlock()
	st.Duplicates, st.Dropped = s.in.duplicates, s.in.dropped
	return st
}

// final is terminal, unless the access token was to blame and the session of core goes on:
// then the next connection has a new token.
func (s *Session) final(ctx context.Context, err error) *CloseError {
	fatal := terminal(err)
	if fatal == nil || fatal.Code != protocol.CloseExpired && !isUnauthenticated(err) {
		return fatal
	}
	if err := s.user.renew(ctx, s.user.tokens.current()); isFinal(err) {
		return fatal
	}
	return nil
}

// terminal says whether an end of a connection, or a refused handshake, is final.
func terminal(err error) *CloseError {
	var ce *websocket.CloseError
	if errors.As(err, &ce) && ce.Code >= protocol.CloseExpired {
		return &CloseError{Code: ce.Code, Reason: ce.Text}
	}
	var pe *protocol.Error
	if errors.As(err, &pe) && !pe.Temporary {
		return &CloseError{Reason: pe.Error()}
	}
	return nil
}
