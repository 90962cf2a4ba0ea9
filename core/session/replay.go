package session

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// begin decides where the connection starts and pushes what it missed; mu is held and
// the state is waiting. r may be nil: then it starts with what comes next.
func (c *conn) begin(r *protocol.Resume, id uint32) {
	if c.out.closed {
		return
	}
	c.state = catching
	c.hub.metrics.catchUps.WithLabelValues("resume").Inc()
	c.hub.running.Go(func() {
		if c.start(r, id) {
			c.follow()
		}
	})
}

// startCatchUp reads what is missing from the store; mu is held and the state is live.
func (c *conn) startCatchUp(cause string) {
	c.state = catching
	c.dirty = true
	c.hub.metrics.catchUps.WithLabelValues(cause).Inc()
	c.hub.running.Go(func() { c.follow() })
}

// start sets the positions, replays up to the heads, and answers the Resume.
func (c *conn) start(r *protocol.Resume, id uint32) bool {
	heads, ok := c.readHeads()
	if !ok {
		return false
	}
	var seen map[string]int64
	same := true
	if r != nil {
		seen, same = r.Positions, r.Epoch == c.hub.deps.History.Epoch()
	}
	positions, recovered := chat.Resume(heads, seen, same)
	c.mu.Lock()
	c.positions = positions
	c.mu.Unlock()
	replayed, ok := c.replay(heads)
	if ok && r != nil {
		c.send(protocol.Frame{ID: id, Resumed: &protocol.Resumed{Recovered: recovered, Replayed: replayed}})
		c.hub.metrics.resumes.WithLabelValues(fmt.Sprint(recovered)).Inc()
	}
	return ok
}

// follow replays until nothing has come in between, and then goes live.
func (c *conn) follow() {
	for {
		c.mu.Lock()
		if c.out.closed {
			c.mu.Unlock()
			return
		}
		if !c.dirty {
			c.state = live
			c.mu.Unlock()
			return
		}
		c.dirty = false
		c.mu.Unlock()
		heads, ok := c.readHeads()
		if !ok {
			return
		}
		if _, ok := c.replay(heads); !ok {
			return
		}
	}
}

// replay pushes everything between the positions and the heads, waiting for room in the
// queue; false when the connection has been closed.
func (c *conn) replay(heads map[string]chat.Span) (replayed int, ok bool) {
	c.mu.Lock()
	behind := map[string]int64{}
	c.positions.Behind(heads, func(conversation string, after int64) { behind[conversation] = after })
	c.mu.Unlock()
	for _, conversation := range slices.Sorted(maps.Keys(behind)) {
		n, ok := c.replayOne(conversation, behind[conversation], heads[conversation].Last)
		replayed += n
		if !ok {
			return replayed, false
		}
	}
	return replayed, true
}

func (c *conn) replayOne(conversation string, after, head int64) (replayed int, ok bool) {
	for after < head {
		page, ok := c.readPage(conversation, after)
		if !ok || len(page) == 0 {
			return replayed, ok
		}
		for _, m := range page {
			b := c.encode(protocol.Frame{Message: &m})
			c.mu.Lock()
			if m.Begins(c.userName) { // removed and added again since the heads were read
				c.positions.Begin(conversation, m.Seq)
			}
			verdict := c.positions.Next(conversation, m.Seq)
			c.mu.Unlock()
			if verdict != chat.Deliver {
				c.hub.deps.Log.Error("the store has a gap", "conversation", conversation, "seq", m.Seq, "after", after)
				c.close(websocket.CloseInternalServerErr, false)
				return replayed, false
			}
			if !c.queueWait(b) {
				return replayed, false
			}
			after = m.Seq
			replayed++
		}
		c.hub.metrics.replayed.Add(float64(len(page)))
	}
	return replayed, true
}

func (c *conn) readHeads() (heads map[string]chat.Span, ok bool) {
	ok = c.read(func(ctx context.Context) error {
		all, err := c.hub.deps.History.Heads(ctx, c.userID)
		heads = all[c.userID]
		return err
	})
	return heads, ok
}

func (c *conn) readPage(conversation string, after int64) (page []protocol.Message, ok bool) {
	ok = c.read(func(ctx context.Context) (err error) {
		page, err = c.hub.deps.History.Messages(ctx, c.userID, conversation, after, c.hub.cfg.ReplayPage)
		return err
	})
	return page, ok
}

// read asks the store, with a bounded number of others, and tries on while it is down
// and the connection lives.
func (c *conn) read(ask func(context.Context) error) bool {
	defer c.stopWaiting()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		if !c.turn() {
			return false
		}
		ctx, cancel := context.WithTimeout(context.Background(), c.hub.cfg.WriteTimeout)
		err := ask(ctx)
		cancel()
		<-c.hub.readers
		if err == nil {
			return true
		}
		c.hub.metrics.storeErrors.Inc()
		t := time.NewTimer(pause + jitter(pause))
		select {
		case <-t.C:
		case <-c.untilGone():
		}
		t.Stop()
		if c.isClosed() {
			return false
		}
	}
}

// turn waits until the connection may read from the store; false where it has been closed.
func (c *conn) turn() bool {
	select {
	case c.hub.readers <- struct{}{}:
	default:
		select {
		case c.hub.readers <- struct{}{}:
		case <-c.untilGone():
			return false
		}
	}
	if c.isClosed() {
		<-c.hub.readers
		return false
	}
	return true
}

func (c *conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.closed
}
