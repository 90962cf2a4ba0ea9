// Package api serves the chat API: the operations of core/protocol/tracegate/chat/v1 by
// gRPC and, at the paths that the proto gives them, by REST, and the door to WebSockets.
// Each operation is one method of service, which takes and gives back what the proto
// says, and asks the part of core that does the work; so all transports have the same
// operations, checks and errors (the closed list of core/protocol).
//
// Every request passes, in this order: panics are caught; a request that the edge's
// filter has not seen gets a baseline trace; who calls is read off its headers (call); a
// server span continues the edge's; common headers and metrics; and then, a call of
// gRPC and one that the gateway has made of a request to a path alike, the interceptors:
// injected faults, token, rate, unknown fields. The health check, the page and the
// description of the API (openapi.json) are outside of it: they are neither traced nor
// broken on purpose.
//
// It does not know SQL, Kafka or Redis. Its caller is core.Run.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/api/openapi"
	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/session"
)

// Config bounds what clients may do.
type Config struct {
	// Env and Tenant are those of a request whose baggage says none.
	Env, Tenant string
	// Origins are browser origins allowed beside the page's own.
	Origins []string
	// TrustedProxies may say by x-forwarded-for who the client is.
	TrustedProxies []netip.Prefix

	Bounds // at the start; see Handler.Limit
}

// Bounds are what clients may do, and may be replaced while a process serves.
type Bounds struct {
	Register      Rate `yaml:"register"`      // of one address
	LoginAddress  Rate `yaml:"loginAddress"`  // of one address
	LoginName     Rate `yaml:"loginName"`     // for one name, so that passwords cannot be tried
	User          Rate `yaml:"user"`          // requests of one user
	Upload        Rate `yaml:"upload"`        // files of one user
	Search        Rate `yaml:"search"`        // of one user
	Conversations int  `yaml:"conversations"` // a user may have
}

// Rate is a token bucket.
type Rate struct {
	PerSecond float64 `yaml:"perSecond"`
	Burst     int     `yaml:"burst"`
}

// DefaultConfig is generous enough for a load test from one address.
func DefaultConfig() Config {
	return Config{
		Env: "prod", Tenant: "public",
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		Bounds: Bounds{
			Register:      Rate{PerSecond: 50, Burst: 500},
			LoginAddress:  Rate{PerSecond: 100, Burst: 1000},
			LoginName:     Rate{PerSecond: 1, Burst: 20},
			User:          Rate{PerSecond: 200, Burst: 400},
			Upload:        Rate{PerSecond: 1, Burst: 60},
			Search:        Rate{PerSecond: 5, Burst: 20},
			Conversations: 2000,
		},
	}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	var err error
	c.Check(func(key, why string) {
		if err == nil {
			err = errors.New(key + ": " + why)
		}
	})
	if err != nil {
		return err
	}
	switch {
	case c.Env == "":
		return errors.New("env: must not be empty")
	case c.Tenant == "":
		return errors.New("tenant: must not be empty")
	}
	for _, o := range c.Origins {
		if err := http.NewCrossOriginProtection().AddTrustedOrigin(o); err != nil {
			return errors.New("origins: " + err.Error())
		}
	}
	return nil
}

// Check reports each key that cannot be used.
func (b Bounds) Check(invalid func(key, why string)) {
	for _, r := range []struct {
		key  string
		rate Rate
	}{{"register", b.Register}, {"loginAddress", b.LoginAddress}, {"loginName", b.LoginName}, {"user", b.User}, {"upload", b.Upload}, {"search", b.Search}} {
		if !(r.rate.PerSecond > 0) || math.IsInf(r.rate.PerSecond, 1) {
			invalid(r.key+".perSecond", "must be above 0")
		}
		if r.rate.Burst < 1 {
			invalid(r.key+".burst", "must be above 0")
		}
	}
	if b.Conversations < 1 || b.Conversations > chat.MaxConversations {
		invalid("conversations", fmt.Sprintf("must be 1 to %d", chat.MaxConversations))
	}
}

// Accounts registers, logs in and verifies tokens; see core/account.
type Accounts interface {
	Register(ctx context.Context, name, password, tenant string) (chat.User, error)
	Login(ctx context.Context, name, password, device string) (account.Session, error)
	Refresh(ctx context.Context, token string) (account.Session, error)
	Logout(ctx context.Context, access, refresh string) error
	Verify(token string) (account.Identity, error)
	// VerifyOnce is for a token that is not expected again soon.
	VerifyOnce(token string) (account.Identity, error)
	Ended(session string) bool
	ChangePassword(ctx context.Context, id account.Identity, old, fresh string) error
	Sessions(ctx context.Context, id account.Identity) ([]chat.Session, error)
	End(ctx context.Context, id account.Identity, session string) error
	EndAll(ctx context.Context, id account.Identity) error
}

// People is where profiles are kept.
type People interface {
	// Person answers chat.ErrNotFound where there is none.
	Person(ctx context.Context, name string) (chat.Person, error)
	SetProfile(ctx context.Context, userID string, p chat.ProfileChange) (chat.Person, error)
}

// Limits are buckets that all processes share. While they cannot be asked, the process's
// own decide alone.
type Limits interface {
	Take(ctx context.Context, key string, perSecond float64, burst int) (bool, error)
}

// Conversations is where users and conversations are kept.
type Conversations interface {
	// User answers chat.ErrNotFound where there is none.
	User(ctx context.Context, name string) (chat.User, error)
	// Users leaves out names that nobody has.
	Users(ctx context.Context, names []string) ([]chat.User, error)
	// Direct returns the one conversation of two users, made where there is none, and
	// chat.ErrLimit where one of them has limit conversations already.
	Direct(ctx context.Context, id string, a, b chat.User, limit int, at time.Time) (chat.Conversation, error)
	// Group creates a group with its first entry; fresh is false where it exists already.
	Group(ctx context.Context, created chat.Record, limit int) (first chat.Numbered, fresh bool, err error)
	// Conversations is a page, oldest first, after one of them.
	Conversations(ctx context.Context, userID, after string, limit int) ([]chat.Conversation, error)
	// Conversation answers chat.ErrNotFound where the user is not a member.
	Conversation(ctx context.Context, userID, id string) (chat.Conversation, error)
	// Members is a page in the order of ids, after one of them.
	Members(ctx context.Context, conversation, after string, limit int) ([]chat.Listed, error)
	// Mute answers chat.ErrNotFound where the user is not a member.
	Mute(ctx context.Context, userID, conversation string, muted bool) error
	// Full are those of the users that have limit conversations already.
	Full(ctx context.Context, userIDs []string, limit int) (map[string]bool, error)
}

// Blocks is where is kept who blocks whom.
type Blocks interface {
	// Block answers chat.ErrLimit where the user blocks limit others already. It ends a
	// friendship or a request between the two, if there is one.
	Block(ctx context.Context, userID, blockedID string, limit int, at time.Time) (ended bool, err error)
	Unblock(ctx context.Context, userID, blockedID string) error
	// Blocks is a page in the order of ids, after one of them.
	Blocks(ctx context.Context, userID, after string, limit int) ([]chat.User, error)
	// Blockers are those of the users who block one.
	Blockers(ctx context.Context, userIDs []string, blockedID string) (map[string]bool, error)
}

// History is where entries are kept. Its methods answer chat.ErrNotFound where the user
// never was a member, and else only what it may see.
type History interface {
	Messages(ctx context.Context, userID, conversation string, after int64, limit int) ([]protocol.Message, error)
	MessagesBefore(ctx context.Context, userID, conversation string, before int64, limit int) ([]protocol.Message, error)
	Epoch() string
}

// Acceptor accepts what goes into the log, if the user may; see core/accept.
type Acceptor interface {
	Accept(ctx context.Context, from chat.User, m protocol.Send, traceID string, done func(protocol.Accepted, error))
	Edit(ctx context.Context, from chat.User, m protocol.Edit, traceID string, done func(protocol.Accepted, error))
	Recall(ctx context.Context, from chat.User, m protocol.Recall, traceID string, done func(protocol.Accepted, error))
	React(ctx context.Context, from chat.User, m protocol.React, traceID string, done func(protocol.Accepted, error))
	Unreact(ctx context.Context, from chat.User, m protocol.React, traceID string, done func(protocol.Accepted, error))
	// Change takes a change of a group's members, roles or name.
	Change(ctx context.Context, from chat.User, r chat.Record, traceID string, done func(protocol.Accepted, error))
}

// Signals takes how far a user has read; see core/signal.
type Signals interface {
	Mark(ctx context.Context, from chat.User, m protocol.Mark, done func(protocol.Receipt, error))
	Typing(ctx context.Context, from chat.User, conversation string) error
}

// Announcer shows a new group to its first members.
type Announcer interface {
	Announce(first chat.Numbered)
}

// Sockets are the connections of this process.
type Sockets interface {
	// Upgrade takes over a request for a WebSocket.
	Upgrade(w http.ResponseWriter, r *http.Request, who session.Who) error
	// Subscribe writes to a stream until ctx is done or the subscription ends.
	Subscribe(ctx context.Context, who session.Who, resume protocol.Resume, to session.Stream) error
	// End closes those of a log-in session.
	End(user, login string)
}

// Presence says on how many processes a user is connected.
type Presence interface {
	Online(ctx context.Context, userID string) (int, error)
}

// Fault is injected trouble; see core/fault.
type Fault interface {
	Roll() (delay time.Duration, fail bool)
	// Dial connects to a dependency that may be slow; nil at once where there is none.
	Dial(ctx context.Context) error
}

// Deps are what the handlers work with.
type Deps struct {
	Node, Pool    string
	Accounts      Accounts
	People        People
	Limits        Limits
	Conversations Conversations
	Blocks        Blocks
	Friends       Friends
	Devices       Devices
	History       History
	Acceptor      Acceptor
	Announcer     Announcer
	Signals       Signals
	Sockets       Sockets
	Presence      Presence
	Fault         Fault
	Files         Files        // nil: none are kept
	Blobs         Blobs        // nil: links lead elsewhere
	Search        Search       // nil: nothing is searched
	Page          http.Handler // serves "/" and "/assets/"; nil for none
	Healthy       func() bool  // answers /healthz on the serving port
	Tracing       trace.TracerProvider
	Propagator    propagation.TextMapPropagator
	Registerer    prometheus.Registerer
	Now           func() time.Time
	Log           *slog.Logger
}

// server has the handlers as methods.
type server struct {
	cfg     Config
	deps    Deps
	origins *http.CrossOriginProtection
	metrics metrics
	rules   map[string]rule // by the full name of an operation
	grpc    http.Handler
	gateway http.Handler

	register, loginAddress, loginName, user, upload, searches *limiter

	conversations atomic.Int64 // a user may have
}

// Handler is the handler of the serving port.
type Handler struct {
	http.Handler
	server *server
}

// Limit replaces what clients may do, for the next request on. It takes what
// [Bounds.Check] finds nothing in.
func (h *Handler) Limit(b Bounds) { h.server.setBounds(b) }

func (s *server) setBounds(b Bounds) {
	s.register.rate.Store(&b.Register)
	s.loginAddress.rate.Store(&b.LoginAddress)
	s.loginName.rate.Store(&b.LoginName)
	s.user.rate.Store(&b.User)
	s.upload.rate.Store(&b.Upload)
	s.searches.rate.Store(&b.Search)
	s.conversations.Store(int64(b.Conversations))
}

// New returns the handler of the serving port.
func New(cfg Config, deps Deps) (*Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(deps.Registerer)
	if err != nil {
		return nil, err
	}
	s := &server{
		cfg: cfg, deps: deps, metrics: m, rules: rules(), origins: http.NewCrossOriginProtection(),
		register: newLimiter(cfg.Register), loginAddress: newLimiter(cfg.LoginAddress),
		loginName: newLimiter(cfg.LoginName), user: newLimiter(cfg.User), upload: newLimiter(cfg.Upload),
		searches: newLimiter(cfg.Search),
	}
	s.conversations.Store(int64(cfg.Conversations))
	for _, o := range cfg.Origins {
		if err := s.origins.AddTrustedOrigin(o); err != nil {
			return nil, err
		}
	}
	operations := &service{server: s}
	direct := &inprocess{chain: s.admitUnary, methods: map[string]unary{}}
	operations.attach(direct)
	if s.gateway, err = newGateway(direct, s.rules); err != nil {
		return nil, fmt.Errorf("build gateway: %w", err)
	}
	s.grpc = s.newGRPC(operations)
	return &Handler{Handler: s.handler(), server: s}, nil
}

// byHand are the routes of what the proto has no words for: files and sockets. What clients
// call of it is described in openapi/generate/files.json.
func (s *server) byHand() map[string]handler {
	routes := map[string]handler{"GET /v1/ws": s.authedBy(rule{once: true}, s.getSocket)}
	for pattern, h := range s.fileRoutes() {
		routes[pattern] = s.faulty(h)
	}
	return routes
}

// handler is the route table.
func (s *server) handler() http.Handler {
	api := http.NewServeMux()
	for pattern, rule := range routes(s.rules) {
		api.Handle(pattern, s.serve(pattern, rest(s.gateway, rule)))
	}
	for pattern, h := range s.byHand() {
		api.Handle(pattern, s.serve(pattern, h))
	}
	api.Handle("/v1/", s.serve("unknown", func(http.ResponseWriter, *http.Request) error { return noSuchOperation() }))

	traced := func(next http.Handler) http.Handler {
		return s.baseline(s.called(otelhttp.NewHandler(next, "core", // itself the next: it reads the route off the request that it passes on
			otelhttp.WithTracerProvider(s.deps.Tracing), otelhttp.WithPropagators(s.deps.Propagator),
			otelhttp.WithMeterProvider(noop.NewMeterProvider()), // metrics are Prometheus's, by route
		)))
	}
	root := http.NewServeMux()
	root.Handle("/v1/", traced(api))
	root.HandleFunc("GET /healthz", s.healthz)
	docs := s.served(openapi.Handler())
	for _, path := range []string{"/openapi.json", "/docs", "/docs/"} {
		root.Handle(path, docs)
	}
	if s.deps.Page != nil {
		root.Handle("/", s.served(s.deps.Page))
	}
	calls, subscriptions := traced(s.serveGRPC(s.grpc)), s.baseline(s.called(s.opening(s.serveGRPC(s.grpc))))
	return s.catch(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !isGRPC(r):
			root.ServeHTTP(w, r)
		case streams[r.URL.Path]:
			subscriptions.ServeHTTP(w, r)
		default:
			calls.ServeHTTP(w, r)
		}
	}))
}

func (s *server) healthz(w http.ResponseWriter, _ *http.Request) {
	s.name(w)
	if !s.deps.Healthy() {
		http.Error(w, "draining", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}
