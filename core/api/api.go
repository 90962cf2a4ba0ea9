// Package api is core's REST interface and the door to its WebSockets: it authenticates,
// limits, decodes strictly, calls the parts that do the work, and turns what they answer
// into the closed list of errors of core/protocol.
//
// Every request passes, in this order: panics are caught; a request that the edge's
// filter has not seen gets a baseline trace; a server span continues the edge's; common
// headers and metrics; injected faults; then its handler. The health check and the page
// are outside of it: they are neither traced nor broken on purpose.
//
// It does not know SQL, Kafka or Redis. Its caller is core.Run.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/tracegate/tracegate/core/account"
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

	Register      Rate // of one address
	LoginAddress  Rate // of one address
	LoginName     Rate // for one name, so that passwords cannot be tried
	User          Rate // requests of one user
	Conversations int  // a user may have
}

// Rate is a token bucket.
type Rate struct {
	PerSecond float64
	Burst     int
}

// DefaultConfig is generous enough for a load test from one address.
func DefaultConfig() Config {
	return Config{
		Env: "prod", Tenant: "public",
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		Register:       Rate{PerSecond: 50, Burst: 500},
		LoginAddress:   Rate{PerSecond: 100, Burst: 1000},
		LoginName:      Rate{PerSecond: 1, Burst: 20},
		User:           Rate{PerSecond: 200, Burst: 400},
		Conversations:  2000,
	}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	for _, r := range []struct {
		key  string
		rate Rate
	}{{"register", c.Register}, {"login_address", c.LoginAddress}, {"login_name", c.LoginName}, {"user", c.User}} {
		if !(r.rate.PerSecond > 0) || r.rate.Burst < 1 {
			return errors.New(r.key + ": rate and burst must be above 0")
		}
	}
	switch {
	case c.Env == "":
		return errors.New("env: must not be empty")
	case c.Tenant == "":
		return errors.New("tenant: must not be empty")
	case c.Conversations < 1:
		return errors.New("conversations: must be at least 1")
	}
	for _, o := range c.Origins {
		if err := http.NewCrossOriginProtection().AddTrustedOrigin(o); err != nil {
			return errors.New("origins: " + err.Error())
		}
	}
	return nil
}

// Accounts registers, logs in and verifies tokens.
type Accounts interface {
	Register(ctx context.Context, name, password, tenant string) (chat.User, error)
	Login(ctx context.Context, name, password string) (account.Session, error)
	Verify(token string) (account.Identity, error)
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
	Conversations(ctx context.Context, userID string) ([]chat.Conversation, error)
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
	// Block answers chat.ErrLimit where the user blocks limit others already.
	Block(ctx context.Context, userID, blockedID string, limit int, at time.Time) error
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
	// Change takes a change of a group's members, roles or name.
	Change(ctx context.Context, from chat.User, r chat.Record, traceID string, done func(protocol.Accepted, error))
}

// Signals takes how far a user has read; see core/signal.
type Signals interface {
	Mark(ctx context.Context, from chat.User, m protocol.Mark, done func(protocol.Receipt, error))
}

// Announcer shows a new group to its first members.
type Announcer interface {
	Announce(first chat.Numbered)
}

// Sockets takes over upgrade requests.
type Sockets interface {
	Upgrade(w http.ResponseWriter, r *http.Request, who session.Who) error
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
	Conversations Conversations
	Blocks        Blocks
	History       History
	Acceptor      Acceptor
	Announcer     Announcer
	Signals       Signals
	Sockets       Sockets
	Presence      Presence
	Fault         Fault
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

	register, loginAddress, loginName, user *limiter
}

// New returns the handler of the serving port.
func New(cfg Config, deps Deps) (http.Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(deps.Registerer)
	if err != nil {
		return nil, err
	}
	s := &server{
		cfg: cfg, deps: deps, metrics: m, origins: http.NewCrossOriginProtection(),
		register: newLimiter(cfg.Register), loginAddress: newLimiter(cfg.LoginAddress),
		loginName: newLimiter(cfg.LoginName), user: newLimiter(cfg.User),
	}
	for _, o := range cfg.Origins {
		if err := s.origins.AddTrustedOrigin(o); err != nil {
			return nil, err
		}
	}
	return s.handler(), nil
}

// handler is the route table.
func (s *server) handler() http.Handler {
	api := http.NewServeMux()
	for pattern, h := range map[string]handler{
		"POST /v1/users":                               s.postUser,
		"GET /v1/users/{name}":                         s.authed(s.getUser),
		"POST /v1/sessions":                            s.postSession,
		"DELETE /v1/sessions/current":                  s.deleteSession,
		"GET /v1/blocks":                               s.authed(s.getBlocks),
		"PUT /v1/blocks/{name}":                        s.authed(s.putBlock),
		"DELETE /v1/blocks/{name}":                     s.authed(s.deleteBlock),
		"GET /v1/me":                                   s.authed(s.getMe),
		"POST /v1/conversations":                       s.authed(s.postConversation),
		"GET /v1/conversations":                        s.authed(s.getConversations),
		"GET /v1/conversations/{id}":                   s.authed(s.getConversation),
		"PATCH /v1/conversations/{id}":                 s.authed(s.patchConversation),
		"GET /v1/conversations/{id}/members":           s.authed(s.getMembers),
		"POST /v1/conversations/{id}/members":          s.authed(s.postMembers),
		"PUT /v1/conversations/{id}/members/{name}":    s.authed(s.putMember),
		"DELETE /v1/conversations/{id}/members/{name}": s.authed(s.deleteMember),
		"PUT /v1/conversations/{id}/receipt":           s.authed(s.putReceipt),
		"PUT /v1/conversations/{id}/mute":              s.authed(s.putMute),
		"POST /v1/conversations/{id}/messages":         s.authed(s.postMessage),
		"GET /v1/conversations/{id}/messages":          s.authed(s.getMessages),
		"PATCH /v1/conversations/{id}/messages/{seq}":  s.authed(s.patchMessage),
		"DELETE /v1/conversations/{id}/messages/{seq}": s.authed(s.deleteMessage),
	} {
		api.Handle(pattern, s.serve(pattern, s.faulty(h)))
	}
	api.Handle("GET /v1/ws", s.serve("GET /v1/ws", s.authed(s.getSocket)))
	api.Handle("/v1/", s.serve("unknown", func(http.ResponseWriter, *http.Request) error {
		return protocol.NewError(protocol.CodeNotFound, "", "there is no such resource or method")
	}))

	root := http.NewServeMux()
	root.Handle("/v1/", s.baseline(otelhttp.NewHandler(api, "core",
		otelhttp.WithTracerProvider(s.deps.Tracing), otelhttp.WithPropagators(s.deps.Propagator),
		otelhttp.WithMeterProvider(noop.NewMeterProvider()), // metrics are Prometheus's, by route
	)))
	root.HandleFunc("GET /healthz", s.healthz)
	if s.deps.Page != nil {
		root.Handle("/", s.named(s.deps.Page))
	}
	return s.catch(root)
}

func (s *server) healthz(w http.ResponseWriter, _ *http.Request) {
	s.name(w)
	if !s.deps.Healthy() {
		http.Error(w, "draining", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}
