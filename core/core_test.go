package core_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/tracegate/tracegate/core"
	fanoutembedded "github.com/tracegate/tracegate/core/fanout/embedded"
	"github.com/tracegate/tracegate/core/file"
	"github.com/tracegate/tracegate/core/protocol"
	queueembedded "github.com/tracegate/tracegate/core/queue/embedded"
	"github.com/tracegate/tracegate/mesh/placement"
)

const (
	password = "correct horse"
	token    = "0123456789abcdef0123456789abcdef"
)

// background runs a part until stop is called or the test ends.
func background(t testing.TB, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// world is what processes share.
type world struct {
	t     testing.TB
	dir   string
	key   ed25519.PrivateKey
	kafka string
	redis string

	stopRedis func()
	spans     sdktrace.SpanProcessor
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	_, w.key, _ = ed25519.GenerateKey(nil)
	addr := make(chan string, 1)
	background(t, func(ctx context.Context) error {
		return queueembedded.Run(ctx, queueembedded.Config{Listen: "127.0.0.1:0"}, func(a string) { addr <- a }, quiet())
	})
	w.kafka = <-addr
	w.startRedis("127.0.0.1:0")
	return w
}

func (w *world) startRedis(listen string) {
	addr := make(chan string, 1)
	w.stopRedis = background(w.t, func(ctx context.Context) error {
		return fanoutembedded.Run(ctx, fanoutembedded.Config{Listen: listen, Password: password}, func(a string) { addr <- a })
	})
	w.redis = <-addr
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// node is one core process.
type node struct {
	t          testing.TB
	url, admin string
	registry   *prometheus.Registry
	stop       func()
	placements *placements
}

func (w *world) config(pool string) core.Config {
	cfg := core.DefaultConfig()
	cfg.Pool, cfg.Node = pool, pool+"-1"
	cfg.Listen, cfg.Admin, cfg.Token = "127.0.0.1:0", "127.0.0.1:0", token
	cfg.Account.BcryptCost = 4
	cfg.Store.URL = "sqlite:" + filepath.Join(w.dir, "core.db")
	cfg.Queue.Brokers = []string{w.kafka}
	cfg.Queue.Partitions = 4
	cfg.Queue.Linger = time.Millisecond
	cfg.Fanout.Addrs, cfg.Fanout.Password = []string{w.redis}, password
	cfg.FilePlace = file.Place{Folder: filepath.Join(w.dir, "files"), Key: token}
	cfg.File.MaxSize = 1 << 20
	cfg.Session.CatchUpEvery = 500 * time.Millisecond
	cfg.Session.CatchUpFast = 100 * time.Millisecond
	cfg.LameDuck, cfg.DrainSpread, cfg.DrainGrace = 10*time.Millisecond, 10*time.Millisecond, 200*time.Millisecond
	return cfg
}

func (w *world) deps() core.Deps {
	opts := []sdktrace.TracerProviderOption{}
	if w.spans != nil {
		opts = append(opts, sdktrace.WithSpanProcessor(w.spans))
	}
	return core.Deps{
		Key: w.key, Registry: prometheus.NewRegistry(), Tracing: sdktrace.NewTracerProvider(opts...),
		Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
	}
}

func (w *world) start(cfg core.Config) *node { return w.startWith(cfg, w.deps(), quiet()) }

func (w *world) startWith(cfg core.Config, deps core.Deps, log *slog.Logger) *node {
	w.t.Helper()
	n := &node{t: w.t, registry: deps.Registry, placements: newPlacements()}
	ready := make(chan [2]string, 1)
	deps.Placements = n.placements
	deps.Ready = func(listen, admin string) { ready <- [2]string{listen, admin} }
	failed := make(chan error, 1)
	n.stop = background(w.t, func(ctx context.Context) error {
		err := core.Run(ctx, cfg, deps, log)
		failed <- err
		return err
	})
	select {
	case a := <-ready:
		n.url, n.admin = "http://"+a[0], "http://"+a[1]
	case err := <-failed:
		w.t.Fatal(err)
	}
	return n
}

// call makes a request and decodes the answer; what is not in 200-299 is returned as
// the *protocol.Error that it must be.
func (n *node) call(method, path, bearer string, in, out any) error {
	n.t.Helper()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			n.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	return n.raw(method, n.url+path, bearer, body, nil, out)
}

func (n *node) raw(method, url, bearer string, body io.Reader, header http.Header, out any) error {
	n.t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		n.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for k, v := range header {
		r.Header[k] = v
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		e := &protocol.Error{}
		if err := json.Unmarshal(b, e); err != nil || e.Code == "" {
			n.t.Fatalf("%s %s: status %d, body is no error: %s", method, url, resp.StatusCode, b)
		}
		if e.Code.Status() != resp.StatusCode || e.Code.Temporary() != e.Temporary {
			n.t.Errorf("%s %s: status %d, temporary %v for %s", method, url, resp.StatusCode, e.Temporary, e.Code)
		}
		return e
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// person registers and logs in.
func (n *node) person(name string) (bearer string) {
	n.t.Helper()
	in := map[string]string{"name": name, "password": password}
	must(n.t, n.call("POST", "/v1/users", "", in, nil))
	return n.login(name)
}

func (n *node) login(name string) string {
	n.t.Helper()
	var out struct{ Token string }
	must(n.t, n.call("POST", "/v1/sessions", "", map[string]string{"name": name, "password": password}, &out))
	return out.Token
}

func (n *node) direct(bearer, with string) (id string) {
	n.t.Helper()
	var out struct{ ID string }
	must(n.t, n.call("POST", "/v1/conversations", bearer, map[string]string{"with": with}, &out))
	return out.ID
}

// group makes a group of the caller and others.
func (n *node) group(bearer, name string, members ...string) (id string) {
	n.t.Helper()
	var out struct{ ID string }
	must(n.t, n.call("POST", "/v1/conversations", bearer, map[string]any{"name": name, "members": members}, &out))
	return out.ID
}

func (n *node) history(bearer, conversation string) []protocol.Message {
	n.t.Helper()
	var page struct{ Messages []protocol.Message }
	must(n.t, n.call("GET", "/v1/conversations/"+conversation+"/messages?limit=200", bearer, nil, &page))
	return page.Messages
}

func (n *node) send(bearer, conversation, clientID string) error {
	n.t.Helper()
	return n.call("POST", "/v1/conversations/"+conversation+"/messages", bearer,
		map[string]string{"client_id": clientID, "text": "text " + clientID}, nil)
}

// socket is a client that trusts the server to deliver exactly once and in order, and
// fails its test where that is not so.
type socket struct {
	t     testing.TB
	ws    *websocket.Conn
	hello protocol.Hello
	seen  *seen

	mu      sync.Mutex
	id      uint32
	replies map[uint32]chan protocol.Frame
	pushes  chan protocol.Frame // reconnects
	closed  chan struct{}       // closed when the connection is gone; err is set then
	err     error
}

// seen is what a user has received over all its connections.
type seen struct {
	mu        sync.Mutex
	epoch     string
	positions map[string]int64
	ids       map[string][]string           // client ids by conversation
	entries   map[string][]protocol.Message // the same, whole
	texts     map[string]map[int64]string   // of messages, after all edits and recalls so far
	changed   chan struct{}
}

func newSeen() *seen {
	return &seen{
		positions: map[string]int64{}, ids: map[string][]string{}, entries: map[string][]protocol.Message{},
		texts: map[string]map[int64]string{}, changed: make(chan struct{}, 1),
	}
}

// take takes an entry that was sent to a user; it must be the next one, or the one with
// which the user's part begins.
func (s *seen) take(t testing.TB, user string, m protocol.Message) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if want := s.positions[m.Conversation] + 1; m.Seq != want && (m.Seq < want || !m.Begins(user)) {
		t.Errorf("conversation %s: %s got seq %d, want %d", m.Conversation, user, m.Seq, want)
	}
	s.positions[m.Conversation] = m.Seq
	s.ids[m.Conversation] = append(s.ids[m.Conversation], m.ClientID)
	s.entries[m.Conversation] = append(s.entries[m.Conversation], m)
	if s.texts[m.Conversation] == nil {
		s.texts[m.Conversation] = map[int64]string{}
	}
	show(s.texts[m.Conversation], m)
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// show does what a device does with an entry.
func show(texts map[int64]string, m protocol.Message) {
	switch {
	case m.Event == nil:
		texts[m.Seq] = m.Text
	case m.Event.Kind == protocol.EventEdited:
		if _, known := texts[m.Event.Target]; known { // else it was before this user's time
			texts[m.Event.Target] = m.Text
		}
	case m.Event.Kind == protocol.EventRecalled:
		if _, known := texts[m.Event.Target]; known {
			texts[m.Event.Target] = ""
		}
	}
}

// until waits until an entry has come, and returns it.
func (s *seen) until(t testing.TB, conversation string, is func(protocol.Message) bool) protocol.Message {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		s.mu.Lock()
		i := slices.IndexFunc(s.entries[conversation], is)
		var found protocol.Message
		if i >= 0 {
			found = s.entries[conversation][i]
		}
		s.mu.Unlock()
		if i >= 0 {
			return found
		}
		select {
		case <-s.changed:
		case <-deadline:
			t.Fatal("the entry never came")
		}
	}
}

func (s *seen) count(conversation string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ids[conversation])
}

// wait waits until n messages of a conversation have come.
func (s *seen) wait(t testing.TB, conversation string, n int) {
	t.Helper()
	deadline := time.After(2 * time.Minute) // a busy machine with -race
	for s.count(conversation) < n {
		select {
		case <-s.changed:
		case <-deadline:
			t.Fatalf("got %d of %d messages", s.count(conversation), n)
		}
	}
}

// connect opens a connection and resumes from what has been seen.
func (n *node) connect(bearer string, s *seen) (*socket, protocol.Resumed) {
	n.t.Helper()
	c := n.open(bearer, s)
	return c, c.resume()
}

func (n *node) open(bearer string, s *seen) *socket {
	n.t.Helper()
	c, err := n.tryOpen(bearer, s, nil)
	must(n.t, err)
	return c
}

func (n *node) tryOpen(bearer string, s *seen, header http.Header) (*socket, error) {
	h := http.Header{"Authorization": {"Bearer " + bearer}}
	for k, v := range header {
		h[k] = v
	}
	ws, resp, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(n.url, "http")+"/v1/ws", h)
	if err != nil {
		if resp != nil {
			e := &protocol.Error{}
			if json.NewDecoder(resp.Body).Decode(e) == nil {
				return nil, e
			}
		}
		return nil, err
	}
	c := &socket{
		t: n.t, ws: ws, seen: s, replies: map[uint32]chan protocol.Frame{},
		pushes: make(chan protocol.Frame, 16), closed: make(chan struct{}),
	}
	var f protocol.Frame
	if err := ws.ReadJSON(&f); err != nil || f.Hello == nil {
		return nil, fmt.Errorf("no hello: %w", err)
	}
	c.hello = *f.Hello
	n.t.Cleanup(func() { _ = ws.Close() })
	go c.read()
	return c, nil
}

func (c *socket) read() {
	for {
		var f protocol.Frame
		if err := c.ws.ReadJSON(&f); err != nil {
			c.mu.Lock()
			for id, ch := range c.replies {
				close(ch)
				delete(c.replies, id)
			}
			c.replies = nil
			c.mu.Unlock()
			c.err = err
			close(c.closed)
			return
		}
		switch {
		case f.Message != nil:
			c.seen.take(c.t, c.hello.User, *f.Message)
		case f.ID != 0:
			c.mu.Lock()
			ch := c.replies[f.ID]
			delete(c.replies, f.ID)
			c.mu.Unlock()
			if ch == nil {
				c.t.Errorf("reply to nothing: %+v", f)
				continue
			}
			ch <- f
		case f.Receipt != nil || f.Typing != nil: // of others
		default:
			c.pushes <- f
		}
	}
}

var errGone = errors.New("connection is gone")

// begin sends a command; its reply comes on the channel, which is closed when the
// connection ends before.
func (c *socket) begin(cmd protocol.Command) <-chan protocol.Frame {
	ch := make(chan protocol.Frame, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.replies == nil {
		close(ch)
		return ch
	}
	c.id++
	cmd.ID = c.id
	c.replies[cmd.ID] = ch
	_ = c.ws.WriteJSON(cmd) // the reader finds out
	return ch
}

func (c *socket) do(cmd protocol.Command) (protocol.Frame, error) {
	select {
	case f, ok := <-c.begin(cmd):
		if !ok {
			return f, errGone
		}
		if f.Error != nil {
			return f, f.Error
		}
		return f, nil
	case <-time.After(20 * time.Second):
		return protocol.Frame{}, errors.New("no reply")
	}
}

func (c *socket) resume() protocol.Resumed {
	c.t.Helper()
	r, err := c.tryResume()
	must(c.t, err)
	return r
}

func (c *socket) tryResume() (protocol.Resumed, error) {
	c.seen.mu.Lock()
	if c.seen.epoch == "" {
		c.seen.epoch = c.hello.Epoch
	}
	r := protocol.Resume{Token: c.hello.Resume, Epoch: c.seen.epoch, Positions: map[string]int64{}}
	for k, v := range c.seen.positions {
		r.Positions[k] = v
	}
	c.seen.mu.Unlock()
	f, err := c.do(protocol.Command{Resume: &r})
	if err != nil {
		return protocol.Resumed{}, err
	}
	if f.Resumed == nil {
		return protocol.Resumed{}, fmt.Errorf("got %+v", f)
	}
	return *f.Resumed, nil
}

func (c *socket) send(conversation, clientID string) error {
	_, err := c.do(protocol.Command{Send: &protocol.Send{Conversation: conversation, ClientID: clientID, Text: "text " + clientID}})
	return err
}

// placements is a control plane in memory.
type placements struct {
	changes chan placement.Placement
}

func newPlacements() *placements { return &placements{changes: make(chan placement.Placement)} }

func (p *placements) WatchPlacement(ctx context.Context, each func(placement.Placement)) error {
	for {
		select {
		case change := <-p.changes:
			each(change)
		case <-ctx.Done():
			return nil
		}
	}
}
