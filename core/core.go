// Package core is the messaging service: one process of one pool.
//
// A message's way: core/api or core/session takes it, core/accept checks it, core/queue
// makes it durable, and only then the sender is told. The consumer hands it to
// core/deliver, which has core/store number and keep it, and pushes it to the members'
// connections (core/session), here directly and on other processes by core/fanout.
// README.md says what an acknowledgement means when parts die.
//
// This package joins those parts and runs them; it decides nothing. Its caller is the
// root package, and tests.
package core

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/core/accept"
	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/api"
	"github.com/tracegate/tracegate/core/deliver"
	"github.com/tracegate/tracegate/core/fanout"
	"github.com/tracegate/tracegate/core/fault"
	"github.com/tracegate/tracegate/core/file"
	"github.com/tracegate/tracegate/core/friend"
	"github.com/tracegate/tracegate/core/push"
	"github.com/tracegate/tracegate/core/queue"
	"github.com/tracegate/tracegate/core/search"
	"github.com/tracegate/tracegate/core/session"
	"github.com/tracegate/tracegate/core/signal"
	"github.com/tracegate/tracegate/core/store"
	"github.com/tracegate/tracegate/mesh/secret"
	"github.com/tracegate/tracegate/mesh/settings"
	"github.com/tracegate/tracegate/observability/semconv"
)

// Config is one process.
type Config struct {
	Pool   string // baseline, canary, isolated
	Node   string // unique among processes, the same after a restart; empty: pool and listen address
	Listen string // host:port that the edge reaches
	Admin  string // host:port of health, metrics and control; loopback
	Token  string // bearer token of the admin's control calls

	// Version and Labels say which settings are for this process, beside those of its pool;
	// see settings.Instance.
	Version string
	Labels  []string // "env=staging", the most important first

	Account account.Config
	API     api.Config
	Session session.Config
	Queue   queue.Config
	Fanout  fanout.Config
	Store   store.Config
	Signal  signal.Config
	File    file.Config
	// FilePlace is where files are kept; where none is named there are no files.
	FilePlace file.Place
	Search    search.ClientConfig // where no address is named nothing can be searched

	Push       push.Config
	PushURL    string      // by which devices are notified; empty: nobody is
	PushSecret secret.Text // signs that, as its receiver is given it

	SendTimeout time.Duration // a sender whose message is not durable by then is told so
	EditWithin  time.Duration // after it was sent, a message may not be edited any more; 0: always
	LameDuck    time.Duration // between saying not ready and refusing, so that edges notice
	DrainSpread time.Duration // over which connections are asked to go elsewhere
	DrainGrace  time.Duration // after which those that stayed are closed
}

// DefaultConfig is the baseline process of one machine.
func DefaultConfig() Config {
	return Config{
		Pool: semconv.PoolBaseline, Listen: "127.0.0.1:9101", Admin: "127.0.0.1:9201",
		Account: account.DefaultConfig(), API: api.DefaultConfig(), Session: session.DefaultConfig(),
		Queue: queue.DefaultConfig(), Fanout: fanout.DefaultConfig(), Store: store.DefaultConfig(), Signal: signal.DefaultConfig(), Push: push.DefaultConfig(),
		File:        file.DefaultConfig(),
		SendTimeout: 12 * time.Second, EditWithin: 24 * time.Hour, LameDuck: time.Second, DrainSpread: time.Second, DrainGrace: 8 * time.Second,
	}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	for _, part := range []struct {
		key string
		err error
	}{
		{"account", c.Account.Validate()}, {"api", c.API.Validate()}, {"session", c.Session.Validate()},
		{"queue", c.Queue.Validate()}, {"fanout", c.Fanout.Validate()}, {"store", c.Store.Validate()}, {"signal", c.Signal.Validate()}, {"push", c.Push.Validate()},
		{"file", c.File.Validate()},
	} {
		if part.err != nil {
			return fmt.Errorf("%s.%w", part.key, part.err)
		}
	}
	switch {
	case c.Pool == "":
		return errors.New("pool: must not be empty")
	case strings.Trim(c.Node, nameRunes) != "":
		return errors.New("node: must be of a-z A-Z 0-9 . _ -")
	case c.Listen == "":
		return errors.New("listen: must not be empty")
	case !loopback(c.Admin):
		return errors.New("admin: must be a loopback address, it is not encrypted")
	case len(c.Token) < 16:
		return errors.New("token: must have at least 16 characters")
	case c.instance().Validate() != nil:
		return c.instance().Validate()
	case c.SendTimeout <= 0:
		return errors.New("send_timeout: must be positive")
	case c.EditWithin < 0:
		return errors.New("edit_within: must not be negative")
	case c.LameDuck < 0 || c.DrainSpread < 0 || c.DrainGrace < 0:
		return errors.New("drain: lame_duck, drain_spread and drain_grace must not be negative")
	}
	return nil
}

// named fills in the names that follow from others.
func (c Config) named() Config {
	if c.Node == "" {
		c.Node = c.Pool + "-" + strings.Map(func(r rune) rune {
			if strings.ContainsRune(nameRunes, r) {
				return r
			}
			return '-'
		}, c.Listen)
	}
	if c.Queue.Instance == "" {
		c.Queue.Instance = c.Node
	}
	return c
}

// instance is what settings know of this process.
func (c Config) instance() settings.Instance {
	return settings.Instance{Service: semconv.ServiceCore, Node: c.named().Node, Version: c.Version, Labels: append(slices.Clone(c.Labels), "pool="+c.Pool)}
}

// nameRunes are those that Kafka allows in a member's name.
const nameRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

// Queues are told of bounded queues.
type Queues interface {
	// Watch is given how full a queue is, 0 to 1, to be asked from any goroutine.
	Watch(queue string, fill func() float64)
}

// Deps are what comes from outside of core.
type Deps struct {
	Key        ed25519.PrivateKey // signs tokens; the same for all processes
	Placements session.Placements // nil: connections are never asked to move
	Settings   settings.Source    // nil: nothing changes while it runs
	Page       http.Handler       // nil: no page
	Tracing    trace.TracerProvider
	Propagator propagation.TextMapPropagator // W3C trace context and baggage
	Registry   *prometheus.Registry
	Queues     Queues // nil: nobody wants to know how full they are
	// Ready, where not nil, is called with the addresses once the process serves.
	Ready func(listen, admin string)
}

// process is what Run has put together.
type process struct {
	cfg      Config
	log      *slog.Logger
	level    *slog.LevelVar
	began    time.Time
	ready    atomic.Bool
	fault    *fault.Injector
	store    *store.Store
	producer *queue.Producer
	delivery *deliver.Deliverer
	consumer *queue.Consumer
	fanout   *fanout.Fanout
	hub      *session.Hub
	signals  *signal.Signals
	files    *file.Files // nil: none are kept
	accounts *account.Service
	pusher   *push.Pusher // nil: nobody is notified
	follower *queue.Follower
	acceptor *accept.Acceptor
	api      *api.Handler
}

// Run serves until ctx is done and then drains, in order: it says that it is not ready
// and waits for edges to notice; it asks its connections to go elsewhere and waits for
// them; it finishes the requests it has; it stores and commits the batch it is at; and
// it closes what it opened. A message that was accepted is not lost by that or by being
// killed instead.
func Run(ctx context.Context, cfg Config, deps Deps, log *slog.Logger) error {
	began := time.Now()
	cfg = cfg.named()
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("core config: %w", err)
	}
	listen, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer listen.Close() // closed by its server before
	admin, err := net.Listen("tcp", cfg.Admin)
	if err != nil {
		return fmt.Errorf("listen for admin: %w", err)
	}
	defer admin.Close() // closed by its server before

	log, level := settings.Leveled(log)
	p := &process{cfg: cfg, log: log, level: level, began: began, fault: fault.New(time.Now)}
	// The admin listener answers from the start, so that whoever waits sees why.
	adminServer := &http.Server{Handler: p.admin(deps.Registry), ReadHeaderTimeout: 5 * time.Second}
	stopAdmin := serve(adminServer, admin, log)
	defer stopAdmin()
	if err := p.build(ctx, deps); err != nil {
		if ctx.Err() != nil {
			err = nil // told to stop before it was ready
		}
		return errors.Join(err, p.close())
	}
	err = p.serve(ctx, deps, listen, admin)
	return errors.Join(err, p.close())
}

// build constructs the parts in the order of their dependencies.
func (p *process) build(ctx context.Context, deps Deps) (err error) {
	cfg, reg := p.cfg, deps.Registry
	tracing := queue.Tracing{Provider: deps.Tracing, Propagator: deps.Propagator}
	if p.store, err = store.Open(ctx, cfg.Store); err != nil {
		return err
	}
	tracing.Database = p.store.System()
	if err = queue.EnsureTopics(ctx, cfg.Queue, p.log); err != nil {
		return err
	}
	if p.producer, err = queue.NewProducer(cfg.Queue, tracing, reg, p.log); err != nil {
		return err
	}
	if deps.Queues != nil {
		deps.Queues.Watch("accepted", p.producer.Fill)
	}
	p.acceptor = accept.New(p.store, p.producer, accept.Config{Timeout: cfg.SendTimeout, EditWithin: cfg.EditWithin}, time.Now)
	if p.fanout, err = fanout.New(cfg.Fanout, cfg.Node, reg, p.log); err != nil {
		return err
	}
	if p.signals, err = signal.New(cfg.Signal, p.store, p.fanout, time.Now, reg); err != nil {
		return err
	}
	p.hub, err = session.New(cfg.Session, session.Deps{
		Node: cfg.Node, Pool: cfg.Pool, History: p.store, Sender: p.acceptor, Signals: p.signals, Fanout: p.fanout, Seats: p.fanout, Fault: p.fault,
		Tracer: deps.Tracing.Tracer("github.com/tracegate/tracegate/core/session"), Registerer: reg, Log: p.log,
	})
	if err != nil {
		return err
	}
	if p.delivery, err = deliver.New(p.store, p.hub, p.fanout, reg, p.log); err != nil {
		return err
	}
	if p.consumer, err = queue.NewConsumer(cfg.Queue, tracing, p.delivery, reg, p.log); err != nil {
		return err
	}
	p.accounts, err = account.New(cfg.Account, account.Deps{
		Key: deps.Key, Store: p.store, Sockets: p.hub, Now: time.Now, Registerer: reg,
		Tell: func(user string) { p.fanout.Publish([]fanout.Push{{User: user}}) }, // see receiver
	})
	if err != nil {
		return err
	}
	if err = p.accounts.Load(ctx); err != nil {
		return err
	}
	apiDeps := api.Deps{
		Node: cfg.Node, Pool: cfg.Pool, Accounts: p.accounts, People: p.store, Limits: p.fanout, Conversations: p.store, Blocks: p.store, Friends: friend.New(p.store, p.hub, p.fanout, time.Now), Devices: p.store, History: p.store, Acceptor: p.acceptor, Announcer: p.delivery, Signals: p.signals,
		Sockets: p.hub, Presence: p.fanout, Fault: p.fault, Page: deps.Page, Healthy: p.ready.Load,
		Tracing: deps.Tracing, Propagator: deps.Propagator, Registerer: reg, Now: time.Now, Log: p.log,
	}
	if cfg.FilePlace.Named() {
		blobs, err := cfg.FilePlace.Open(time.Now)
		if err != nil {
			return err
		}
		if p.files, err = file.New(cfg.File, p.store, blobs, time.Now, reg, p.log); err != nil {
			return err
		}
		apiDeps.Files = p.files
		apiDeps.Blobs, _ = blobs.(api.Blobs) // a folder's
	}
	if len(cfg.Search.Addrs) > 0 {
		apiDeps.Search = search.NewClient(cfg.Search)
	}
	if err = p.buildPush(reg); err != nil {
		return err
	}
	p.api, err = api.New(cfg.API, apiDeps)
	return err
}

// buildPush constructs what notifies devices, where that is asked for.
func (p *process) buildPush(reg *prometheus.Registry) error {
	if p.cfg.PushURL == "" {
		return nil
	}
	hook, err := push.NewWebhook(p.cfg.PushURL, p.cfg.PushSecret, time.Now)
	if err != nil {
		return err
	}
	if p.pusher, err = push.New(p.cfg.Push, p.store, p.fanout, hook, time.Now, reg, p.log); err != nil {
		return err
	}
	p.follower, err = queue.NewFollower(p.cfg.Queue, p.cfg.Queue.Group+".push", "core_push", reg, p.log)
	return err
}

// receiver is the hub for the fan-out, in which a signal without a frame says that a
// session of the user has ended.
type receiver struct {
	*session.Hub
	accounts *account.Service
}

func (r receiver) Signal(user string, frame []byte) {
	if len(frame) == 0 {
		r.accounts.Look()
		return
	}
	r.Hub.Signal(user, frame)
}

// serve runs the parts until ctx is done or one of them fails, and stops them in the
// order that Run promises.
func (p *process) serve(ctx context.Context, deps Deps, listen, admin net.Listener) error {
	// The parts outlive ctx, each until the one before it has stopped.
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, run := errgroup.WithContext(run)
	consume, stopConsumer := context.WithCancel(run)
	defer stopConsumer()
	consumed := make(chan struct{})
	g.Go(func() error { return p.fanout.Run(run, receiver{p.hub, p.accounts}) })
	g.Go(func() error { return p.producer.Run(run) })
	g.Go(func() error { return p.accounts.Run(run) })
	g.Go(func() error { return p.hub.Run(run) })
	g.Go(func() error { return p.delivery.Run(run, p.cfg.Queue.Retention, time.Now) })
	g.Go(func() error { return p.signals.Run(run, p.hub) })
	if p.files != nil {
		g.Go(func() error { return p.files.Run(run) })
	}
	if p.pusher != nil {
		g.Go(func() error { return p.follower.Run(consume, p.pusher.Handle) })
	}
	g.Go(func() error { defer close(consumed); return p.consumer.Run(consume) })
	if deps.Placements != nil {
		g.Go(func() error {
			if err := deps.Placements.WatchPlacement(run, p.hub.Place); err != nil && run.Err() == nil {
				return fmt.Errorf("watch placement: %w", err)
			}
			return nil
		})
	}
	if deps.Settings != nil {
		g.Go(func() error { return p.follow(run, deps.Settings, deps.Registry) })
	}
	server := &http.Server{
		Handler: p.api, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute,
		// Longer than the edge keeps an idle connection: who closes first must be the
		// edge, or a request may meet a closing connection.
		IdleTimeout: 2 * time.Hour, MaxHeaderBytes: 64 << 10,
		// HTTP/2 is for gRPC, without TLS as the edge has it. A connection whose other
		// end is gone is found by pings, or its streams would last for ever.
		Protocols: protocols(), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1000, SendPingTimeout: 25 * time.Second, PingTimeout: 15 * time.Second},
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	stopServer := serve(server, listen, p.log)
	p.ready.Store(true)
	p.log.Info("core serves", "node", p.cfg.Node, "listen", listen.Addr(), "store", p.cfg.Store.Redacted(), "took", time.Since(p.began).Round(time.Millisecond))
	if deps.Ready != nil {
		deps.Ready(listen.Addr().String(), admin.Addr().String())
	}
	select {
	case <-ctx.Done():
		p.drain(context.WithoutCancel(ctx), server)
	case <-run.Done(): // a part failed
	}
	p.ready.Store(false)
	stopServer()
	stopConsumer()
	<-consumed // what it has stored is still pushed
	stop()
	return g.Wait()
}

func protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}

// drain gives edges and connections time to go elsewhere, while everything still works.
func (p *process) drain(ctx context.Context, server *http.Server) {
	p.log.Info("core drains", "sockets", p.hub.Sockets())
	p.ready.Store(false)
	t := time.NewTimer(p.cfg.LameDuck)
	defer t.Stop()
	<-t.C
	server.SetKeepAlivesEnabled(false)
	p.hub.Drain(ctx, p.cfg.DrainSpread, p.cfg.DrainGrace)
}

// close closes what build opened, in reverse.
func (p *process) close() error {
	var errs []error
	if p.producer != nil {
		ctx, cancel := context.WithTimeout(context.Background(), p.cfg.Queue.Timeout)
		defer cancel()
		errs = append(errs, p.producer.Close(ctx))
	}
	if p.store != nil {
		errs = append(errs, p.store.Close())
	}
	return errors.Join(errs...)
}

// serve runs a server in a goroutine. The returned function finishes the requests that
// are under way, for at most ten seconds, and waits for the goroutine.
func serve(s *http.Server, l net.Listener, log *slog.Logger) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("serve", "listen", l.Addr(), "error", err)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			_ = s.Close()
		}
		<-done
	}
}
