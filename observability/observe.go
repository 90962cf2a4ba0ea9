// Package observability runs the process `tracegate observe`: it receives telemetry
// (ingest), keeps the tables of ClickHouse up to date (store), and serves the console
// and an admin listener. It decides nothing; main wires it and nothing else imports it.
package observability

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/observability/ingest"
	"github.com/tracegate/tracegate/observability/remotewrite"
	"github.com/tracegate/tracegate/observability/store"
)

// Config is that of the parts and two addresses.
type Config struct {
	// Admin serves /healthz, /readyz, /metrics and /v1/ingest (the [ingest.Account]).
	Admin string
	// Console is where the console is served, where there is one.
	Console string
	Store   store.Config
	Ingest  ingest.Config
	// Receiver names this process among all that write to the same tables: under a name that
	// two share, one would say of the other that all it was given is stored.
	Receiver string
	// RemoteWrite is where group metrics are sent; without a URL nowhere.
	RemoteWrite remotewrite.Config
	// Migrate bounds the pause between tries to reach ClickHouse at the start.
	Migrate time.Duration
	// Sizes is how often the tables are asked what they take.
	Sizes time.Duration
	// Quotas is how often they are held to what they may take.
	Quotas time.Duration
	// SystemLogDays is how long a ClickHouse server's own logs are kept that have no end; 0:
	// they are left alone. SystemLogs is how often those are looked at.
	SystemLogDays int
	SystemLogs    time.Duration
	// Drain bounds how long the listeners take to end.
	Drain time.Duration
}

// DefaultConfig is Config without the store's password, the spool's folder and the receiver's name.
func DefaultConfig() Config {
	return Config{
		Admin: "127.0.0.1:9211", Console: "127.0.0.1:8090", Store: store.DefaultConfig(), Ingest: ingest.DefaultConfig(),
		Migrate: time.Second, Sizes: 15 * time.Second, Quotas: time.Minute, SystemLogs: 10 * time.Minute, Drain: 5 * time.Second,
	}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	for _, a := range [][2]string{{"admin", c.Admin}, {"console", c.Console}} {
		if _, _, err := net.SplitHostPort(a[1]); err != nil {
			return fmt.Errorf("%s: %w", a[0], err)
		}
	}
	if c.Receiver == "" {
		return errors.New("receiver: must not be empty")
	}
	if min(c.Migrate, c.Sizes, c.Quotas, c.SystemLogs, c.Drain) <= 0 {
		return errors.New("migrate, sizes, quotas, system_logs and drain: must be positive")
	}
	if c.SystemLogDays < 0 {
		return errors.New("system_log_days: must not be negative")
	}
	if err := c.Store.Validate(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if err := c.Ingest.Validate(); err != nil {
		return fmt.Errorf("ingest: %w", err)
	}
	return nil
}

// Console is a page with what it does in the background.
type Console interface {
	Handler() http.Handler
	Run(ctx context.Context) error
}

// Deps are what main hands in.
type Deps struct {
	// Console makes the console; nil for none. Account says where every record is.
	Console  func(s *store.Store, account func() ingest.Account) (Console, error)
	Registry *prometheus.Registry
}

// Run serves until ctx is done, then ends in order: console and receiver, whose messages
// are stored and answered, then the admin listener. ClickHouse may be away at any time,
// at the start too.
func Run(ctx context.Context, cfg Config, deps Deps, log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("observe configuration: %w", err)
	}
	s, err := store.Open(cfg.Store)
	if err != nil {
		return err
	}
	defer s.Close()
	sink := &migrated{store: s}
	in, err := ingest.New(cfg.Ingest, sink, deps.Registry, log)
	if err != nil {
		return err
	}
	sizes, err := newStorage(deps.Registry)
	if err != nil {
		return err
	}
	bounds, err := newQuotas(s.Shrink, cfg.Store.Quotas, time.Now, deps.Registry, log)
	if err != nil {
		return err
	}
	var writer *remotewrite.Writer
	if cfg.RemoteWrite.URL != "" {
		if writer, err = remotewrite.New(cfg.RemoteWrite, deps.Registry, deps.Registry, log); err != nil {
			return err
		}
	}
	var ready atomic.Bool
	adminListener, err := net.Listen("tcp", cfg.Admin)
	if err != nil {
		return fmt.Errorf("listen for admin: %w", err)
	}
	otlpListeners, err := ingest.Listen(cfg.Ingest)
	if err != nil {
		return errors.Join(err, adminListener.Close())
	}
	adminCtx, stopAdmin := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAdmin()
	outer, outerCtx := errgroup.WithContext(adminCtx)
	outer.Go(func() error {
		return serve(outerCtx, "admin", adminListener, admin(in.Account, deps.Registry, &ready), cfg.Drain)
	})
	outer.Go(func() error {
		defer stopAdmin()
		partsCtx, stopParts := context.WithCancel(ctx)
		defer stopParts()
		context.AfterFunc(outerCtx, stopParts) // without its admin listener the process is no good
		context.AfterFunc(partsCtx, func() { ready.Store(false) })
		g, gctx := errgroup.WithContext(partsCtx)
		g.Go(func() error { return in.Serve(gctx, otlpListeners) })
		g.Go(func() error {
			migrate(gctx, sink, cfg.Migrate, log)
			logs := systemLogs{bound: s.BoundSystemLogs, days: cfg.SystemLogDays, log: log}
			return logs.run(gctx, cfg.SystemLogs)
		})
		g.Go(func() error { return in.Mark(gctx, cfg.Receiver, sink) })
		g.Go(func() error { return sizes.run(gctx, s.Tables, cfg.Sizes) })
		if len(cfg.Store.Quotas) > 0 {
			g.Go(func() error { return bounds.run(gctx, cfg.Quotas) })
		}
		if writer != nil {
			g.Go(func() error { return writer.Run(gctx) })
		}
		if deps.Console != nil {
			g.Go(func() error { return runConsole(gctx, cfg, s, in, deps, log) })
		}
		ready.Store(true) // telemetry is taken from now on; while ClickHouse is away it is spooled
		return g.Wait()
	})
	return outer.Wait()
}

// migrated takes no row before the tables are there with their views: rows that come
// between table and view would be missing from the statistics for ever.
type migrated struct {
	store *store.Store
	done  atomic.Bool
}

var errNotMigrated = errors.New("clickhouse tables are not ready")

// InsertSpans implements [ingest.Sink]; its error is temporary, so spans are spooled.
func (m *migrated) InsertSpans(ctx context.Context, token string, spans []store.Span) error {
	if !m.done.Load() {
		return errNotMigrated
	}
	return m.store.InsertSpans(ctx, token, spans)
}

// InsertPoints implements [ingest.Sink] in the same way.
func (m *migrated) InsertPoints(ctx context.Context, token string, points []store.Point) error {
	if !m.done.Load() {
		return errNotMigrated
	}
	return m.store.InsertPoints(ctx, token, points)
}

// InsertLogs implements [ingest.Sink] in the same way.
func (m *migrated) InsertLogs(ctx context.Context, token string, logs []store.Log) error {
	if !m.done.Load() {
		return errNotMigrated
	}
	return m.store.InsertLogs(ctx, token, logs)
}

// Mark implements [ingest.Marker].
func (m *migrated) Mark(ctx context.Context, receiver string, until time.Time) error {
	if !m.done.Load() {
		return errNotMigrated
	}
	return m.store.Mark(ctx, receiver, until)
}

// migrate tries until ClickHouse is there and has the tables. A schema that is newer
// than this program, or refused, is tried again too: an operator may mend it meanwhile,
// and what is received goes to the spool.
func migrate(ctx context.Context, m *migrated, pause time.Duration, log *slog.Logger) {
	for tries := 0; ; tries++ {
		err := m.store.Migrate(ctx)
		if err == nil {
			m.done.Store(true)
			log.Info("clickhouse tables are up to date")
			return
		}
		if tries%30 == 0 && ctx.Err() == nil {
			log.Warn("clickhouse tables are not ready, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func runConsole(ctx context.Context, cfg Config, s *store.Store, in *ingest.Ingest, deps Deps, log *slog.Logger) error {
	c, err := deps.Console(s, in.Account)
	if err != nil {
		return fmt.Errorf("make console: %w", err)
	}
	listener, err := net.Listen("tcp", cfg.Console)
	if err != nil {
		return fmt.Errorf("listen for console: %w", err)
	}
	log.Info("console is ready", "addr", listener.Addr().String())
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Run(gctx) })
	g.Go(func() error { return serve(gctx, "console", listener, c.Handler(), cfg.Drain) })
	return g.Wait()
}

func admin(account func() ingest.Account, reg *prometheus.Registry, ready *atomic.Bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready.Load() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /v1/ingest", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(account())
	})
	return mux
}

// serve answers on listener until ctx is done and lets requests end within drain.
func serve(ctx context.Context, name string, listener net.Listener, h http.Handler, drain time.Duration) error {
	hs := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx }, // event streams end with it
	}
	ended := make(chan error, 1)
	go func() { ended <- hs.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve %s: %w", name, err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := hs.Shutdown(end); err != nil {
		err = hs.Close()
		return errors.Join(err, closed(<-ended))
	}
	return closed(<-ended)
}

// closed is nil for the error that a server ends with when it is told to.
func closed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
