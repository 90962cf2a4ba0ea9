package session

import (
	"context"
	"sync"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/core/protocol"
)

// Stream is what a subscription writes to: a stream of gRPC.
type Stream interface {
	// Send writes a frame as wire.AppendFrame has it. It may wait for the client; one
	// call at a time is made, and none after Subscribe has returned.
	Send(frame []byte) error
	// Cut leaves a Send that waits, and all later ones, a second (closeWait).
	Cut()
}

// stream is the part of a connection that is not a WebSocket. It is a conn in all else:
// what it has been sent, its queue, its moves. It only reads one command, the Resume that
// it begins with, and has no heartbeat of its own but a pong that nobody asked for, which
// keeps proxies from taking it for idle; that the client lives, HTTP/2 finds out.
type stream struct {
	to      Stream
	writers sync.WaitGroup // the writeLoop, while it runs
	once    sync.Once
	ended   chan struct{} // closed when nothing more will be written
}

func (s *stream) end() { s.once.Do(func() { close(s.ended) }) }

// Subscribe writes frames to a stream: hello, what was missed, the answer to the Resume,
// and what comes then. It returns when ctx is done (the client has left), or with the
// *protocol.Error that the client is to get: unavailable where it is to come back.
func (h *Hub) Subscribe(ctx context.Context, who Who, r protocol.Resume, to Stream) error {
	if err := checkResume(&r); err != nil {
		return err
	}
	if err := h.admit(ctx, who.User.ID); err != nil {
		return err
	}
	defer h.release()
	c := newConn(h, nil, who)
	c.binary, c.stream = true, &stream{to: to, ended: make(chan struct{})}
	c.hello()
	h.add(c)
	defer h.remove(c)
	c.mu.Lock()
	c.begin(&r, 0)
	c.mu.Unlock()
	select {
	case <-c.stream.ended:
	case <-ctx.Done(): // a Send that waits fails
		c.ended("client")
	}
	c.stream.writers.Wait() // none starts any more
	return c.farewellError(ctx)
}

// farewellError is what a stream ends with, where a WebSocket is closed with a code.
func (c *conn) farewellError(ctx context.Context) error {
	c.mu.Lock()
	code := int(c.out.code)
	c.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case code == protocol.CloseExpired:
		return protocol.NewError(protocol.CodeUnauthenticated, "", closeReason(code))
	case code == websocket.CloseInternalServerErr:
		return protocol.NewError(protocol.CodeInternal, "", closeReason(code))
	default:
		return protocol.NewError(protocol.CodeUnavailable, "", closeReason(code))
	}
}

// writeStream writes frames until some are to be thrown away.
func (c *conn) writeStream(batch [][]byte) error {
	for _, frame := range batch {
		if err := c.stream.to.Send(frame); err != nil {
			return err
		}
		c.seen()
		if !c.written(1, len(frame)) {
			return nil
		}
	}
	return nil
}

// ping asks for a sign of life, or gives one where there is nobody to answer.
func (c *conn) ping() {
	if c.stream != nil {
		c.send(protocol.Frame{Pong: &protocol.Ping{}})
		return
	}
	c.control(websocket.PingMessage, "")
}
