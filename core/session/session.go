// Package session keeps the WebSockets of this process: who is connected, what each
// connection has been sent, and where its group should be served.
//
// # Delivery
//
// A connection's messages come exactly once and in order, whatever the fan-out loses,
// repeats or reorders, because each connection keeps the last sequence number it was
// sent for each conversation (chat.Positions): the next one is pushed, older ones are
// dropped, and one that leaves a gap is not pushed but makes the connection read the
// gap from the store. A push is therefore only ever a hint that comes early, and a
// slow tick that compares heads finds the messages that no push has announced.
//
// Writing never blocks who pushes. A connection has a bounded queue and a goroutine
// that empties it while there is something in it; a connection whose queue is full is
// closed with a code that says so, and gets what it missed when it resumes. Replays
// wait for room instead, since nobody else waits for them.
//
// A push to a large group comes once for all its members, with the version of the roster
// that it is meant for (groups.go). Who is removed is not in it; and replays read only
// what the user may see. So nothing that came after a removal reaches who was removed,
// however late this process learns of it.
//
// # Placement
//
// When a group is moved to another pool, its connections here are asked to reconnect,
// spread over a moment; the edge takes the new ones to where the group now lives, and
// the old ones are closed after a grace. A connection that arrives here although its
// group belongs elsewhere was sent here by the edge on purpose (the other pool has no
// healthy endpoint), so it is asked again only after a growing pause.
//
// # Cost
//
// An idle connection costs one goroutine, its reader, and some 6 KB in all
// (docs/benchmarks.md); it was 10. Half of the difference is the reader's stack, which
// must not grow (see readLoop), the rest is what connections share (see origin, borrow)
// or make only when they need it (see conn). gorilla reads and we write, because a
// server's frames are simple and many go into one system call.
//
// The package does not check tokens, accept messages or know what a store is: see the
// interfaces below. Its callers are core/api (Upgrade), core/deliver (Deliver),
// core/fanout (Deliver, CatchUp) and core.Run.
package session

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/placement"
)

// Config bounds what connections may do and cost.
type Config struct {
	Origins    []string // allowed beside the page's own, as "https://host[:port]"
	MaxSockets int      // of this process
	MaxPerUser int      // of one user on this process

	AcceptRate  float64 // new connections a second; beyond it they are told to come back
	AcceptBurst int     // new connections at once, as when a group has moved here

	FrameLimit   int64         // bytes of a client's frame
	CommandRate  float64       // commands a second of one connection
	CommandBurst int           // commands at once
	MaxInFlight  int           // sends of one connection waiting for the log; beyond it the connection is not read
	QueueFrames  int           // frames waiting to be written to one connection
	QueueBytes   int           // their bytes
	WriteTimeout time.Duration // of what is written at once

	PingEvery  time.Duration // silence after which a connection is pinged
	StaleAfter time.Duration // silence after which it is closed; longer than PingEvery

	ResumeWait    time.Duration // how long messages are held back for the first command
	CatchUpEvery  time.Duration // how often positions are compared with the store
	CatchUpFast   time.Duration // the same while the fan-out is not healthy
	ReplayPage    int           // messages read from the store at a time
	ReplayReaders int           // connections that read from the store at a time

	MoveSettle     time.Duration // after a placement for which connections may still come by old routes
	MoveSpread     time.Duration // over which the connections of a group are asked to move
	MoveGrace      time.Duration // after which those that stayed are closed
	MoveBackoff    time.Duration // before those that came back are asked again; doubles
	MoveBackoffMax time.Duration
}

// DefaultConfig fits a process with some ten thousand connections.
func DefaultConfig() Config {
	return Config{
		MaxSockets: 20_000, MaxPerUser: 16, AcceptRate: 2_000, AcceptBurst: 5_000,
		FrameLimit: 32 << 10, CommandRate: 100, CommandBurst: 200, MaxInFlight: 64,
		QueueFrames: 512, QueueBytes: 1 << 20, WriteTimeout: 10 * time.Second,
		PingEvery: 25 * time.Second, StaleAfter: 40 * time.Second,
		ResumeWait: 2 * time.Second, CatchUpEvery: 5 * time.Second, CatchUpFast: 500 * time.Millisecond,
		ReplayPage: 200, ReplayReaders: 8,
		MoveSettle: time.Second, MoveSpread: 500 * time.Millisecond, MoveGrace: 10 * time.Second,
		MoveBackoff: 30 * time.Second, MoveBackoffMax: 10 * time.Minute,
	}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	for _, n := range []struct {
		key string
		ok  bool
	}{
		{"max_sockets", c.MaxSockets > 0},
		{"max_per_user", c.MaxPerUser > 0},
		{"accept_rate", c.AcceptRate > 0},
		{"accept_burst", c.AcceptBurst > 0},
		{"frame_limit", c.FrameLimit >= 2*chat.MaxText},
		{"command_rate", c.CommandRate > 0},
		{"command_burst", c.CommandBurst > 0},
		{"max_in_flight", c.MaxInFlight > 0},
		{"queue_frames", c.QueueFrames >= 8},
		{"queue_bytes", c.QueueBytes >= 64<<10},
		{"write_timeout", c.WriteTimeout > 0},
		{"ping_every", c.PingEvery > 0},
		{"stale_after", c.StaleAfter > c.PingEvery},
		{"resume_wait", c.ResumeWait > 0},
		{"catch_up_every", c.CatchUpEvery > 0},
		{"catch_up_fast", c.CatchUpFast > 0},
		{"replay_page", c.ReplayPage > 0},
		{"replay_readers", c.ReplayReaders > 0},
		{"move_settle", c.MoveSettle >= 0},
		{"move_spread", c.MoveSpread >= 0},
		{"move_grace", c.MoveGrace > 0},
		{"move_backoff", c.MoveBackoff > 0},
		{"move_backoff_max", c.MoveBackoffMax >= c.MoveBackoff},
	} {
		if !n.ok {
			return errors.New(n.key + ": out of range")
		}
	}
	return nil
}

// History is where entries are kept.
type History interface {
	// Heads returns what each user that has any conversation may see of each.
	Heads(ctx context.Context, userIDs ...string) (map[string]map[string]chat.Span, error)
	// Messages returns at most limit entries after a seq that the user may see, in order
	// and without gaps.
	Messages(ctx context.Context, userID, conversation string, after int64, limit int) ([]protocol.Message, error)
	// Standing says who is in a conversation now.
	Standing(ctx context.Context, conversation string) (chat.Standing, error)
	// Epoch names the history; positions of another one mean nothing.
	Epoch() string
}

// Sender accepts what users send.
type Sender interface {
	// Accept calls done exactly once, possibly before it returns. An error that is not
	// a *protocol.Error is internal. Calls of one goroutine keep their order.
	Accept(ctx context.Context, from chat.User, m protocol.Send, traceID string, done func(protocol.Accepted, error))
	// Edit and Recall are as Accept.
	Edit(ctx context.Context, from chat.User, m protocol.Edit, traceID string, done func(protocol.Accepted, error))
	Recall(ctx context.Context, from chat.User, m protocol.Recall, traceID string, done func(protocol.Accepted, error))
}

// Signals takes what members tell each other beside the log.
type Signals interface {
	// Mark calls done exactly once, possibly before it returns, when the positions are
	// durable.
	Mark(ctx context.Context, from chat.User, m protocol.Mark, done func(protocol.Receipt, error))
	// Typing does not wait for anybody.
	Typing(ctx context.Context, from chat.User, conversation string) error
}

// Subscriptions makes pushes for users arrive at this process. Its methods do not wait.
type Subscriptions interface {
	Subscribe(user string)
	Unsubscribe(user string)
	// Healthy says whether pushes can be expected to arrive.
	Healthy() bool
}

// Placements is where groups live, as the control plane says.
type Placements interface {
	// WatchPlacement calls each with the current placement and with every newer one, one at a
	// time, until ctx is done. It reconnects by itself.
	WatchPlacement(ctx context.Context, each func(placement.Placement)) error
}

// Fault is injected trouble; see core/fault.
type Fault interface {
	// Roll says how long a request is delayed and whether it fails.
	Roll() (delay time.Duration, fail bool)
}

// Who is a connection's user and the group of its upgrade request.
type Who struct {
	User    chat.User
	Expires time.Time // of the token
	Group   group.Group
	Baggage baggage.Baggage   // travels with every command
	Upgrade trace.SpanContext // linked from every command
}
