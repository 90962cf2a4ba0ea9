package chat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/core/protocol"
)

// silence is how long a socket waits for anything. Core pings after 25 s.
const silence = 60 * time.Second

var errGone = errors.New("connection ended before the reply")

// socket is one WebSocket as it is on the wire. read must be running for do.
type socket struct {
	ws    *websocket.Conn
	hello protocol.Hello

	writeMu sync.Mutex
	mu      sync.Mutex
	id      uint32
	pending map[uint32]chan protocol.Frame
	ended   chan struct{} // closed when read has returned
}

// dial connects to a base URL and reads the greeting. A handshake that core refused is
// its *protocol.Error.
func dial(ctx context.Context, base, token string, timeout time.Duration) (*socket, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	dialer := websocket.Dialer{HandshakeTimeout: timeout, ReadBufferSize: 1024, WriteBufferSize: 1024}
	ws, resp, err := dialer.DialContext(ctx, "ws"+strings.TrimPrefix(base, "http")+"/v1/ws", http.Header{"Authorization": {"Bearer " + token}})
	if resp != nil {
		defer resp.Body.Close() // of a refusal
	}
	if err != nil {
		if resp != nil && errors.Is(err, websocket.ErrBadHandshake) {
			refusal := &protocol.Error{}
			b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
			if json.Unmarshal(b, refusal) == nil && refusal.Code != "" {
				return nil, refusal
			}
			return nil, fmt.Errorf("handshake: status %d", resp.StatusCode)
		}
		return nil, fmt.Errorf("dial: %w", err)
	}
	s := &socket{ws: ws, pending: map[uint32]chan protocol.Frame{}, ended: make(chan struct{})}
	ws.SetReadLimit(4 << 20)
	ws.SetPingHandler(func(data string) error {
		_ = ws.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second)) // the next read says
		return ws.SetReadDeadline(time.Now().Add(silence))
	})
	f, err := s.next(timeout)
	if err == nil && f.Hello == nil {
		err = errors.New("the first frame is no hello")
	}
	if err != nil {
		_ = ws.Close()
		return nil, fmt.Errorf("hello: %w", err)
	}
	s.hello = *f.Hello
	return s, nil
}

func (s *socket) next(timeout time.Duration) (f protocol.Frame, err error) {
	if err := s.ws.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return f, err
	}
	_, b, err := s.ws.ReadMessage()
	if err != nil {
		return f, err
	}
	return f, json.Unmarshal(b, &f)
}

// read passes pushes on until the connection ends, and says why.
func (s *socket) read(push func(protocol.Frame)) error {
	defer close(s.ended)
	for {
		f, err := s.next(silence)
		if err != nil {
			return err
		}
		if f.ID == 0 {
			push(f)
			continue
		}
		s.mu.Lock()
		reply := s.pending[f.ID]
		s.mu.Unlock()
		if reply != nil {
			select {
			case reply <- f:
			default: // answered twice
			}
		}
	}
}

func (s *socket) write(cmd protocol.Command) error {
	b, err := json.Marshal(cmd)
	if err != nil {
		return err
	}
	return s.writeRaw(websocket.TextMessage, b)
}

func (s *socket) writeRaw(kind int, b []byte) error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if err := s.ws.SetWriteDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	return s.ws.WriteMessage(kind, b)
}

// do sends a command and waits for its reply; core's error is returned as one.
func (s *socket) do(ctx context.Context, cmd protocol.Command) (protocol.Frame, error) {
	reply := make(chan protocol.Frame, 1)
	s.mu.Lock()
	s.id++
	cmd.ID = s.id
	s.pending[cmd.ID] = reply
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.pending, cmd.ID)
		s.mu.Unlock()
	}()
	if err := s.write(cmd); err != nil {
		return protocol.Frame{}, err
	}
	select {
	case f := <-reply:
		if f.Error != nil {
			return f, f.Error
		}
		return f, nil
	case <-s.ended:
		return protocol.Frame{}, errGone
	case <-ctx.Done():
		return protocol.Frame{}, ctx.Err()
	}
}

// hangUp ends the connection without a word.
func (s *socket) hangUp() { _ = s.ws.Close() }

func asClose(err error) (*websocket.CloseError, bool) {
	closed, ok := errors.AsType[*websocket.CloseError](err)
	return closed, ok && closed.Code != websocket.CloseAbnormalClosure
}
