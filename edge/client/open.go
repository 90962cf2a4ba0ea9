package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/core/protocol"
)

// open dials, waits for the Hello, resumes, and repairs what resume left out. The
// connection it returns has been read up to there by the caller's goroutine.
func (s *Session) open(ctx context.Context) (*conn, error) {
	start := time.Now()
	c, err := s.greet(ctx)
	a := Attempt{Op: "ws open", Start: start, Took: time.Since(start), Err: err}
	if c != nil {
		a.Served = c.served
	}
	if ctx.Err() == nil {
		s.user.c.observe(a)
	}
	if err != nil {
		return nil, err
	}
	if err := s.catchUp(ctx, c); err != nil {
		c.close(websocket.CloseNormalClosure)
		return nil, err
	}
	return c, nil
}

func (s *Session) greet(ctx context.Context) (*conn, error) {
	cl := s.user.c
	token, err := s.user.Access(ctx)
	if err != nil {
		return nil, err
	}
	h := cl.header(token)
	if cl.cfg.Host != "" {
		h.Set("Host", cl.cfg.Host)
	}
	u := *cl.base
	u.Scheme = map[string]string{"http": "ws", "https": "wss"}[u.Scheme]
	u.Path += "/v1/ws"
	dialer := websocket.Dialer{
		Proxy:            http.ProxyFromEnvironment,
		NetDialContext:   cl.dialer.DialContext,
		HandshakeTimeout: cl.cfg.Timeout,
		ReadBufferSize:   1024, // messages are short; a connection that waits should be cheap
		WriteBufferSize:  1024,
	}
	ws, resp, err := dialer.DialContext(ctx, u.String(), h)
	if resp != nil {
		defer resp.Body.Close() // holds a refusal's first bytes, never the connection
	}
	if err != nil {
		if resp != nil && errors.Is(err, websocket.ErrBadHandshake) {
			b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
			refusal, fromCore := failure(resp.StatusCode, b)
			if !fromCore && !refusal.Temporary {
				refusal.Temporary = true // an edge that has no routes yet answers 404: not core's word, so not final
			}
			return nil, fmt.Errorf("handshake: %w", refusal)
		}
		return nil, fmt.Errorf("dial: %w", err)
	}
	c := newConn(ctx, ws, servedBy(resp), cl.cfg)
	f, err := c.next(cl.cfg.Timeout)
	if err == nil && f.Hello == nil {
		err = errors.New("first frame is not a hello")
	}
	if err != nil {
		c.close(websocket.CloseProtocolError)
		return nil, fmt.Errorf("hello: %w", err)
	}
	c.hello = *f.Hello
	return c, nil
}

// catchUp asks for what was missed and delivers it.
func (s *Session) catchUp(ctx context.Context, c *conn) error {
	s.mu.Lock()
	epoch, token := s.epoch, s.resume
	s.epoch, s.resume = c.hello.Epoch, c.hello.Resume
	s.mu.Unlock()
	if epoch == "" {
		epoch = c.hello.Epoch
	}
	if token == "" {
		token = c.hello.Resume
	}
	if epoch != c.hello.Epoch {
		s.restart(c)
	}
	// The server holds messages back until the first command, so Resume is sent even
	// where there is nothing to resume.
	const id = 1
	err := c.write(protocol.Command{ID: id, Resume: &protocol.Resume{Token: token, Epoch: epoch, Positions: s.Positions()}})
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	recovered, err := s.replay(c, id)
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	s.inMu.Lock()
	missing := s.in.broken()
	s.inMu.Unlock()
	if !recovered {
		if missing, err = s.compare(ctx, c); err != nil {
			return fmt.Errorf("compare with history: %w", err)
		}
	}
	for _, conversation := range missing {
		if err := s.repair(ctx, conversation); err != nil {
			return fmt.Errorf("repair conversation: %w", err)
		}
	}
	return nil
}

// replay delivers until the reply to Resume, and says whether that was all that was missed.
func (s *Session) replay(c *conn, id uint32) (recovered bool, err error) {
	for {
		f, err := c.next(s.user.c.cfg.Timeout)
		switch {
		case err != nil:
			return false, err
		case f.Message != nil:
			s.receive(*f.Message)
		case f.ID == id && f.Error != nil:
			return false, errors.New(f.Error.Error()) // not final: the next try has the token of this Hello
		case f.ID == id && f.Resumed != nil:
			return f.Resumed.Recovered, nil
		case f.Reconnect != nil:
			c.asked = f.Reconnect // read starts with it
		}
	}
}

// receive delivers m and what was waiting for it. It says whether messages before m
// are missing.
func (s *Session) receive(m protocol.Message) (gap bool) {
	s.inMu.Lock()
	defer s.inMu.Unlock()
	ready, gap := s.in.push(m)
	for _, m := range ready {
		s.cfg.OnMessage(m)
	}
	return gap
}

// read dispatches frames until the connection ends and says why. It calls succeed
// once, when the server asks for a move.
func (s *Session) read(ctx context.Context, c *conn, succeed func()) error {
	move := func(r *protocol.Reconnect) {
		if r == nil || c.successor != nil {
			return
		}
		s.mu.Lock()
		if r.Resume != "" {
			s.resume = r.Resume
		}
		s.mu.Unlock()
		c.delay = min(time.Duration(max(r.DelayMS, 0))*time.Millisecond, time.Minute)
		c.successor = make(chan struct{})
		succeed()
	}
	move(c.asked)
	for {
		f, err := c.next(s.user.c.cfg.Ping * 5 / 2)
		switch {
		case err != nil:
			return err
		case f.ID != 0:
			c.reply(f)
		case f.Message != nil:
			if !s.receive(*f.Message) {
				continue
			}
			if err := s.repair(ctx, f.Message.Conversation); err != nil {
				return fmt.Errorf("repair conversation: %w", err)
			}
		case f.Reconnect != nil:
			move(f.Reconnect)
		case f.Receipt != nil || f.Typing != nil || f.Friend != nil:
			s.cfg.OnSignal(Signal{Receipt: f.Receipt, Typing: f.Typing, Friend: f.Friend})
		}
	}
}

func decode(b []byte) (protocol.Frame, error) {
	var f protocol.Frame
	if err := json.Unmarshal(b, &f); err != nil {
		return f, fmt.Errorf("decode frame: %w", err)
	}
	return f, nil
}
