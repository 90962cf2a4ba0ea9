package session

import (
	"context"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/placement"
)

// move is what a group was asked lately, so that connections which come back (the
// other pool has no healthy endpoint, and the edge sent them here on purpose) are not
// sent in circles.
type move struct {
	version int64
	next    time.Time // not asked again before
	pause   time.Duration
}

// Place takes a placement. Older ones than the newest are ignored.
func (h *Hub) Place(p placement.Placement) {
	now := time.Now()
	h.mu.Lock()
	if h.placed && p.Version < h.place.Version {
		h.mu.Unlock()
		return
	}
	if !h.placed || p.Version > h.place.Version {
		h.placedAt = now
	}
	h.place, h.placed = p, true
	for g, m := range h.moves {
		if m.version < p.Version {
			delete(h.moves, g)
		}
	}
	h.mu.Unlock()
	h.movePlaced(now)
}

// movePlaced asks the connections whose group belongs elsewhere to move, once for each
// placement, and again after a pause that grows; and those whose Envoy another one has
// taken over from, which ends soon; and all that came to an address that is to be left.
func (h *Hub) movePlaced(now time.Time) {
	h.mu.Lock()
	place, placed, placedAt := h.place, h.placed, h.placedAt
	h.mu.Unlock()
	if !placed {
		return
	}
	settled := placedAt.Add(h.cfg.MoveSettle).UnixNano()
	due := map[group.ID]bool{} // decided once for each group
	h.each(func(c *conn) {
		if place.Superseded(c.origin.edge) {
			c.askToMove(now, h.cfg.MoveSpread, h.cfg.MoveGrace, protocol.CloseMoved, "edge")
			return
		}
		if place.Drains(c.origin.address) {
			if c.born < settled { // later ones were sent here because there is nowhere else
				c.askToMove(now, h.cfg.MoveSpread, h.cfg.MoveGrace, protocol.CloseMoved, "drain")
			}
			return
		}
		if place.PoolOf(c.origin.group, c.userID) == h.deps.Pool {
			c.stay()
			return
		}
		ask, known := due[c.origin.id]
		if !known {
			ask = h.due(c.origin.id, place.Version, now)
			due[c.origin.id] = ask
		}
		if ask || c.born < settled {
			c.askToMove(now, h.cfg.MoveSpread, h.cfg.MoveGrace, protocol.CloseMoved, "placement")
		}
	})
}

// due says whether a group is to be asked now, and notes that it is.
func (h *Hub) due(g group.ID, version int64, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.moves[g]
	switch {
	case m == nil:
		h.moves[g] = &move{version: version, next: now.Add(h.cfg.MoveBackoff), pause: h.cfg.MoveBackoff}
		return true
	case now.Before(m.next):
		return false
	default:
		m.pause = min(2*m.pause, h.cfg.MoveBackoffMax)
		m.next = now.Add(m.pause)
		return true
	}
}

// askToMove asks a client once; the delay that spreads many is the client's to wait.
func (c *conn) askToMove(now time.Time, spread, grace time.Duration, code int, reason string) {
	delay := jitter(spread)
	c.mu.Lock()
	asked := c.moveBy != 0 || c.out.closed
	if !asked {
		c.moveBy, c.moveCode = now.Add(delay+grace).UnixNano(), uint16(code)
	}
	c.mu.Unlock()
	if asked {
		return
	}
	c.hub.metrics.moves.WithLabelValues(reason).Inc()
	c.send(protocol.Frame{Reconnect: &protocol.Reconnect{
		DelayMS: delay.Milliseconds(), GraceMS: grace.Milliseconds(), Resume: c.session(), Reason: reason,
	}})
}

// stay forgets that a client was asked to move: its group belongs here again.
func (c *conn) stay() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.moveCode == protocol.CloseMoved {
		c.moveBy, c.moveCode = 0, 0
	}
}

// closeMoved closes a connection whose grace is over.
func (c *conn) closeMoved(now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.moveBy != 0 && now > c.moveBy {
		c.closeLocked(int(c.moveCode), true)
	}
}

// Drain refuses new connections, asks all others to go elsewhere, spread over spread,
// and returns when they are gone or grace is over, whichever comes first; Run then
// closes what is left.
func (h *Hub) Drain(ctx context.Context, spread, grace time.Duration) {
	h.mu.Lock()
	h.draining = true
	h.mu.Unlock()
	now := time.Now()
	h.each(func(c *conn) {
		c.stay() // a move that is under way becomes this one
		c.askToMove(now, spread, grace, protocol.CloseShutdown, "shutdown")
	})
	ctx, cancel := context.WithTimeout(ctx, spread+grace)
	defer cancel()
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for h.Sockets() > 0 {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// Sockets is how many connections there are.
func (h *Hub) Sockets() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sockets
}

// GroupSockets is how many connections a group has here.
type GroupSockets struct {
	Group   group.ID `json:"group"`
	Color   string   `json:"color"`
	Env     string   `json:"env"`
	Tenant  string   `json:"tenant"`
	Pool    string   `json:"pool"` // where the group belongs; empty while that is not known
	Users   int      `json:"users"`
	Sockets int      `json:"sockets"`
}

// Groups counts connections by group.
func (h *Hub) Groups() []GroupSockets {
	h.mu.Lock()
	defer h.mu.Unlock()
	byID := map[group.ID]*GroupSockets{}
	out := []GroupSockets{}
	for _, list := range h.users {
		counted := map[group.ID]bool{}
		for _, c := range list {
			o := c.origin
			g := byID[o.id]
			if g == nil {
				g = &GroupSockets{Group: o.id, Color: o.group.Color.String(), Env: o.group.Env, Tenant: o.group.Tenant}
				if h.placed {
					g.Pool = h.place.Pool(o.group)
				}
				byID[o.id] = g
			}
			g.Sockets++
			if !counted[o.id] {
				counted[o.id] = true
				g.Users++
			}
		}
	}
	for _, g := range byID {
		out = append(out, *g)
	}
	return out
}
