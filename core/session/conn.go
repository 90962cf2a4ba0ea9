package session

import (
	"encoding/json"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
)

// state is how far a connection is with its messages.
type state int

const (
	waiting  state = iota // for the first command; nothing is pushed
	catching              // a goroutine reads from the store; pushes only say that there is more
	live                  // pushes go straight to the queue
)

// conn is one connection. mu guards everything below it and is never held while
// something waits.
type conn struct {
	hub      *Hub
	ws       *websocket.Conn
	id       string
	who      Who
	group    group.ID
	born     time.Time
	limiter  *rate.Limiter
	slots    chan struct{} // sends waiting for the log
	lastSeen atomic.Int64  // unix nanoseconds of the newest sign of life
	lastPing atomic.Int64
	gone     chan struct{} // closed when the connection is

	mu        sync.Mutex
	state     state
	dirty     bool // while catching: there may be more than was read
	positions chat.Positions
	out       outbox
	moving    moving
}

func newConn(h *Hub, ws *websocket.Conn, who Who) *conn {
	c := &conn{
		hub: h, ws: ws, id: newID(), who: who, group: who.Group.ID(), born: time.Now(),
		limiter: rate.NewLimiter(rate.Limit(h.cfg.CommandRate), h.cfg.CommandBurst),
		slots:   make(chan struct{}, h.cfg.MaxInFlight), gone: make(chan struct{}),
	}
	c.seen()
	ws.SetReadLimit(h.cfg.FrameLimit)
	ws.SetPongHandler(func(string) error { c.seen(); return nil })
	return c
}

func (c *conn) seen() { c.lastSeen.Store(time.Now().UnixNano()) }

// send queues a frame of the server.
func (c *conn) send(f protocol.Frame) {
	b, _ := json.Marshal(f) // always encodes
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
			if c.queue(frame) {
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
	if c.state != live || !c.hasRoom() || !c.queue(frame) {
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
func (c *conn) tick(now time.Time) {
	silent := now.Sub(time.Unix(0, c.lastSeen.Load()))
	switch cfg := c.hub.cfg; {
	case now.After(c.who.Expires):
		c.close(protocol.CloseExpired, "token has expired", true)
	case silent >= cfg.StaleAfter:
		c.close(protocol.CloseStale, "no sign of life", false)
	case silent >= cfg.PingEvery && now.Sub(time.Unix(0, c.lastPing.Load())) >= cfg.PingEvery:
		c.lastPing.Store(now.UnixNano())
		c.ping()
	}
	c.mu.Lock()
	if c.state == waiting && now.Sub(c.born) >= c.hub.cfg.ResumeWait {
		c.begin(nil, 0)
	}
	c.mu.Unlock()
	c.closeMoved(now)
}

// jitter is a random part of d.
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}
