package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/session"
	"github.com/tracegate/tracegate/mesh/group"
)

// history is a store in memory; every user is in every conversation, except where spans
// says what it may see.
type history struct {
	mu       sync.Mutex
	messages map[string][]protocol.Message
	spans    map[string]chat.Span // by user and conversation, as "id-ann a"
	rosters  map[string]*chat.Roster
	down     bool
	epoch    string
	reads    int
	onEpoch  func()            // called before Epoch answers
	onRead   func(user string) // called before Messages answers
}

func newHistory() *history {
	return &history{
		messages: map[string][]protocol.Message{}, spans: map[string]chat.Span{}, rosters: map[string]*chat.Roster{}, epoch: "e1",
	}
}

func (h *history) add(conversation, text string) protocol.Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.addLocked(conversation, text)
}

func (h *history) addLocked(conversation, text string) protocol.Message {
	m := protocol.Message{Conversation: conversation, Seq: int64(len(h.messages[conversation]) + 1), Text: text, Sender: "bob"}
	h.messages[conversation] = append(h.messages[conversation], m)
	return m
}

// span is what a user may see; mu is held.
func (h *history) span(user, conversation string) chat.Span {
	span, limited := h.spans[user+" "+conversation]
	if head := int64(len(h.messages[conversation])); !limited || span.Last == 0 {
		span.Last = head
	}
	return span
}

func (h *history) Heads(_ context.Context, users ...string) (map[string]map[string]chat.Span, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads++
	if h.down {
		return nil, errors.New("down")
	}
	out := map[string]map[string]chat.Span{}
	for _, u := range users {
		out[u] = map[string]chat.Span{}
		for c := range h.messages {
			out[u][c] = h.span(u, c)
		}
	}
	return out, nil
}

func (h *history) Messages(_ context.Context, user, conversation string, after int64, limit int) ([]protocol.Message, error) {
	if h.onRead != nil {
		h.onRead(user)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down {
		return nil, errors.New("down")
	}
	span := h.span(user, conversation)
	after = max(after, span.After)
	list := h.messages[conversation][:span.Last]
	if int(after) >= len(list) {
		return nil, nil
	}
	return append([]protocol.Message{}, list[after:min(int(after)+limit, len(list))]...), nil
}

func (h *history) Standing(_ context.Context, conversation string) (chat.Standing, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down {
		return chat.Standing{}, errors.New("down")
	}
	return chat.Standing{LastSeq: int64(len(h.messages[conversation])), Roster: h.rosters[conversation]}, nil
}

func (h *history) Epoch() string {
	if h.onEpoch != nil {
		h.onEpoch()
	}
	return h.epoch
}

// sender answers sends by a function.
type sender struct {
	mu  sync.Mutex
	got []string // client ids in order
	f   func(m protocol.Send, done func(protocol.Accepted, error))
}

func (s *sender) Accept(_ context.Context, _ chat.User, m protocol.Send, traceID string, done func(protocol.Accepted, error)) {
	s.mu.Lock()
	s.got = append(s.got, m.ClientID)
	f := s.f
	s.mu.Unlock()
	if f != nil {
		f(m, done)
		return
	}
	done(protocol.Accepted{ClientID: m.ClientID, TraceID: traceID}, nil)
}

// Edit and Recall answer as Accept does, with what they name as client id.
func (s *sender) Edit(ctx context.Context, from chat.User, m protocol.Edit, traceID string, done func(protocol.Accepted, error)) {
	s.Accept(ctx, from, protocol.Send{ClientID: fmt.Sprint("edit ", m.Seq)}, traceID, done)
}

func (s *sender) React(ctx context.Context, from chat.User, m protocol.React, traceID string, done func(protocol.Accepted, error)) {
	s.Accept(ctx, from, protocol.Send{ClientID: fmt.Sprint("react ", m.Seq, m.Emoji)}, traceID, done)
}

func (s *sender) Unreact(ctx context.Context, from chat.User, m protocol.React, traceID string, done func(protocol.Accepted, error)) {
	s.Accept(ctx, from, protocol.Send{ClientID: fmt.Sprint("unreact ", m.Seq, m.Emoji)}, traceID, done)
}

func (s *sender) Recall(ctx context.Context, from chat.User, m protocol.Recall, traceID string, done func(protocol.Accepted, error)) {
	s.Accept(ctx, from, protocol.Send{ClientID: fmt.Sprint("recall ", m.Seq)}, traceID, done)
}

// signals repeats what it is given; it refuses the conversation "none".
type signals struct{}

func (signals) Mark(_ context.Context, from chat.User, m protocol.Mark, done func(protocol.Receipt, error)) {
	if m.Conversation == "none" {
		done(protocol.Receipt{}, chat.NoConversation())
		return
	}
	done(protocol.Receipt{Conversation: m.Conversation, User: from.Name, Read: m.Read, Delivered: m.Delivered}, nil)
}

func (signals) Typing(_ context.Context, _ chat.User, conversation string) error {
	if conversation == "none" {
		return chat.NoConversation()
	}
	return nil
}

// subscriptions notes who is subscribed.
type subscriptions struct {
	mu    sync.Mutex
	users map[string]int
	sick  bool
}

func (s *subscriptions) Subscribe(user string)   { s.change(user, 1) }
func (s *subscriptions) Unsubscribe(user string) { s.change(user, -1) }
func (s *subscriptions) change(user string, by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == nil {
		s.users = map[string]int{}
	}
	s.users[user] += by
}

func (s *subscriptions) Healthy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.sick
}

// seats counts connections on this process and some elsewhere.
type seats struct {
	mu              sync.Mutex
	here, elsewhere map[string]int
	claims          []int         // in the order in which they came
	gate            chan struct{} // what claims wait for; nil: for nothing
}

func (s *seats) Claim(_ context.Context, user string, mine, limit int) bool {
	s.mu.Lock()
	s.claims = append(s.claims, mine)
	s.mu.Unlock()
	if s.gate != nil {
		<-s.gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return mine+s.elsewhere[user] <= limit
}

func (s *seats) Seated(user string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.here[user] = n
}

func (s *seats) claimed() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.claims)
}

func (s *seats) of(user string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.here[user]
}

type noFault struct{}

func (noFault) Roll() (time.Duration, bool) { return 0, false }

// rig is a hub behind an HTTP server. The user's name is the query; color too.
type rig struct {
	t       testing.TB
	hub     *session.Hub
	history *history
	sender  *sender
	subs    *subscriptions
	seats   *seats
	reg     *prometheus.Registry
	server  *httptest.Server
	expires time.Time
	stop    func()
}

func newRig(t testing.TB, edit func(*session.Config), opts ...sdktrace.TracerProviderOption) *rig {
	t.Helper()
	r := &rig{
		t: t, history: newHistory(), sender: &sender{}, subs: &subscriptions{}, seats: &seats{here: map[string]int{}, elsewhere: map[string]int{}}, reg: prometheus.NewRegistry(),
		expires: time.Now().Add(time.Hour),
	}
	cfg := session.DefaultConfig()
	cfg.CatchUpEvery = 300 * time.Millisecond
	cfg.ResumeWait = 300 * time.Millisecond
	if edit != nil {
		edit(&cfg)
	}
	hub, err := session.New(cfg, session.Deps{
		Node: "n1", Pool: "baseline", History: r.history, Sender: r.sender, Signals: signals{}, Fanout: r.subs, Seats: r.seats, Fault: noFault{},
		Tracer: sdktrace.NewTracerProvider(opts...).Tracer("test"), Registerer: r.reg, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.hub = hub
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		q := req.URL.Query()
		name := q.Get("user")
		if name == "" {
			name = "ann"
		}
		color, _ := group.ParseColor(q.Get("color"))
		err := hub.Upgrade(w, req, session.Who{
			User: chat.User{ID: "id-" + name, Name: name}, Expires: r.expires,
			Group: group.Group{Color: color, Env: "prod", Tenant: "public"},
			Edge:  q.Get("edge"), Address: q.Get("address"),
		})
		if e, ok := errors.AsType[*protocol.Error](err); ok {
			w.WriteHeader(e.Code.Status())
			_ = json.NewEncoder(w).Encode(e)
		}
	}))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- hub.Run(ctx) }()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			r.server.Close()
		})
	}
	t.Cleanup(r.stop)
	return r
}

func (r *rig) metric(name string) float64 {
	r.t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	want, label, _ := strings.Cut(name, "/")
	sum := 0.0
	for _, f := range families {
		if f.GetName() != want {
			continue
		}
		for _, m := range f.GetMetric() {
			if label == "" || m.GetLabel()[0].GetValue() == label {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// eventually polls a condition.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			r.t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (r *rig) dial(query string, header http.Header) (*websocket.Conn, *http.Response, error) {
	return websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(r.server.URL, "http")+"/?"+query, header)
}

// open connects and reads the Hello.
func (r *rig) open(query string) *client {
	r.t.Helper()
	ws, _, err := r.dial(query, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	c := &client{t: r.t, ws: ws}
	r.t.Cleanup(func() { _ = ws.Close() })
	if f := c.next(); f.Hello == nil {
		r.t.Fatalf("first frame is %+v", f)
	} else {
		c.hello = *f.Hello
	}
	return c
}

// client reads frames one by one.
type client struct {
	t     testing.TB
	ws    *websocket.Conn
	hello protocol.Hello
	id    uint32
}

func (c *client) next() protocol.Frame {
	c.t.Helper()
	f, err := c.read()
	if err != nil {
		c.t.Fatal(err)
	}
	return f
}

func (c *client) read() (protocol.Frame, error) {
	_ = c.ws.SetReadDeadline(time.Now().Add(time.Minute))
	var f protocol.Frame
	err := c.ws.ReadJSON(&f)
	return f, err
}

func (c *client) write(cmd protocol.Command) uint32 {
	c.t.Helper()
	c.id++
	cmd.ID = c.id
	if err := c.ws.WriteJSON(cmd); err != nil {
		c.t.Fatal(err)
	}
	return c.id
}

// resume resumes and returns the messages that came before the reply.
func (c *client) resume(positions map[string]int64) ([]protocol.Message, protocol.Resumed) {
	c.t.Helper()
	id := c.write(protocol.Command{Resume: &protocol.Resume{Epoch: c.hello.Epoch, Positions: positions}})
	var got []protocol.Message
	for {
		f := c.next()
		switch {
		case f.Message != nil:
			got = append(got, *f.Message)
		case f.ID == id && f.Resumed != nil:
			return got, *f.Resumed
		default:
			c.t.Fatalf("got %+v", f)
		}
	}
}

// closeCode reads to the end and returns the code it was closed with.
func (c *client) closeCode() int {
	c.t.Helper()
	for {
		if _, err := c.read(); err != nil {
			if e, ok := errors.AsType[*websocket.CloseError](err); ok {
				return e.Code
			}
			c.t.Fatalf("not closed with a code: %v", err)
		}
	}
}

func frameOf(m protocol.Message) []byte {
	b, _ := json.Marshal(protocol.Frame{Message: &m})
	return b
}

func seqs(list []protocol.Message) string {
	var out []string
	for _, m := range list {
		out = append(out, fmt.Sprintf("%s%d", m.Conversation, m.Seq))
	}
	return strings.Join(out, " ")
}
