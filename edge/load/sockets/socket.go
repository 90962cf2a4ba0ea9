package sockets

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/core/protocol"
)

// attemptTime bounds a handshake with its resume, and a write.
const attemptTime = 10 * time.Second

// socket is one connection. Run read, once.
type socket struct {
	ws     *websocket.Conn
	closed atomic.Bool // by us
}

// dial connects from an address, waits for the greeting, resumes from positions and waits
// until that is answered. A handshake that core refused is its *protocol.Error.
func dial(ctx context.Context, door string, from net.IP, token string, positions map[string]int64) (*socket, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	local := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	dialer := websocket.Dialer{NetDialContext: local.DialContext, ReadBufferSize: 512, WriteBufferSize: 512}
	ws, resp, err := dialer.DialContext(ctx, "ws"+strings.TrimPrefix(door, "http")+"/v1/ws", http.Header{"Authorization": {"Bearer " + token}})
	if resp != nil {
		defer resp.Body.Close() // of a refusal
	}
	if err != nil {
		return nil, refused(err, resp)
	}
	s := &socket{ws: ws}
	if err := s.resume(ctx, positions); err != nil {
		s.hangUp()
		return nil, err
	}
	return s, nil
}

func refused(err error, resp *http.Response) error {
	if resp == nil || !errors.Is(err, websocket.ErrBadHandshake) {
		return fmt.Errorf("dial: %w", err)
	}
	refusal := &protocol.Error{}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if json.Unmarshal(b, refusal) == nil && refusal.Code != "" {
		return refusal
	}
	return fmt.Errorf("handshake: status %d", resp.StatusCode)
}

// resume opens the session: what came before positions is not sent again.
func (s *socket) resume(ctx context.Context, positions map[string]int64) error {
	if at, ok := ctx.Deadline(); ok {
		if err := s.ws.SetReadDeadline(at); err != nil {
			return err
		}
	}
	var f protocol.Frame
	if err := s.ws.ReadJSON(&f); err != nil || f.Hello == nil {
		return errors.Join(errors.New("the first frame is no hello"), err)
	}
	const id = 1
	if err := s.ws.WriteJSON(protocol.Command{ID: id, Resume: &protocol.Resume{Epoch: f.Hello.Epoch, Positions: positions}}); err != nil {
		return err
	}
	for f.ID != id {
		f = protocol.Frame{}
		if err := s.ws.ReadJSON(&f); err != nil {
			return fmt.Errorf("resume: %w", err)
		}
	}
	switch {
	case f.Error != nil:
		return f.Error
	case f.Resumed == nil || !f.Resumed.Recovered:
		return errors.New("resume: not recovered")
	}
	return s.ws.SetReadDeadline(time.Time{})
}

// read answers the server's pings and tells of pongs, with how late they are, until the
// connection ends; it returns nil where we ended it.
func (s *socket) read(pong func(time.Duration)) error {
	s.ws.SetPongHandler(func(payload string) error {
		if len(payload) == 8 {
			pong(time.Duration(time.Now().UnixNano() - int64(binary.BigEndian.Uint64([]byte(payload))))) //nolint:gosec // our own
		}
		return nil
	})
	for {
		if _, _, err := s.ws.NextReader(); err != nil {
			if s.closed.Load() {
				return nil
			}
			return err
		}
	}
}

// ping asks for a pong that tells when it was due.
func (s *socket) ping(due time.Time) error {
	payload := binary.BigEndian.AppendUint64(nil, uint64(due.UnixNano())) //nolint:gosec // after 1970
	return s.ws.WriteControl(websocket.PingMessage, payload, time.Now().Add(attemptTime))
}

// hangUp resets the connection, which leaves no port behind that waits.
func (s *socket) hangUp() {
	s.closed.Store(true)
	if tcp, ok := s.ws.NetConn().(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = s.ws.Close()
}
