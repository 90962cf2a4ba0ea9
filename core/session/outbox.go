package session

import (
	"errors"
	"net"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/core/protocol"
)

// outbox is the queue of one connection. It is part of conn and guarded by its mu.
type outbox struct {
	frames   [][]byte // not yet taken by the writer
	n, bytes int      // of frames that are not written, those the writer has taken included
	ping     bool     // one is due
	writing  bool     // the writer runs; it stays set when the connection ends
	closed   bool     // nothing is taken any more
	thrown   bool     // what was queued is not to be written either
	code     int      // to close with
	reason   string
	room     chan struct{} // closed when there is room again; nil when nobody waits
}

// closeWait is how long a close frame may take, and how long the client may take to
// answer it.
const closeWait = time.Second

// queue takes a frame, or closes the connection where that is too much; mu is held.
func (c *conn) queue(frame []byte) bool {
	o := &c.out
	if o.closed {
		return false
	}
	if o.n >= c.hub.cfg.QueueFrames || o.bytes+len(frame) > c.hub.cfg.QueueBytes {
		c.closeLocked(protocol.CloseSlow, "too slow", false)
		return false
	}
	o.frames = append(o.frames, frame)
	o.n++
	o.bytes += len(frame)
	c.startWriter()
	return true
}

// queueWait is queue for who may wait: it waits while more than half is taken. It is
// false when the connection has been closed, for instance because it made no room
// within twice the time of a write.
func (c *conn) queueWait(frame []byte) bool {
	for {
		c.mu.Lock()
		if c.out.closed || c.hasRoom() {
			ok := c.queue(frame)
			c.mu.Unlock()
			return ok
		}
		if c.out.room == nil {
			c.out.room = make(chan struct{})
		}
		room := c.out.room
		c.mu.Unlock()
		timeout := time.NewTimer(2 * c.hub.cfg.WriteTimeout)
		select {
		case <-room:
		case <-timeout.C:
			c.close(protocol.CloseSlow, "too slow", false)
		}
		timeout.Stop()
	}
}

func (c *conn) hasRoom() bool {
	return 2*c.out.n <= c.hub.cfg.QueueFrames && 2*c.out.bytes <= c.hub.cfg.QueueBytes
}

func (c *conn) signalRoom() {
	if c.out.room != nil {
		close(c.out.room)
		c.out.room = nil
	}
}

// ping asks the client for a sign of life.
func (c *conn) ping() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.out.closed {
		c.out.ping = true
		c.startWriter()
	}
}

// close ends the connection with a code. In order: what is queued is written first.
// Else it is thrown away, because the client does not read.
func (c *conn) close(code int, reason string, inOrder bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked(code, reason, inOrder)
}

func (c *conn) closeLocked(code int, reason string, inOrder bool) {
	o := &c.out
	if o.closed {
		return
	}
	o.closed, o.code, o.reason = true, code, reason
	close(c.gone)
	c.hub.metrics.closed.WithLabelValues(closeLabel(code)).Inc()
	if !inOrder {
		o.thrown, o.frames = true, nil
		_ = c.ws.NetConn().SetWriteDeadline(time.Now().Add(closeWait)) // frees a writer that is stuck
	}
	c.signalRoom()
	c.startWriter()
}

// startWriter makes sure that a goroutine empties the outbox; mu is held.
func (c *conn) startWriter() {
	if !c.out.writing {
		c.out.writing = true
		c.hub.running.Go(c.writeLoop)
	}
}

// writeLoop writes what is queued and ends when nothing is left.
func (c *conn) writeLoop() {
	for {
		batch, ping, more := c.take()
		switch {
		case !more:
			return
		case batch == nil && !ping:
			c.goodbye()
			return
		}
		err := c.writeBatch(batch)
		if err == nil && ping {
			err = c.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(c.hub.cfg.WriteTimeout))
		}
		if err != nil {
			c.broken(err)
			return
		}
	}
}

// take gives the writer its next work. Neither frames nor ping means that the
// connection is to be closed; more is false when there is nothing to do, and the writer
// has been struck off.
func (c *conn) take() (batch [][]byte, ping, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	if o.thrown {
		return nil, false, true
	}
	batch, ping = o.frames, o.ping
	o.frames, o.ping = nil, false // an idle connection keeps no memory
	if len(batch) == 0 && !ping && !o.closed {
		o.writing = false
		return nil, false, false
	}
	return batch, ping, true
}

func (c *conn) writeBatch(batch [][]byte) error {
	for _, frame := range batch {
		if err := c.ws.SetWriteDeadline(time.Now().Add(c.hub.cfg.WriteTimeout)); err != nil {
			return err
		}
		if err := c.ws.WriteMessage(websocket.TextMessage, frame); err != nil {
			return err
		}
		c.mu.Lock()
		c.out.n--
		c.out.bytes -= len(frame)
		if c.hasRoom() {
			c.signalRoom()
		}
		thrown := c.out.thrown
		c.mu.Unlock()
		if thrown {
			return nil
		}
	}
	return nil
}

// broken ends a connection that cannot be written to.
func (c *conn) broken(err error) {
	label := "write"
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		label = closeLabel(protocol.CloseSlow)
	}
	c.ended(label)
	_ = c.ws.Close()
}

// goodbye says why the connection ends and gives the client a moment to answer; the
// reader then closes it.
func (c *conn) goodbye() {
	deadline := time.Now().Add(closeWait)
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(c.out.code, c.out.reason), deadline)
	_ = c.ws.SetReadDeadline(deadline)
}

// ended marks a connection as gone, and counts how where that was not decided here.
func (c *conn) ended(label string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.out.closed {
		c.out.closed = true
		close(c.gone)
		c.hub.metrics.closed.WithLabelValues(label).Inc()
	}
	c.out.thrown, c.out.frames, c.out.writing = true, nil, true
	c.signalRoom()
}
