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
	"math"
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
	Origins []string // allowed beside the page's own, as "https://host[:port]"
	Limits           // at the start; see Hub.Limit

	FrameLimit   int64         // bytes of a client's frame; the first one may have MaxResume
	MaxInFlight  int           // sends of one connection waiting for the log; beyond it the connection is not read
	WriteTimeout time.Duration // of what is written at once

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

// Limits are what connections may do and cost, as far as it may be replaced while they are
// open.
type Limits struct {
	MaxSockets int `yaml:"max"`        // of this process
	MaxPerUser int `yaml:"maxPerUser"` // of one user on this process
	// MaxPerUserAll is of one user on all processes together, as far as Seats knows. It
	// needs room for connections that have moved and whose old ones are not gone yet, or
	// not known to be: those of a process that was killed count for as long as its lease.
	MaxPerUserAll int `yaml:"maxPerUserAll"`

	AcceptRate  float64 `yaml:"acceptsPerSecond"` // new connections a second; beyond it they are told to come back
	AcceptBurst int     `yaml:"acceptBurst"`      // new connections at once, as when a group has moved here

	CommandRate  float64 `yaml:"commandsPerSecond"` // of one connection
	CommandBurst int     `yaml:"commandBurst"`      // commands at once

	// QueueFrames and QueueBytes are what may wait to be written to one connection; one that
	// does not read what it is sent is closed beyond them.
	QueueFrames int `yaml:"queueFrames"`
	QueueBytes  int `yaml:"queueBytes"`

	PingEvery  time.Duration `yaml:"pingEvery"`  // silence after which a connection is pinged
	StaleAfter time.Duration `yaml:"staleAfter"` // silence after which it is closed; longer than PingEvery
}

// Check reports each key that cannot be used.
func (l Limits) Check(invalid func(key, why string)) {
	for _, n := range []struct {
		key string
		ok  bool
		why string
	}{
		{"max", l.MaxSockets > 0, "must be above 0"},
		{"maxPerUser", l.MaxPerUser > 0, "must be above 0"},
		{"maxPerUserAll", l.MaxPerUserAll >= l.MaxPerUser, "must not be below maxPerUser"},
		{"acceptsPerSecond", l.AcceptRate > 0 && !math.IsInf(l.AcceptRate, 1), "must be above 0"},
		{"acceptBurst", l.AcceptBurst > 0, "must be above 0"},
		{"commandsPerSecond", l.CommandRate > 0 && !math.IsInf(l.CommandRate, 1), "must be above 0"},
		{"commandBurst", l.CommandBurst > 0, "must be above 0"},
		{"queueFrames", l.QueueFrames >= 8, "must be at least 8"},
		{"queueBytes", l.QueueBytes >= 64<<10 && l.QueueBytes <= 1<<30, "must be 65536 to 1073741824"},
		{"pingEvery", l.PingEvery > 0, "must be above 0"},
		{"staleAfter", l.StaleAfter > l.PingEvery, "must be longer than pingEvery"},
	} {
		if !n.ok {
			invalid(n.key, n.why)
		}
	}
}

// DefaultConfig fits a process with some ten thousand connections.
func DefaultConfig() Config {
	return Config{
		Limits: Limits{
			MaxSockets: 20_000, MaxPerUser: 16, MaxPerUserAll: 32, AcceptRate: 2_000, AcceptBurst: 5_000,
			CommandRate: 100, CommandBurst: 200, QueueFrames: 512, QueueBytes: 1 << 20,
			PingEvery: 25 * time.Second, StaleAfter: 40 * time.Second,
		},
		FrameLimit: 32 << 10, MaxInFlight: 64, WriteTimeout: 10 * time.Second,
		ResumeWait: 2 * time.Second, CatchUpEvery: 5 * time.Second, CatchUpFast: 500 * time.Millisecond,
		ReplayPage: 200, ReplayReaders: 8,
		MoveSettle: time.Second, MoveSpread: 500 * time.Millisecond, MoveGrace: 10 * time.Second,
		MoveBackoff: 30 * time.Second, MoveBackoffMax: 10 * time.Minute,
	}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	var err error
	c.Check(func(key, why string) {
		if err == nil {
			err = errors.New(key + ": " + why)
		}
	})
	if err != nil {
		return err
	}
	for _, n := range []struct {
		key string
		ok  bool
	}{
		{"frame_limit", c.FrameLimit >= 2*chat.MaxText},
		{"max_in_flight", c.MaxInFlight > 0},
		{"write_timeout", c.WriteTimeout > 0},
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
	// Edit, Recall, React and Unreact are as Accept.
	Edit(ctx context.Context, from chat.User, m protocol.Edit, traceID string, done func(protocol.Accepted, error))
	Recall(ctx context.Context, from chat.User, m protocol.Recall, traceID string, done func(protocol.Accepted, error))
	React(ctx context.Context, from chat.User, m protocol.React, traceID string, done func(protocol.Accepted, error))
	Unreact(ctx context.Context, from chat.User, m protocol.React, traceID string, done func(protocol.Accepted, error))
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

// Seats counts the connections of users on all processes.
type Seats interface {
	// Claim says whether a user who would have mine connections here stays within a limit
	// together with those elsewhere; true where that is not known. It waits briefly.
	Claim(ctx context.Context, user string, mine, limit int) bool
	// Seated says how many a user has here now. It does not wait.
	Seated(user string, n int)
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
	Session string    // log-in session, a UUID; see Hub.End
	Expires time.Time // of that session, unless it ends before
	Group   group.Group
	Baggage baggage.Baggage   // travels with every command
	Upgrade trace.SpanContext // linked from every command
	Edge    string            // the Envoy it came by, see semconv.HeaderEdge; empty: none has said
	Address string            // of this process, that it came to
}
