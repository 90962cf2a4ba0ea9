package coretest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// Verdict is what happens to a send.
type Verdict int

// The verdicts.
const (
	Take    Verdict = iota
	Refuse          // temporary error, message not taken
	DropOld         // connection cut, message not taken
	DropNew         // message taken, connection cut before the reply
	Deny            // error that is not temporary
)

// Chaos says when to misbehave. Its functions are called under the server's lock,
// and nil means never.
type Chaos struct {
	// Send judges the nth send (from 1), by REST or WebSocket.
	Send func(n int) Verdict
	// Push turns a push into what a socket gets instead: twice, later, not at all.
	Push func(m protocol.Message) []protocol.Message
	// Open judges the nth WebSocket handshake: an HTTP status to refuse with, or 0.
	Open func(n int) int
	// History judges the nth read of a history: an HTTP status to refuse with, as an edge
	// does, or 0.
	History func(n int) int
	// Cut closes the nth socket during the replay of Resume, after that many messages;
	// negative means do not.
	Cut func(n int) int
}

// Fault makes a pool bad.
type Fault struct {
	Latency    time.Duration
	ErrorRatio float64
}

// Server is the edge and all pools of core behind it.
type Server struct {
	*httptest.Server

	// Classify gives a request's group; the default reads the host's first label as
	// tenant and env from cookie env or header x-env.
	Classify func(r *http.Request) group.Group
	// TokenTTL is how long access tokens are good, as clients are told.
	TokenTTL time.Duration

	mu            sync.Mutex
	epoch         string
	chaos         Chaos
	users         map[string]bool
	tokens        map[string]string // token -> name
	refresh       map[string]string // refresh token, good once -> name
	conversations map[string]*conversation
	sockets       map[*socket]bool
	moved         map[group.ID]string
	faults        map[string]Fault
	sends, opens  int
	reads         int
	random        uint64
}

type conversation struct {
	id       string
	members  []string
	messages []protocol.Message
	taken    map[string]bool // sender/client id
}

// New starts a server; Close (of httptest.Server) ends it and its sockets.
func New() *Server {
	s := &Server{
		Classify:      classify,
		TokenTTL:      time.Hour,
		epoch:         "epoch-1",
		users:         map[string]bool{},
		tokens:        map[string]string{},
		refresh:       map[string]string{},
		conversations: map[string]*conversation{},
		sockets:       map[*socket]bool{},
		moved:         map[group.ID]string{},
		faults:        map[string]Fault{},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/users", s.register)
	mux.HandleFunc("POST /v1/sessions", s.login)
	mux.HandleFunc("POST /v1/sessions/refresh", s.renew)
	mux.HandleFunc("GET /v1/me", s.authed(s.me))
	mux.HandleFunc("POST /v1/conversations", s.authed(s.open))
	mux.HandleFunc("POST /v1/conversations/{id}/messages", s.authed(s.send))
	mux.HandleFunc("GET /v1/conversations/{id}/messages", s.authed(s.history))
	mux.HandleFunc("GET /v1/ws", s.authed(s.ws))
	s.Server = httptest.NewServer(mux)
	return s
}

// Close cuts every socket and ends the server.
func (s *Server) Close() {
	s.CloseSockets(protocol.CloseShutdown)
	s.Server.Close()
}

// Misbehave sets what goes wrong from now on.
func (s *Server) Misbehave(c Chaos) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chaos = c
}

// SetFault makes a pool bad, or good again with the zero Fault.
func (s *Server) SetFault(pool string, f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[pool] = f
}

// SetEpoch starts numbering anew: histories keep their messages.
func (s *Server) SetEpoch(epoch string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch = epoch
}

// Backup keeps the conversations as they are; restore makes them so again, under the same
// epoch, as a database is that was restored.
func (s *Server) Backup() (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := copied(s.conversations)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.conversations = copied(kept)
	}
}

func copied(from map[string]*conversation) map[string]*conversation {
	to := map[string]*conversation{}
	for id, c := range from {
		to[id] = &conversation{id: id, members: c.members, messages: slices.Clone(c.messages), taken: maps.Clone(c.taken)}
	}
	return to
}

// Move sends a group to a pool ("" moves it back) and asks its sockets to follow.
func (s *Server) Move(id group.ID, pool string, ask protocol.Reconnect) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pool == "" {
		delete(s.moved, id)
	} else {
		s.moved[id] = pool
	}
	for k := range s.sockets {
		if k.group.ID() == id && k.pool != s.pool(k.group) {
			k.write(protocol.Frame{Reconnect: &ask})
		}
	}
}

// CloseSockets closes every socket with a code.
func (s *Server) CloseSockets(code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.sockets {
		k.end(code)
	}
}

// Sockets is how many are open.
func (s *Server) Sockets() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sockets)
}

// Messages is a conversation's history.
func (s *Server) Messages(id string) []protocol.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.conversations[id]; c != nil {
		return slices.Clone(c.messages)
	}
	return nil
}

// pool is where a group is served; the caller holds mu.
func (s *Server) pool(g group.Group) string {
	if p := s.moved[g.ID()]; p != "" {
		return p
	}
	if g.Color != group.Baseline {
		return semconv.PoolCanary
	}
	return semconv.PoolBaseline
}

// strike says what the fault of a pool does to one request; the caller holds mu.
func (s *Server) strike(pool string) (wait time.Duration, fail bool) {
	f := s.faults[pool]
	s.random = s.random*6364136223846793005 + 1442695040888963407
	return f.Latency, float64(s.random>>11)/(1<<53) < f.ErrorRatio
}

func classify(r *http.Request) group.Group {
	g := group.Group{Env: "prod", Tenant: "public"}
	host := strings.SplitN(r.Host, ":", 2)[0]
	if name, _, found := strings.Cut(host, "."); found && strings.HasSuffix(host, ".localhost") {
		g.Tenant = name
	}
	c, err := r.Cookie("env")
	if err == nil && c.Value == "canary" || r.Header.Get("x-env") == "canary" {
		g.Env, g.Color = "canary", group.ColorOf("canary")
	}
	return g
}

func (s *Server) authed(h func(w http.ResponseWriter, r *http.Request, name string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		s.mu.Lock()
		name := s.tokens[token]
		s.stamp(w, r)
		s.mu.Unlock()
		if name == "" {
			refuse(w, protocol.Error{Code: protocol.CodeUnauthenticated, Message: "no session"})
			return
		}
		h(w, r, name)
	}
}

// stamp sets the response headers of edge and core; the caller holds mu.
func (s *Server) stamp(w http.ResponseWriter, r *http.Request) (group.Group, string) {
	g := s.Classify(r)
	pool := s.pool(g)
	w.Header().Set(semconv.HeaderGroup, string(g.ID()))
	w.Header().Set(semconv.HeaderPool, pool)
	w.Header().Set(semconv.HeaderPrefix+"node", pool+"-1")
	return g, pool
}

// suffer applies the fault of the pool that serves r; false means it has answered.
func (s *Server) suffer(w http.ResponseWriter, r *http.Request) bool {
	s.mu.Lock()
	_, pool := s.stamp(w, r)
	wait, fail := s.strike(pool)
	s.mu.Unlock()
	if wait > 0 {
		select {
		case <-time.After(wait):
		case <-r.Context().Done():
		}
	}
	if fail {
		refuse(w, protocol.Error{Code: protocol.CodeUnavailable, Message: "fault", Temporary: true})
	}
	return !fail
}

func refuse(w http.ResponseWriter, e protocol.Error) { reply(w, e.Code.Status(), e) }

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (s *Server) register(w http.ResponseWriter, r *http.Request) {
	var in struct{ Name string }
	if json.NewDecoder(r.Body).Decode(&in) != nil || in.Name == "" {
		refuse(w, protocol.Error{Code: protocol.CodeInvalidArgument, Message: "no name", Field: "name"})
		return
	}
	s.mu.Lock()
	g, _ := s.stamp(w, r)
	had := s.users[in.Name]
	s.users[in.Name] = true
	s.mu.Unlock()
	if had {
		refuse(w, protocol.Error{Code: protocol.CodeAlreadyExists, Message: "name is taken", Field: "name"})
		return
	}
	reply(w, http.StatusCreated, map[string]string{"id": "u-" + in.Name, "name": in.Name, "tenant": g.Tenant})
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	var in struct{ Name string }
	_ = json.NewDecoder(r.Body).Decode(&in)
	s.mu.Lock()
	s.stamp(w, r)
	if !s.users[in.Name] {
		s.mu.Unlock()
		refuse(w, protocol.Error{Code: protocol.CodeUnauthenticated, Message: "wrong name or password"})
		return
	}
	grant := s.grant(in.Name)
	s.mu.Unlock()
	reply(w, http.StatusOK, grant)
}

// grant makes tokens; the caller holds mu.
func (s *Server) grant(name string) map[string]any {
	token, refresh := rand.Text(), rand.Text()
	s.tokens[token], s.refresh[refresh] = name, name
	return map[string]any{
		"token": token, "expires_at": time.Now().Add(s.TokenTTL),
		"refresh_token": refresh, "refresh_expires_at": time.Now().Add(24 * time.Hour),
		"user": map[string]string{"id": "u-" + name, "name": name},
	}
}

func (s *Server) renew(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Refresh string `json:"refresh_token"`
	}
	_ = json.NewDecoder(r.Body).Decode(&in)
	s.mu.Lock()
	s.stamp(w, r)
	name := s.refresh[in.Refresh]
	delete(s.refresh, in.Refresh)
	var grant map[string]any
	if name != "" {
		grant = s.grant(name)
	}
	s.mu.Unlock()
	if name == "" {
		refuse(w, protocol.Error{Code: protocol.CodeUnauthenticated, Message: "session has ended"})
		return
	}
	reply(w, http.StatusOK, grant)
}

// EndTokens makes all access tokens end now, and the refresh tokens too where sessions is set.
func (s *Server) EndTokens(sessions bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
	if sessions {
		clear(s.refresh)
	}
}

func (s *Server) me(w http.ResponseWriter, r *http.Request, name string) {
	if !s.suffer(w, r) {
		return
	}
	g := s.Classify(r)
	reply(w, http.StatusOK, map[string]any{
		"user":  map[string]string{"id": "u-" + name, "name": name},
		"group": string(g.ID()), "color": g.Color.String(), "env": g.Env, "tenant": g.Tenant,
		"pool": w.Header().Get(semconv.HeaderPool),
	})
}

func (s *Server) open(w http.ResponseWriter, r *http.Request, name string) {
	var in struct{ With string }
	_ = json.NewDecoder(r.Body).Decode(&in)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.users[in.With] {
		refuse(w, protocol.Error{Code: protocol.CodeNotFound, Message: "no such user", Field: "with"})
		return
	}
	members := []string{name, in.With}
	slices.Sort(members)
	id := "d-" + strings.Join(members, "-")
	if s.conversations[id] == nil {
		s.conversations[id] = &conversation{id: id, members: members, taken: map[string]bool{}}
	}
	reply(w, http.StatusOK, map[string]any{"id": id, "members": members})
}

func (s *Server) send(w http.ResponseWriter, r *http.Request, name string) {
	if !s.suffer(w, r) {
		return
	}
	var in struct {
		ClientID string `json:"client_id"`
		Text     string `json:"text"`
	}
	_ = json.NewDecoder(r.Body).Decode(&in)
	s.mu.Lock()
	verdict := s.judge()
	var e *protocol.Error
	if verdict == Take || verdict == DropNew {
		e = s.take(r.PathValue("id"), name, in.ClientID, in.Text)
	}
	s.mu.Unlock()
	switch {
	case verdict == DropOld || verdict == DropNew:
		panic(http.ErrAbortHandler)
	case verdict == Refuse:
		refuse(w, protocol.Error{Code: protocol.CodeUnavailable, Message: "not now", Temporary: true})
	case verdict == Deny:
		refuse(w, protocol.Error{Code: protocol.CodePermissionDenied, Message: "not you"})
	case e != nil:
		refuse(w, *e)
	default:
		reply(w, http.StatusAccepted, protocol.Accepted{ClientID: in.ClientID})
	}
}

// judge asks the chaos about the next send; the caller holds mu.
func (s *Server) judge() Verdict {
	s.sends++
	if s.chaos.Send == nil {
		return Take
	}
	return s.chaos.Send(s.sends)
}

// take stores a message once and pushes it to the members' sockets; the caller holds mu.
func (s *Server) take(id, sender, clientID, text string) *protocol.Error {
	c := s.conversations[id]
	if c == nil || !slices.Contains(c.members, sender) {
		return &protocol.Error{Code: protocol.CodePermissionDenied, Message: "not a member"}
	}
	if clientID == "" {
		return &protocol.Error{Code: protocol.CodeInvalidArgument, Message: "is missing", Field: "client_id"}
	}
	key := sender + "/" + clientID
	if c.taken[key] {
		return nil
	}
	c.taken[key] = true
	m := protocol.Message{
		Conversation: id, Seq: int64(len(c.messages)) + 1, ClientID: clientID,
		Sender: sender, Text: text, SentAt: time.Now().UTC(),
	}
	c.messages = append(c.messages, m)
	for k := range s.sockets {
		if slices.Contains(c.members, k.name) {
			k.push(m, s.chaos.Push)
		}
	}
	return nil
}

func (s *Server) history(w http.ResponseWriter, r *http.Request, name string) {
	if !s.suffer(w, r) {
		return
	}
	after, _ := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
	before, _ := strconv.ParseInt(r.URL.Query().Get("before"), 10, 64)
	limit, _ := strconv.ParseInt(r.URL.Query().Get("limit"), 10, 64)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	if s.chaos.History != nil {
		if status := s.chaos.History(s.reads); status != 0 {
			w.WriteHeader(status)
			return
		}
	}
	c := s.conversations[r.PathValue("id")]
	if c == nil || !slices.Contains(c.members, name) {
		refuse(w, protocol.Error{Code: protocol.CodeNotFound, Message: "not a member", Field: "conversation"})
		return
	}
	from := min(max(after, 0), int64(len(c.messages)))
	to := min(from+max(limit, 1), int64(len(c.messages)))
	if before > 0 {
		to = min(before-1, int64(len(c.messages)))
		from = max(to-max(limit, 1), 0)
	}
	reply(w, http.StatusOK, map[string]any{"messages": c.messages[from:to], "epoch": s.epoch})
}

func (s *Server) String() string { return fmt.Sprintf("coretest at %s", s.URL) }
