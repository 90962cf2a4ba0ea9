package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/core/protocol"
)

// maxPending bounds the commands of a connection that wait for their reply. More
// are refused as temporary, so that senders back off.
const maxPending = 1024

// farewell is how long the other side has to answer a close frame.
const farewell = time.Second

var (
	errConnEnded = errors.New("connection ended before the reply")
	errBusy      = &protocol.Error{Code: protocol.CodeRateLimited, Message: "too many commands wait for a reply", Temporary: true}
)

// conn is one WebSocket. One goroutine reads it; writers share it by a mutex.
type conn struct {
	ws     *websocket.Conn
	cfg    Config
	served Served
	hello  protocol.Hello
	stop   func() bool // unhooks the context
	ping   *time.Timer // sends a ping and sets itself again; no goroutine waits

	// Owned by the reader.
	asked     *protocol.Reconnect // came during the replay
	delay     time.Duration       // of the successor, set before it starts
	successor chan struct{}       // not nil once a successor was started; closed when this connection has ended

	writeMu sync.Mutex

	mu       sync.Mutex
	id       uint32
	pending  map[uint32]chan protocol.Frame
	retiring bool
	closing  bool
	done     chan struct{} // closed when closing is set
}

func newConn(ctx context.Context, ws *websocket.Conn, served Served, cfg Config) *conn {
	c := &conn{
		ws: ws, cfg: cfg, served: served,
		id:      1, // that of Resume
		pending: map[uint32]chan protocol.Frame{},
		done:    make(chan struct{}),
	}
	ws.SetReadLimit(cfg.MaxBytes)
	alive := func() { _ = ws.SetReadDeadline(time.Now().Add(cfg.Ping * 5 / 2)) }
	ws.SetPongHandler(func(string) error { alive(); return nil })
	ws.SetPingHandler(func(data string) error {
		alive()
		_ = ws.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(farewell))
		return nil // a write that fails shows in the next read
	})
	c.mu.Lock() // either may fire at once
	defer c.mu.Unlock()
	c.ping = time.AfterFunc(cfg.Ping, c.sendPing)
	c.stop = context.AfterFunc(ctx, func() { c.close(websocket.CloseNormalClosure) })
	return c
}

func (c *conn) sendPing() {
	if !c.alive() {
		return
	}
	_ = c.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(farewell))
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing {
		c.ping.Reset(c.cfg.Ping)
	}
}

// next reads one frame; only the reader calls it.
func (c *conn) next(timeout time.Duration) (protocol.Frame, error) {
	if err := c.ws.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return protocol.Frame{}, fmt.Errorf("read frame: %w", err)
	}
	_, b, err := c.ws.ReadMessage()
	if err != nil {
		return protocol.Frame{}, fmt.Errorf("read frame: %w", err)
	}
	return decode(b)
}

func (c *conn) write(cmd protocol.Command) error {
	b, err := json.Marshal(cmd)
	if err != nil {
		return fmt.Errorf("encode command: %w", err)
	}
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if err := c.ws.SetWriteDeadline(time.Now().Add(c.cfg.Timeout)); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	if err := c.ws.WriteMessage(websocket.TextMessage, b); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// do sends a command and waits for its reply; wrote says whether the server may
// have seen the command.
func (c *conn) do(ctx context.Context, cmd protocol.Command) (f protocol.Frame, wrote bool, err error) {
	reply := make(chan protocol.Frame, 1)
	c.mu.Lock()
	if c.closing || c.retiring {
		c.mu.Unlock()
		return f, false, errConnEnded
	}
	if len(c.pending) >= maxPending {
		c.mu.Unlock()
		return f, false, errBusy
	}
	c.id++
	cmd.ID = c.id
	c.pending[cmd.ID] = reply
	c.mu.Unlock()
	defer c.forget(cmd.ID)

	if err := c.write(cmd); err != nil {
		return f, true, err // a part may have left
	}
	select {
	case f = <-reply:
		return f, true, nil
	case <-c.done:
		select { // the reply may have come with the end
		case f = <-reply:
			return f, true, nil
		default:
			return f, true, errConnEnded
		}
	case <-ctx.Done():
		return f, true, fmt.Errorf("wait for reply: %w", ctx.Err())
	}
}

func (c *conn) reply(f protocol.Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch := c.pending[f.ID]; ch != nil {
		select {
		case ch <- f:
		default: // answered twice
		}
	}
}

func (c *conn) forget(id uint32) {
	c.mu.Lock()
	delete(c.pending, id)
	last := c.retiring && len(c.pending) == 0
	c.mu.Unlock()
	if last {
		c.bow()
	}
}

// retire takes no more commands, and closes when the replies due have come, or
// after the timeout.
func (c *conn) retire(timeout time.Duration) {
	c.mu.Lock()
	c.retiring = true
	idle := len(c.pending) == 0
	c.mu.Unlock()
	if idle {
		c.bow()
		return
	}
	time.AfterFunc(timeout, c.bow)
}

// bow says good-bye; the reader goes on until the other side has answered, so that
// what was on its way still arrives.
func (c *conn) bow() {
	msg := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "moved")
	_ = c.ws.WriteControl(websocket.CloseMessage, msg, time.Now().Add(farewell))
	time.AfterFunc(farewell, func() { c.close(websocket.CloseNormalClosure) })
}

func (c *conn) alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closing
}

// close ends the connection now; the reader's next returns. It may be called often.
func (c *conn) close(code int) {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return
	}
	c.closing = true
	close(c.done)
	c.ping.Stop()
	c.stop()
	c.mu.Unlock()
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(farewell))
	_ = c.ws.Close()
}
