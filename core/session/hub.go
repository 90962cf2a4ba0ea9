package session

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/tracegate/tracegate/core/bucket"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/protocol/wire"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/placement"
)

// Deps are what a hub works with.
type Deps struct {
	Node, Pool string
	History    History
	Sender     Sender
	Signals    Signals
	Fanout     Subscriptions
	Seats      Seats // nil: each process counts for itself
	Fault      Fault
	Tracer     trace.Tracer
	Registerer prometheus.Registerer
	Log        *slog.Logger
}

// Hub is the connections of this process. Run it; it is safe for concurrent use.
type Hub struct {
	cfg      Config
	deps     Deps
	upgrader websocket.Upgrader
	metrics  metrics
	readers  chan struct{} // replays that read from the store
	buffers  sync.Pool     // see borrow
	recoder  recoder       // of pushes
	running  sync.WaitGroup
	limits   atomic.Pointer[liveLimits]

	mu       sync.Mutex
	users    map[string][]*conn
	coming   map[string]int // connections that are reserved and not among those of users yet; nil while there are none
	origins  map[string]*origin
	sockets  int
	accepts  bucket.Bucket // tokens for new connections
	draining bool
	place    placement.Placement // the newest; see placed
	placed   bool                // one has come
	placedAt time.Time           // when its version was first seen
	moves    map[group.ID]*move

	groups chan groupPush

	catchUp  chan struct{} // there is something in pending or everyone
	pendMu   sync.Mutex
	pending  map[string]struct{} // users whose positions are to be compared with the store
	everyone []string            // the same, by the slow tick; a map would keep its size
}

// New prepares a hub.
func New(cfg Config, deps Deps) (*Hub, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("session config: %w", err)
	}
	h := &Hub{
		cfg: cfg, deps: deps, users: map[string][]*conn{}, origins: map[string]*origin{}, moves: map[group.ID]*move{},
		readers: make(chan struct{}, cfg.ReplayReaders), groups: make(chan groupPush, groupQueue),
		catchUp: make(chan struct{}, 1), pending: map[string]struct{}{},
	}
	h.limits.Store(&liveLimits{Limits: cfg.Limits})
	h.upgrader = websocket.Upgrader{
		HandshakeTimeout: 5 * time.Second, CheckOrigin: h.originAllowed, Subprotocols: []string{wire.JSON, wire.Protobuf},
		// Room for a control frame. Of a longer text the rest is read straight to where it
		// belongs: one more system call, for 128 to 384 bytes less of each connection.
		ReadBufferSize: 128,
		// Not used, see quiet; without a pool each connection would have a buffer.
		WriteBufferPool: &sync.Pool{}, WriteBufferSize: 1,
	}
	m, err := newMetrics(deps.Registerer, h)
	if err != nil {
		return nil, fmt.Errorf("register session metrics: %w", err)
	}
	h.metrics = m
	return h, nil
}

// liveLimits are those that count now.
type liveLimits struct {
	Limits
	since int64 // when they were set, unix nanoseconds; 0: at the start
}

// Limit replaces limits, also for connections that are open. None is closed by that alone:
// new counts are asked where one comes, and silence counts from now on where it must be
// shorter, so that each connection is pinged first. One that has more waiting than it may
// now is closed as slow with the next frame. It takes what [Limits.Check] finds nothing in.
func (h *Hub) Limit(l Limits) {
	h.limits.Store(&liveLimits{Limits: l, since: time.Now().UnixNano()})
}

// Run does what happens by the clock (heartbeats, expiry, moves, comparing with the
// store) until ctx is done. Drain is separate, because connections are asked to leave
// while everything still works.
func (h *Hub) Run(ctx context.Context) error {
	h.running.Go(func() { h.catchUpLoop(ctx) })
	h.running.Go(func() { h.groupLoop(ctx) })
	t := time.NewTicker(250 * time.Millisecond)
	defer t.Stop()
	var compared time.Time
	for {
		select {
		case now := <-t.C:
			h.tick(now)
			every := h.cfg.CatchUpEvery
			if !h.deps.Fanout.Healthy() {
				every = h.cfg.CatchUpFast
			}
			if now.Sub(compared) >= every {
				compared = now
				h.CatchUpAll()
			}
		case <-ctx.Done():
			h.closeAll(protocol.CloseShutdown)
			h.running.Wait()
			return nil
		}
	}
}

// tick does what is due for every connection.
func (h *Hub) tick(now time.Time) {
	h.each(func(c *conn) { c.tick(now) })
	h.movePlaced(now)
}

// Upgrade makes a request a connection and returns at once, or returns the
// *protocol.Error that the client is to get by HTTP. Where the handshake itself failed,
// the client has been answered and the error is nil.
func (h *Hub) Upgrade(w http.ResponseWriter, r *http.Request, who Who) error {
	if !websocket.IsWebSocketUpgrade(r) {
		return protocol.NewError(protocol.CodeInvalidArgument, "upgrade", "this is a WebSocket endpoint")
	}
	if !h.originAllowed(r) {
		h.metrics.refused.WithLabelValues("origin").Inc()
		return protocol.NewError(protocol.CodePermissionDenied, "origin", "origin is not allowed")
	}
	if err := h.admit(r.Context(), who.User.ID); err != nil {
		return err
	}
	taken := &quieting{ResponseWriter: w}
	ws, err := h.upgrader.Upgrade(taken, r, h.header())
	if err != nil {
		h.abandon(who.User.ID)
		h.metrics.refused.WithLabelValues("handshake").Inc()
		return nil
	}
	taken.conn.mute = true
	c := newConn(h, taken.conn.TCPConn, who)
	c.binary = ws.Subprotocol() == wire.Protobuf
	c.hello()
	h.add(c)
	// The read loop runs in a goroutine of its own, so that net/http frees what it
	// holds for the request; all else is done outside of it, so that its stack, which
	// is most of what an idle connection costs, never grows.
	go func() { // counted by reserve
		c.readLoop(ws)
		h.remove(c)
		h.release()
	}()
	return nil
}

// hello is the first frame of every connection: it is queued before others can see it.
func (c *conn) hello() {
	h := c.hub
	c.send(protocol.Frame{Hello: &protocol.Hello{
		User: c.userName, Session: c.session(), Epoch: h.deps.History.Epoch(), Resume: c.session(),
		Group: string(c.origin.id), Pool: h.deps.Pool, Node: h.deps.Node,
	}})
}

func (h *Hub) header() http.Header {
	return http.Header{"X-Traffic-Pool": {h.deps.Pool}, "X-Traffic-Node": {h.deps.Node}}
}

// admit reserves a connection here and in what all processes together allow its user.
func (h *Hub) admit(ctx context.Context, user string) error {
	mine, err := h.reserve(user)
	if err != nil {
		return err
	}
	if h.deps.Seats != nil && !h.deps.Seats.Claim(ctx, user, mine, h.limits.Load().MaxPerUserAll) {
		h.abandon(user)
		h.metrics.refused.WithLabelValues("user_elsewhere").Inc()
		return tooMany()
	}
	return nil
}

func tooMany() error {
	return protocol.NewError(protocol.CodeRateLimited, "", "too many connections of this user")
}

// reserve counts a connection before it exists, so that bounds hold, and returns how many
// the user has here with it and others that are on their way.
func (h *Hub) reserve(user string) (mine int, err error) {
	limits := h.limits.Load()
	h.mu.Lock()
	defer h.mu.Unlock()
	mine = len(h.users[user]) + h.coming[user] + 1
	switch {
	case h.draining:
		h.metrics.refused.WithLabelValues("draining").Inc()
		return 0, protocol.NewError(protocol.CodeUnavailable, "", "this process is shutting down")
	case h.sockets >= limits.MaxSockets:
		h.metrics.refused.WithLabelValues("full").Inc()
		return 0, protocol.NewError(protocol.CodeUnavailable, "", "too many connections")
	case mine > limits.MaxPerUser:
		h.metrics.refused.WithLabelValues("user").Inc()
		return 0, tooMany()
	case !h.accepts.Take(time.Now(), limits.AcceptRate, limits.AcceptBurst): // the last, so that only who gets in takes a token
		h.metrics.refused.WithLabelValues("rate").Inc()
		return 0, protocol.NewError(protocol.CodeUnavailable, "", "too many new connections at once")
	}
	h.sockets++
	if h.coming == nil {
		h.coming = map[string]int{}
	}
	h.coming[user]++
	h.running.Add(1) // under the lock that draining is set under, so never after Run waits
	return mine, nil
}

// abandon is release for a connection that was reserved and did not come.
func (h *Hub) abandon(user string) {
	h.mu.Lock()
	h.arrived(user)
	h.mu.Unlock()
	h.release()
}

// arrived strikes a connection off those that are on their way; mu is held.
func (h *Hub) arrived(user string) {
	if h.coming[user]--; h.coming[user] == 0 {
		delete(h.coming, user)
	}
	if len(h.coming) == 0 {
		h.coming = nil // it would keep the size that it had when many came at once
	}
}

func (h *Hub) release() {
	h.mu.Lock()
	h.sockets--
	h.mu.Unlock()
	h.running.Done()
}

func (h *Hub) add(c *conn) {
	h.mu.Lock()
	c.origin = h.share(c.origin)
	h.arrived(c.userID)
	list := h.users[c.userID]
	h.users[c.userID] = append(slices.Clone(list), c)
	if len(list) == 0 {
		h.deps.Fanout.Subscribe(c.userID) // under the lock, as its opposite: the last one must win
	} else {
		h.seated(c.userID, len(list)+1)
	}
	draining := h.draining
	h.mu.Unlock()
	h.metrics.opened.Inc()
	if draining { // it slipped in
		c.close(protocol.CloseShutdown, true)
	}
}

func (h *Hub) remove(c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unshare(c.origin)
	id := c.userID
	list := slices.DeleteFunc(slices.Clone(h.users[id]), func(o *conn) bool { return o == c })
	if len(list) > 0 {
		h.users[id] = list
		h.seated(id, len(list))
		return
	}
	delete(h.users, id)
	h.deps.Fanout.Unsubscribe(id)
}

func (h *Hub) seated(user string, n int) {
	if h.deps.Seats != nil {
		h.deps.Seats.Seated(user, n)
	}
}

// Deliver pushes to the connections that a user has here. It does not block.
func (h *Hub) Deliver(user, conversation string, seq int64, frame []byte) {
	h.mu.Lock()
	list := h.users[user] // replaced, never changed in place
	h.mu.Unlock()
	for _, c := range list {
		c.deliver(conversation, seq, frame)
	}
}

// Signal pushes what is stored nowhere to the connections that a user has here. It does
// not block; a connection that is busy or not live yet goes without.
func (h *Hub) Signal(user string, frame []byte) {
	h.mu.Lock()
	list := h.users[user]
	h.mu.Unlock()
	for _, c := range list {
		c.signal(frame)
	}
}

// End closes the connections of a log-in session of a user, for good. It does not block.
func (h *Hub) End(user, login string) {
	id, err := uuid.Parse(login)
	if err != nil {
		return
	}
	h.mu.Lock()
	list := h.users[user]
	h.mu.Unlock()
	for _, c := range list {
		if c.login == id {
			c.close(protocol.CloseExpired, true)
		}
	}
}

// each calls f for every connection, without the lock.
func (h *Hub) each(f func(*conn)) {
	h.mu.Lock()
	all := make([]*conn, 0, h.sockets)
	for _, list := range h.users {
		all = append(all, list...)
	}
	h.mu.Unlock()
	for _, c := range all {
		f(c)
	}
}

func (h *Hub) closeAll(code int) {
	h.mu.Lock()
	h.draining = true
	h.mu.Unlock()
	h.each(func(c *conn) { c.close(code, true) })
}

// originAllowed keeps pages of other sites from connecting with the user's cookie.
// Clients that are no browsers send no origin, and have no cookie of one.
func (h *Hub) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	return origin == "" || origin == "http://"+r.Host || origin == "https://"+r.Host || slices.Contains(h.cfg.Origins, origin)
}
