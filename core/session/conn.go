package session

import (
	crand "crypto/rand"
	"encoding/base32"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"

	"github.com/tracegate/tracegate/core/bucket"
	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// state is how far a connection is with its messages.
type state uint8

const (
	waiting  state = iota // for the first command; nothing is pushed
	catching              // a goroutine reads from the store; pushes only say that there is more
	live                  // pushes go straight to the queue
)

// conn is one connection. mu guards everything below it, and state, dirty and moveCode, and
// is never held while something waits.
//
// There are many of them and most are idle, so it is kept small, 288 bytes, which the
// allocator has a size for: times are unix nanoseconds (8 bytes instead of 24), what only
// some need is made when they do (a channel is 96 bytes), what many have in common is
// shared (see origin), and small fields stand together.
type conn struct {
	hub      *Hub
	tcp      *net.TCPConn // what is read from it goes through gorilla, see readLoop; nil where there is a stream
	stream   *stream
	origin   *origin
	userID   string
	userName string
	id       [16]byte  // see session
	login    uuid.UUID // of the log-in session
	upgrade  spanIDs
	binary   bool // frames are protobuf; never changes
	state    state
	dirty    bool   // while catching: there may be more than was read
	pings    uint8  // since the last sign of life; the ticker's
	moveCode uint16 // to close with at moveBy
	expires  int64  // of the log-in session
	born     int64
	lastSeen atomic.Int64  // the newest sign of life
	commands bucket.Bucket // used by the one goroutine that handles a command
	slots    chan struct{} // sends waiting for the log; made by the first of them

	mu        sync.Mutex
	positions chat.Positions
	out       outbox
	moveBy    int64         // when it is closed, as it was asked to go elsewhere; zero: it was not
	gone      chan struct{} // closed when the connection is; nil while nobody waits for it
}

// spanIDs are what a link to a span needs of its context: a trace.SpanContext has 24
// bytes more, for a trace state that links have no use for.
type spanIDs struct {
	trace trace.TraceID
	span  trace.SpanID
	flags trace.TraceFlags
}

func (s spanIDs) context() trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: s.trace, SpanID: s.span, TraceFlags: s.flags, Remote: true})
}

func newConn(h *Hub, tcp *net.TCPConn, who Who) *conn {
	up := who.Upgrade
	c := &conn{
		hub: h, tcp: tcp, origin: newOrigin(who), userID: who.User.ID, userName: who.User.Name, upgrade: spanIDs{trace: up.TraceID(), span: up.SpanID(), flags: up.TraceFlags()},
		expires: who.Expires.UnixNano(), born: time.Now().UnixNano(),
	}
	c.login, _ = uuid.Parse(who.Session) // none: then nothing ends it
	_, _ = crand.Read(c.id[:])           // never fails
	c.seen()
	return c
}

func (c *conn) user() chat.User {
	return chat.User{ID: c.userID, Name: c.userName, Tenant: c.origin.tenant}
}

func (c *conn) seen() { c.lastSeen.Store(time.Now().UnixNano()) }

// session is the id that the client is told, and its token for the next connection.
func (c *conn) session() string {
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(c.id[:])
}

// send queues a frame of the server.
func (c *conn) send(f protocol.Frame) {
	b := c.encode(f)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue(b)
}

// deliver judges a push by the connection's position.
func (c *conn) deliver(conversation string, seq int64, frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case waiting: // what is stored by now is among the heads that are read later
	case catching:
		c.dirty = true
	case live:
		if len(frame) == 0 {
			if seq > c.positions.At(conversation) {
				c.startCatchUp("hint")
			}
			return
		}
		switch c.positions.Next(conversation, seq) {
		case chat.Deliver:
			if c.queue(c.coded(frame)) {
				c.hub.metrics.pushed.Inc()
			}
		case chat.Gap:
			c.startCatchUp("gap")
		case chat.Drop:
			c.hub.metrics.dropped.Inc()
		}
	}
}

// signal pushes a frame that nobody misses, where there is room.
func (c *conn) signal(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != live || !c.hasRoom() || !c.queue(c.coded(frame)) {
		c.hub.metrics.signalsDropped.Inc()
	}
}

// compare starts a replay when the store has more than was sent.
func (c *conn) compare(heads map[string]chat.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case waiting:
	case catching:
		c.dirty = true
	case live:
		behind := false
		c.positions.Behind(heads, func(string, int64) { behind = true })
		if behind {
			c.startCatchUp("tick")
		}
	}
}

// tick does what is due at a time.
func (c *conn) tick(at time.Time) {
	now := at.UnixNano()
	seen, limits := c.lastSeen.Load(), c.hub.limits.Load()
	silent := time.Duration(now - seen)
	if silent < limits.PingEvery {
		c.pings = 0
	}
	switch {
	case now > c.expires:
		c.close(protocol.CloseExpired, true)
	case time.Duration(now-max(seen, limits.since)) >= limits.StaleAfter:
		c.close(protocol.CloseStale, false)
	case silent >= limits.PingEvery*(time.Duration(c.pings)+1) && c.pings < math.MaxUint8:
		c.pings++
		c.ping()
	}
	c.mu.Lock()
	if c.state == waiting && time.Duration(now-c.born) >= c.hub.cfg.ResumeWait {
		c.begin(nil, 0)
	}
	c.mu.Unlock()
	c.closeMoved(now)
}

// untilGone is closed when the connection is. One at a time waits for it.
func (c *conn) untilGone() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone == nil {
		c.gone = make(chan struct{})
		if c.out.closed {
			close(c.gone)
		}
	}
	return c.gone
}

// stopWaiting frees what untilGone has made: an idle connection keeps no channel.
func (c *conn) stopWaiting() {
	c.mu.Lock()
	c.gone = nil
	c.mu.Unlock()
}

// markClosed lets nothing more into the queue, and counts why the connection ends; mu is
// held and the connection is not closed yet.
func (c *conn) markClosed(label string) {
	c.out.closed = true
	if c.gone != nil {
		close(c.gone)
	}
	c.hub.metrics.closed.WithLabelValues(label).Inc()
}

// jitter is a random part of d.
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}
