package coretest

import (
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
)

// socket is one connection. All but its reader is guarded by the server's lock; the
// writer goroutine drains out, so that a slow client does not hold the server.
type socket struct {
	ws    *websocket.Conn
	name  string
	n     int
	group group.Group
	pool  string
	live  bool // Resume has come; before it, pushes are held back (the history has them)
	out   chan []byte
	over  bool
	code  int
	once  sync.Once
}

// write queues a frame; the caller holds the server's lock. A socket that does not
// keep up is closed as slow.
func (k *socket) write(f protocol.Frame) {
	if k.over {
		return
	}
	b, _ := json.Marshal(f)
	select {
	case k.out <- b:
	default:
		k.end(protocol.CloseSlow)
	}
}

// end closes the socket with a code, or by cutting it where code is 0; what was
// queued before goes out first. The caller holds the server's lock.
func (k *socket) end(code int) {
	if !k.over {
		k.over, k.code = true, code
		close(k.out)
	}
}

func (k *socket) push(m protocol.Message, chaos func(protocol.Message) []protocol.Message) {
	if !k.live {
		return
	}
	all := []protocol.Message{m}
	if chaos != nil {
		all = chaos(m)
	}
	for _, m := range all {
		k.write(protocol.Frame{Message: &m})
	}
}

func (k *socket) drain() {
	defer k.ws.Close()
	for b := range k.out {
		_ = k.ws.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if k.ws.WriteMessage(websocket.TextMessage, b) != nil {
			return
		}
	}
	if k.code != 0 {
		_ = k.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(k.code, ""), time.Now().Add(time.Second))
	}
}

func (s *Server) ws(w http.ResponseWriter, r *http.Request, name string) {
	s.mu.Lock()
	s.opens++
	n := s.opens
	status := 0
	if s.chaos.Open != nil {
		status = s.chaos.Open(n)
	}
	g, pool := s.stamp(w, r)
	epoch := s.epoch
	s.mu.Unlock()
	if status != 0 {
		w.WriteHeader(status)
		return
	}
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	ws, err := up.Upgrade(w, r, w.Header())
	if err != nil {
		return
	}
	k := &socket{ws: ws, name: name, n: n, group: g, pool: pool, out: make(chan []byte, 4096)}
	s.mu.Lock()
	s.sockets[k] = true
	k.write(protocol.Frame{Hello: &protocol.Hello{
		User: name, Session: name, Epoch: epoch, Resume: "resume-" + name,
		Group: string(g.ID()), Pool: pool, Node: pool + "-1",
	}})
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { defer close(done); k.drain() }()
	s.serve(k)
	s.mu.Lock()
	delete(s.sockets, k)
	k.end(0)
	s.mu.Unlock()
	<-done
}

func (s *Server) serve(k *socket) {
	for {
		_, b, err := k.ws.ReadMessage()
		if err != nil {
			return
		}
		var cmd protocol.Command
		if json.Unmarshal(b, &cmd) != nil {
			s.mu.Lock()
			k.end(protocol.CloseProtocol)
			s.mu.Unlock()
			return
		}
		switch {
		case cmd.Send != nil:
			s.wsSend(k, cmd)
		case cmd.Resume != nil:
			s.resume(k, cmd)
		case cmd.Ping != nil:
			s.mu.Lock()
			k.write(protocol.Frame{ID: cmd.ID, Pong: &protocol.Ping{}})
			s.mu.Unlock()
		}
	}
}

func (s *Server) wsSend(k *socket, cmd protocol.Command) {
	s.mu.Lock()
	wait, fail := s.strike(k.pool)
	s.mu.Unlock()
	finish := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if fail {
			k.write(protocol.Frame{ID: cmd.ID, Error: &protocol.Error{Code: protocol.CodeUnavailable, Message: "fault", Temporary: true}})
			return
		}
		switch verdict := s.judge(); verdict {
		case Refuse:
			k.write(protocol.Frame{ID: cmd.ID, Error: &protocol.Error{Code: protocol.CodeUnavailable, Message: "not now", Temporary: true}})
		case Deny:
			k.write(protocol.Frame{ID: cmd.ID, Error: &protocol.Error{Code: protocol.CodePermissionDenied, Message: "not you"}})
		case DropOld:
			k.cut()
		case Take, DropNew:
			e := s.take(cmd.Send.Conversation, k.name, cmd.Send.ClientID, cmd.Send.Text)
			if verdict == DropNew {
				k.cut()
			} else if e != nil {
				k.write(protocol.Frame{ID: cmd.ID, Error: e})
			} else {
				k.write(protocol.Frame{ID: cmd.ID, Accepted: &protocol.Accepted{ClientID: cmd.Send.ClientID}})
			}
		}
	}
	if wait == 0 {
		finish()
		return
	}
	time.AfterFunc(wait, finish) // a slow command does not hold the next ones
}

// cut ends the TCP connection without a word, at once.
func (k *socket) cut() { k.once.Do(func() { k.ws.NetConn().Close() }) }

func (s *Server) resume(k *socket, cmd protocol.Command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k.live = true
	if cmd.Resume.Epoch != s.epoch {
		k.write(protocol.Frame{ID: cmd.ID, Resumed: &protocol.Resumed{}})
		return
	}
	cut, replayed, recovered := -1, 0, true
	if s.chaos.Cut != nil {
		cut = s.chaos.Cut(k.n)
	}
	for id, after := range cmd.Resume.Positions {
		c := s.conversations[id]
		if c == nil || !slices.Contains(c.members, k.name) {
			continue
		}
		if after > int64(len(c.messages)) {
			recovered = false
			continue
		}
		for _, m := range c.messages[after:] {
			if replayed == cut {
				k.end(0)
				return
			}
			replayed++
			k.write(protocol.Frame{Message: &m})
		}
	}
	k.write(protocol.Frame{ID: cmd.ID, Resumed: &protocol.Resumed{Recovered: recovered, Replayed: replayed}})
}
