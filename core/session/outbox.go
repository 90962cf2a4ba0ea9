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
	frames   [][]byte      // texts, not yet taken by the writer
	controls []byte        // whole control frames; they go first
	n, bytes int32         // of texts that are not written, those the writer has taken included
	code     uint16        // to close with
	writing  bool          // the writer runs; it stays set when the connection ends
	closed   bool          // nothing is taken any more
	thrown   bool          // what was queued is not to be written either
	said     bool          // the close frame has been written
	hangUp   bool          // the client has closed: nothing comes after our close frame
	room     chan struct{} // closed when there is room again; nil when nobody waits
}

const (
	// closeWait is how long a close frame may take, and how long the client may take to
	// answer it.
	closeWait = time.Second
	// maxControls bounds the answers to pings of a client that does not read them.
	maxControls = 4 << 10
	// writeSize is how much is put together for one system call.
	writeSize = 16 << 10
)

// queue takes a text, or closes the connection where that is too much; mu is held.
func (c *conn) queue(frame []byte) bool {
	o := &c.out
	if o.closed {
		return false
	}
	if l := c.hub.limits.Load(); int(o.n) >= l.QueueFrames || int(o.bytes)+len(frame) > l.QueueBytes {
		c.closeLocked(protocol.CloseSlow, false)
		return false
	}
	o.frames = append(o.frames, frame)
	o.n++
	o.bytes += int32(len(frame))
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
			c.close(protocol.CloseSlow, false)
		}
		timeout.Stop()
	}
}

func (c *conn) hasRoom() bool {
	l := c.hub.limits.Load()
	return 2*int(c.out.n) <= l.QueueFrames && 2*int(c.out.bytes) <= l.QueueBytes
}

func (c *conn) signalRoom() {
	if c.out.room != nil {
		close(c.out.room)
		c.out.room = nil
	}
}

// control queues a ping or a pong. Of more pings than have room the newest is answered,
// which is all that RFC 6455 (5.5.3) asks for.
func (c *conn) control(opcode int, data string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	if o.closed {
		return
	}
	if len(o.controls) > maxControls {
		o.controls = o.controls[:0]
	}
	o.controls = appendFrame(o.controls, opcode, []byte(data))
	c.startWriter()
}

// close ends the connection with a code. In order: what is queued is written first.
// Else it is thrown away, because the client does not read.
func (c *conn) close(code int, inOrder bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked(code, inOrder)
}

func (c *conn) closeLocked(code int, inOrder bool) {
	o := &c.out
	if o.closed {
		return
	}
	o.code = uint16(code)
	c.markClosed(closeLabel(code))
	if !inOrder {
		c.throwAway()
	}
	c.signalRoom()
	c.startWriter()
}

// throwAway drops what is queued and frees a writer that is stuck; mu is held.
func (c *conn) throwAway() {
	c.out.thrown, c.out.frames, c.out.controls = true, nil, nil
	if c.stream != nil {
		c.stream.to.Cut()
		return
	}
	_ = c.tcp.SetWriteDeadline(time.Now().Add(closeWait))
}

// farewell says goodbye to a client that has closed, whose code is answered, or with
// which there is nothing more to say. What is queued is written first. It is false where
// the client's close frame was itself the answer.
func (c *conn) farewell(code int, label string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	if o.said {
		return false
	}
	if !o.closed {
		c.markClosed(label)
		o.code = uint16(code)
	}
	o.hangUp = true
	c.signalRoom()
	c.startWriter()
	return true
}

// startWriter makes sure that a goroutine empties the outbox; mu is held.
func (c *conn) startWriter() {
	if !c.out.writing {
		c.out.writing = true
		c.hub.running.Add(1)
		if c.stream != nil {
			c.stream.writers.Add(1)
		}
		go c.writeLoop()
	}
}

// writeLoop writes what is queued and ends when nothing is left.
func (c *conn) writeLoop() {
	defer c.hub.running.Done()
	if c.stream != nil {
		defer c.stream.writers.Done()
	}
	for {
		controls, batch, more := c.take()
		if !more {
			return
		}
		if len(controls) == 0 && len(batch) == 0 {
			c.goodbye()
			return
		}
		if err := c.write(controls, batch); err != nil {
			c.broken(err)
			return
		}
	}
}

// take gives the writer its next work. Nothing at all means that the connection is to be
// closed; more is false when there is nothing to do, and the writer has been struck off.
func (c *conn) take() (controls []byte, batch [][]byte, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	controls, batch = o.controls, o.frames
	o.controls, o.frames = nil, nil // an idle connection keeps no memory
	if len(controls) == 0 && len(batch) == 0 && !o.closed {
		o.writing = false
		return nil, nil, false
	}
	return controls, batch, true
}

// write puts frames together, up to writeSize, and writes them until some are to be
// thrown away.
func (c *conn) write(controls []byte, batch [][]byte) error {
	if c.stream != nil {
		return c.writeStream(batch)
	}
	together := c.hub.borrow()
	defer c.hub.giveBack(together)
	together.Write(controls)
	written, bytes := 0, 0
	for i, frame := range batch {
		together.Write(appendFrame(together.AvailableBuffer(), c.opcode(), frame))
		written++
		bytes += len(frame)
		if together.Len() < writeSize && i+1 < len(batch) {
			continue
		}
		if on, err := c.flush(together.Bytes(), written, bytes); err != nil || !on {
			return err
		}
		together.Reset()
		written, bytes = 0, 0
	}
	if together.Len() == 0 {
		return nil
	}
	_, err := c.flush(together.Bytes(), 0, 0)
	return err
}

// flush writes a number of frames; on is false when the rest is to be thrown away.
func (c *conn) flush(b []byte, frames, bytes int) (on bool, err error) {
	c.mu.Lock()
	thrown := c.out.thrown // then the deadline is another one
	if !thrown {
		err = c.tcp.SetWriteDeadline(time.Now().Add(c.hub.cfg.WriteTimeout))
	}
	c.mu.Unlock()
	if thrown || err != nil {
		return false, err
	}
	if _, err := c.tcp.Write(b); err != nil {
		return false, err
	}
	return c.written(frames, bytes), nil
}

// written makes room for what has been written; it is false when the rest is to be
// thrown away.
func (c *conn) written(frames, bytes int) (on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.n -= int32(frames)
	c.out.bytes -= int32(bytes)
	if c.hasRoom() {
		c.signalRoom()
	}
	return !c.out.thrown
}

// broken ends a connection that cannot be written to.
func (c *conn) broken(err error) {
	label := "write"
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		label = closeLabel(protocol.CloseSlow)
	}
	c.ended(label)
	if c.stream != nil {
		c.stream.end()
		return
	}
	_ = c.tcp.Close()
}

// goodbye says why the connection ends and gives the client a moment to answer, or to
// hang up; the reader then closes it.
func (c *conn) goodbye() {
	deadline := time.Now().Add(closeWait)
	c.mu.Lock()
	code := int(c.out.code)
	c.mu.Unlock()
	if c.stream != nil {
		c.stream.end()
		return
	}
	_ = c.tcp.SetWriteDeadline(deadline)
	_, _ = c.tcp.Write(appendFrame(nil, websocket.CloseMessage, websocket.FormatCloseMessage(code, closeReason(code))))
	_ = c.tcp.SetReadDeadline(deadline)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.said = true
	if c.out.hangUp {
		_ = c.tcp.CloseWrite()
	}
}

// ended marks a connection as gone, and counts how where that was not decided here.
func (c *conn) ended(label string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.out.closed {
		c.markClosed(label)
	}
	c.out.thrown, c.out.frames, c.out.controls, c.out.writing = true, nil, nil, true
	c.signalRoom()
}
