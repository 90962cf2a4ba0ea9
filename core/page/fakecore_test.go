package page_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/core/page"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
)

// fakeCore speaks core/protocol from memory, at one address as the edge does, and
// lets a test do what networks and servers do: cut, move, refuse, lose and delay.
type fakeCore struct {
	*httptest.Server

	mu             sync.Mutex
	users          map[string]string // name -> password
	tokens         map[string]string // cookie -> name
	refresh        map[string]string // cookie of a refresh token -> name; each is good once
	refreshes      int
	conversations  []*conversation
	sockets        map[*socket]bool
	epoch          string
	opened, logins int
	sends          int  // commands that were received
	refuse         int  // so many sends are answered with a temporary error
	ignore         int  // so many sends are lost, and their connection is cut
	swallow        int  // so many sends take effect without an answer
	lose           int  // so many pushes are lost by the fan-out
	down           bool // no socket is accepted
	moved          map[string]string
	resuming       func(*socket) // called under the lock before a resume is answered
}

type conversation struct {
	id       string
	members  [2]string
	messages []protocol.Message
}

func (c *conversation) has(name string) bool { return c.members[0] == name || c.members[1] == name }

type socket struct {
	user string
	conn *websocket.Conn
	mu   sync.Mutex // a writer at a time
	held []protocol.Message
	live bool // resumed: pushes are not held any more
}

func (s *socket) write(f protocol.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.conn.WriteJSON(f) // a dead socket is found by its reader
}

func newFakeCore(t *testing.T) *fakeCore {
	t.Helper()
	f := &fakeCore{
		users: map[string]string{}, tokens: map[string]string{}, refresh: map[string]string{}, sockets: map[*socket]bool{}, epoch: "epoch-1", moved: map[string]string{},
	}
	mux := http.NewServeMux()
	mux.Handle("/", page.Handler())
	mux.HandleFunc("POST /v1/users", f.register)
	mux.HandleFunc("POST /v1/sessions", f.login)
	mux.HandleFunc("POST /v1/sessions/refresh", f.renew)
	mux.HandleFunc("DELETE /v1/sessions/current", f.logout)
	mux.HandleFunc("GET /v1/me", f.authed(f.me))
	mux.HandleFunc("GET /v1/conversations", f.authed(f.list))
	mux.HandleFunc("POST /v1/conversations", f.authed(f.open))
	mux.HandleFunc("GET /v1/conversations/{id}/messages", f.authed(f.history))
	mux.HandleFunc("GET /v1/ws", f.authed(f.socket))
	// Nobody has friends here, and one device; the real core is in people_test.go.
	for path, body := range map[string]any{
		"GET /v1/friends": map[string]any{"friends": []string{}}, "GET /v1/blocks": map[string]any{"names": []string{}},
		"GET /v1/sessions": map[string]any{"sessions": []map[string]any{{"id": "s1", "device": "Chat page", "used_at": time.Now(), "current": true}}},
	} {
		mux.HandleFunc(path, f.authed(func(w http.ResponseWriter, _ *http.Request, _ string) { reply(w, http.StatusOK, body) }))
	}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pool := f.pool(r)
		w.Header().Set("x-traffic-group", string(groupOf(r).ID()))
		w.Header().Set("x-traffic-pool", pool)
		w.Header().Set("x-traffic-node", "core-"+pool+"-1")
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		f.cut(0)
		f.Close()
	})
	return f
}

func groupOf(r *http.Request) group.Group {
	if c, err := r.Cookie("env"); err == nil && c.Value == "canary" {
		return group.Group{Color: group.ColorOf("canary"), Env: "canary", Tenant: "public"}
	}
	return group.Group{Env: "prod", Tenant: "public"}
}

func (f *fakeCore) pool(r *http.Request) string {
	g := groupOf(r)
	f.mu.Lock()
	defer f.mu.Unlock()
	if pool := f.moved[string(g.ID())]; pool != "" {
		return pool
	}
	if g.Env == "canary" {
		return "canary"
	}
	return "baseline"
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func fail(w http.ResponseWriter, e protocol.Error) { reply(w, e.Code.Status(), e) }

func (f *fakeCore) register(w http.ResponseWriter, r *http.Request) {
	var in struct{ Name, Password string }
	_ = json.NewDecoder(r.Body).Decode(&in)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case len(in.Password) < 8:
		fail(w, protocol.Error{Code: protocol.CodeInvalidArgument, Field: "password", Message: "password must have at least 8 characters"})
	case f.users[in.Name] != "":
		fail(w, protocol.Error{Code: protocol.CodeAlreadyExists, Field: "name", Message: "name is taken"})
	default:
		f.users[in.Name] = in.Password
		reply(w, http.StatusCreated, map[string]string{"id": "u-" + in.Name, "name": in.Name, "tenant": "public"})
	}
}

func (f *fakeCore) login(w http.ResponseWriter, r *http.Request) {
	var in struct{ Name, Password string }
	_ = json.NewDecoder(r.Body).Decode(&in)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users[in.Name] == "" || f.users[in.Name] != in.Password {
		fail(w, protocol.Error{Code: protocol.CodeUnauthenticated, Message: "wrong name or password"})
		return
	}
	f.grant(w, in.Name)
}

// grant gives new tokens; the caller holds the lock.
func (f *fakeCore) grant(w http.ResponseWriter, name string) {
	f.logins++
	token, refresh := fmt.Sprintf("token-%d", f.logins), fmt.Sprintf("refresh-%d", f.logins)
	f.tokens[token], f.refresh[refresh] = name, name
	http.SetCookie(w, &http.Cookie{Name: "tracegate_session", Value: token, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
	http.SetCookie(w, &http.Cookie{Name: "tracegate_refresh", Value: refresh, Path: "/v1/sessions", HttpOnly: true, SameSite: http.SameSiteStrictMode})
	reply(w, http.StatusOK, map[string]any{"token": token, "user": map[string]string{"name": name}})
}

func (f *fakeCore) renew(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refreshes++
	c, err := r.Cookie("tracegate_refresh")
	if err != nil || f.refresh[c.Value] == "" {
		fail(w, protocol.Error{Code: protocol.CodeUnauthenticated, Message: "session has ended"})
		return
	}
	name := f.refresh[c.Value]
	delete(f.refresh, c.Value)
	f.grant(w, name)
}

func (f *fakeCore) logout(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie("tracegate_session"); err == nil {
		f.mu.Lock()
		delete(f.tokens, c.Value)
		f.mu.Unlock()
	}
	w.WriteHeader(http.StatusNoContent)
}

func (f *fakeCore) authed(next func(http.ResponseWriter, *http.Request, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := ""
		if c, err := r.Cookie("tracegate_session"); err == nil {
			f.mu.Lock()
			name = f.tokens[c.Value]
			f.mu.Unlock()
		}
		if name == "" {
			fail(w, protocol.Error{Code: protocol.CodeUnauthenticated, Message: "log in first"})
			return
		}
		next(w, r, name)
	}
}

func (f *fakeCore) me(w http.ResponseWriter, r *http.Request, name string) {
	g := groupOf(r)
	pool := f.pool(r)
	reply(w, http.StatusOK, map[string]any{
		"user":  map[string]string{"id": "u-" + name, "name": name, "tenant": "public"},
		"group": g.ID(), "color": g.Color.String(), "env": g.Env, "tenant": g.Tenant, "pool": pool, "node": "core-" + pool + "-1",
		"trace_id": g.Color.String() + "0123456789abcdef01234567",
	})
}

func (f *fakeCore) list(w http.ResponseWriter, _ *http.Request, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []map[string]any{}
	for _, c := range f.conversations {
		if c.has(name) {
			out = append(out, map[string]any{"id": c.id, "members": c.members, "last_seq": len(c.messages)})
		}
	}
	reply(w, http.StatusOK, map[string]any{"conversations": out})
}

func (f *fakeCore) open(w http.ResponseWriter, r *http.Request, name string) {
	var in struct{ With string }
	_ = json.NewDecoder(r.Body).Decode(&in)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users[in.With] == "" {
		fail(w, protocol.Error{Code: protocol.CodeNotFound, Field: "with", Message: "no such user"})
		return
	}
	for _, c := range f.conversations {
		if c.has(name) && c.has(in.With) {
			reply(w, http.StatusOK, map[string]any{"id": c.id, "members": c.members, "last_seq": len(c.messages)})
			return
		}
	}
	c := &conversation{id: fmt.Sprintf("c%d", len(f.conversations)+1), members: [2]string{name, in.With}}
	f.conversations = append(f.conversations, c)
	reply(w, http.StatusOK, map[string]any{"id": c.id, "members": c.members})
}

func (f *fakeCore) find(id, name string) *conversation {
	for _, c := range f.conversations {
		if c.id == id && c.has(name) {
			return c
		}
	}
	return nil
}

func (f *fakeCore) history(w http.ResponseWriter, r *http.Request, name string) {
	after, errAfter := strconv.Atoi(r.FormValue("after"))
	limit, errLimit := strconv.Atoi(r.FormValue("limit"))
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.find(r.PathValue("id"), name)
	if c == nil || errAfter != nil || errLimit != nil || limit < 1 || after < 0 {
		fail(w, protocol.Error{Code: protocol.CodeInvalidArgument, Message: "bad history request"})
		return
	}
	from := min(after, len(c.messages))
	reply(w, http.StatusOK, map[string]any{"messages": c.messages[from:min(from+limit, len(c.messages))], "epoch": f.epoch})
}

func (f *fakeCore) socket(w http.ResponseWriter, r *http.Request, name string) {
	pool := f.pool(r)
	f.mu.Lock()
	down := f.down
	f.mu.Unlock()
	if down {
		fail(w, protocol.Error{Code: protocol.CodeUnavailable, Message: "down", Temporary: true})
		return
	}
	conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	s := &socket{user: name, conn: conn}
	f.mu.Lock()
	f.sockets[s] = true
	f.opened++
	hello := &protocol.Hello{
		User: name, Session: fmt.Sprint(f.opened), Epoch: f.epoch, Resume: fmt.Sprintf("resume-%d", f.opened),
		Group: string(groupOf(r).ID()), Pool: pool, Node: "core-" + pool + "-1",
	}
	f.mu.Unlock()
	s.write(protocol.Frame{Hello: hello})
	defer func() {
		f.mu.Lock()
		delete(f.sockets, s)
		f.mu.Unlock()
		_ = conn.Close()
	}()
	for {
		var c protocol.Command
		if conn.ReadJSON(&c) != nil {
			return
		}
		f.command(s, c)
	}
}

func (f *fakeCore) command(s *socket, c protocol.Command) {
	switch {
	case c.Resume != nil:
		f.resume(s, c)
	case c.Send != nil:
		f.send(s, c)
	case c.Ping != nil:
		s.write(protocol.Frame{ID: c.ID, Pong: &protocol.Ping{}})
	}
}

func (f *fakeCore) resume(s *socket, c protocol.Command) {
	f.mu.Lock()
	defer f.mu.Unlock()
	resumed := &protocol.Resumed{Recovered: c.Resume.Epoch == f.epoch}
	covered := map[string]int64{}
	if resumed.Recovered {
		for id, seq := range c.Resume.Positions {
			messages := f.find(id, s.user).messages
			covered[id] = int64(len(messages))
			for _, m := range messages[seq:] {
				s.write(protocol.Frame{Message: &m})
				resumed.Replayed++
			}
		}
	}
	for _, m := range s.held {
		if m.Seq > covered[m.Conversation] {
			s.write(protocol.Frame{Message: &m})
		}
	}
	if f.resuming != nil {
		f.resuming(s)
	}
	s.held, s.live = nil, true
	s.write(protocol.Frame{ID: c.ID, Resumed: resumed})
}

func (f *fakeCore) send(s *socket, c protocol.Command) {
	f.mu.Lock()
	f.sends++
	if f.refuse > 0 {
		f.refuse--
		f.mu.Unlock()
		s.write(protocol.Frame{ID: c.ID, Error: &protocol.Error{Code: protocol.CodeUnavailable, Message: "the log is not reachable", Temporary: true}})
		return
	}
	if c.Send.Text == "refuse me" {
		f.mu.Unlock()
		s.write(protocol.Frame{ID: c.ID, Error: &protocol.Error{Code: protocol.CodeTooLarge, Field: "text", Message: "text is too long"}})
		return
	}
	if f.ignore > 0 {
		f.ignore--
		f.mu.Unlock()
		_ = s.conn.Close()
		return
	}
	m := f.store(s.user, *c.Send)
	swallow := f.swallow > 0
	if swallow {
		f.swallow--
	}
	f.mu.Unlock()
	if swallow {
		_ = s.conn.Close()
		return
	}
	s.write(protocol.Frame{ID: c.ID, Accepted: &protocol.Accepted{ClientID: m.ClientID, TraceID: m.TraceID}})
}

// store numbers and pushes a message; the caller holds the lock.
func (f *fakeCore) store(user string, in protocol.Send) protocol.Message {
	c := f.find(in.Conversation, user)
	for _, m := range c.messages {
		if m.Sender == user && m.ClientID == in.ClientID {
			return m
		}
	}
	n := len(c.messages) + 1
	m := protocol.Message{
		Conversation: c.id, Seq: int64(n), ClientID: in.ClientID, Sender: user, Text: in.Text,
		SentAt: time.Date(2026, 3, 14, 9, 0, n*10, 0, time.Local), TraceID: fmt.Sprintf("00000000%024x", uint64(n)*0x9e3779b97f4a7c15),
	}
	c.messages = append(c.messages, m)
	if f.lose > 0 || f.swallow > 0 {
		f.lose = max(0, f.lose-1)
		return m
	}
	for s := range f.sockets {
		switch {
		case !c.has(s.user):
		case s.live:
			s.write(protocol.Frame{Message: &m})
		default:
			s.held = append(s.held, m)
		}
	}
	return m
}

// What tests do to it.

func (f *fakeCore) post(user, conversation string, texts ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, text := range texts {
		f.store(user, protocol.Send{Conversation: conversation, ClientID: fmt.Sprintf("posted-%d", len(f.find(conversation, user).messages)), Text: text})
	}
}

// cut ends all sockets with a close code, or without a word where it is 0.
func (f *fakeCore) cut(code int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.sockets {
		if code != 0 {
			_ = s.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(time.Second))
		}
		_ = s.conn.Close()
	}
}

// move makes pool the place of a group and asks all sockets to reconnect.
func (f *fakeCore) move(id group.ID, pool string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moved[string(id)] = pool
	for s := range f.sockets {
		s.ask("group moved to " + pool)
	}
}

// ask asks a socket to reconnect.
func (s *socket) ask(reason string) {
	s.write(protocol.Frame{Reconnect: &protocol.Reconnect{DelayMS: 20, GraceMS: 5000, Resume: "moved", Reason: reason}})
}

func (f *fakeCore) set(change func(*fakeCore)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeCore) count(of func(*fakeCore) int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return of(f)
}
