// Package console is the operator's page: traffic groups live, what is out of the
// ordinary for them, who calls whom, the
// timeline of decisions with the figures behind each, orders by hand, what another policy
// would change, the state of the edges and of the telemetry itself, what the kernel probes
// say, and traces.
//
// It decides nothing and stores nothing: it shows what observability/store, the
// control plane and the probes say and passes an operator's order on. When one of them
// is away it says so and since when, shows what the others still know, and heals by
// itself.
//
// One poller asks for all viewers ([Console.Run]); a viewer gets the state as a whole
// at first and then what changed, by server-sent events, so ten viewers cost the
// stores no more than one. WebSockets were left: nothing flows the other way, and an
// EventSource reconnects by itself. A template engine was left for the same reason as
// in core/page: the page is a few static files.
//
// It is meant for a loopback address or a proxy that adds TLS. Everything is below
// /console/, and the session cookie too: cookies know no ports, so with Path=/ the
// browser would show it to the edge on the same host.
//
// The root package wires it, beside observability/ingest in `tracegate observe`.
package console

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/webpage"
	"github.com/tracegate/tracegate/observability/ingest"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

//go:embed static
var static embed.FS

// Path is where the console is served.
const Path = "/console/"

// Config of the console.
type Config struct {
	PasswordFile string        // of operators, read at every login, so that it can be changed
	ViewerFile   string        // password of who may look and give no orders; empty: there are none
	SessionTTL   time.Duration // a login lasts that long
	Poll         time.Duration // how often the stores are asked while somebody watches
	Window       time.Duration // of the figures in the table; whole seconds
	History      time.Duration // of the charts
	Step         time.Duration // of a point in the charts; whole seconds
	Timeout      time.Duration // of one question to a store
	MaxViewers   int           // event streams at a time
}

// DefaultConfig has everything but PasswordFile.
func DefaultConfig() Config {
	return Config{
		SessionTTL: 12 * time.Hour, Poll: time.Second, Window: 10 * time.Second, History: 5 * time.Minute, Step: 5 * time.Second,
		Timeout: 3 * time.Second, MaxViewers: 64,
	}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	switch {
	case c.PasswordFile == "":
		return errors.New("password_file: must be set")
	case c.SessionTTL < time.Minute:
		return errors.New("session_ttl: must be at least a minute")
	case c.Poll < 100*time.Millisecond:
		return errors.New("poll: must be at least 100ms")
	case c.Window < time.Second || c.Window%time.Second != 0:
		return errors.New("window: must be whole seconds")
	case c.Step < time.Second || c.Step%time.Second != 0:
		return errors.New("step: must be whole seconds")
	case c.History < c.Step || c.History/c.Step > maxPoints:
		return fmt.Errorf("history: must be between 1 and %d steps", maxPoints)
	case c.Timeout <= 0:
		return errors.New("timeout: must be positive")
	case c.MaxViewers < 1:
		return errors.New("max_viewers: must be at least 1")
	}
	return nil
}

const maxPoints = 600

// Stats is what was measured: observability/store.
type Stats interface {
	GroupStats(ctx context.Context, w sli.Window, ignore ...string) ([]sli.Stats, error)
	GroupSeries(ctx context.Context, w sli.Window, step time.Duration, only ...group.ID) ([]sli.Stats, error)
	Calls(ctx context.Context, w sli.Window) (calls []store.Call, leftOut uint64, err error)
}

// Records is what was kept: observability/store. Decisions stands in for the control
// plane's own list while that is away.
type Records interface {
	Traces(ctx context.Context, q store.TraceQuery) ([]store.Span, error)
	Trace(ctx context.Context, traceID string) ([]store.Span, error)
	Decisions(ctx context.Context, limit int) ([]decide.Decision, error)
	DecisionsIn(ctx context.Context, w sli.Window, limit int, only ...group.ID) ([]decide.Decision, error)
	Tables(ctx context.Context) ([]store.Table, error)
	Disk(ctx context.Context) (store.Disk, error)
}

// Control is what the control plane says: *ctlapi.Client.
type Control interface {
	Status(ctx context.Context) (ctlapi.Status, error)
	Groups(ctx context.Context) ([]ctlapi.Group, error)
	Decisions(ctx context.Context, limit int) ([]decide.Decision, error)
}

// Operator passes orders on: *ctlapi.Client. An error that the operator should read
// is a *protocol.Error.
type Operator interface {
	Isolate(ctx context.Context, id group.ID, o ctlapi.Order) (decide.Decision, error)
	Release(ctx context.Context, id group.ID, o ctlapi.Order) (decide.Decision, error)
	Shed(ctx context.Context, id group.ID, o ctlapi.Order) (decide.Decision, error)
	Confirm(ctx context.Context, decision string, o ctlapi.Order) (decide.Decision, error)
}

// Ingest says what became of the telemetry that came in: *ingest.Ingest. It must not
// block.
type Ingest interface {
	Account() ingest.Account
}

// Probes is what the kernel probes have read: an answer of package bpf's process. An
// error that wraps syscall.ECONNREFUSED means that they do not run.
type Probes interface {
	Probes(ctx context.Context) (KernelReport, error)
}

// Deps are the parts that the console asks. A nil Ingest means that none runs in this
// process; nil Probes, that there are none and nothing is shown of them.
type Deps struct {
	Stats      Stats
	Records    Records
	Control    Control
	Operator   Operator
	Policies   Policies
	Ingest     Ingest
	Probes     Probes
	Registerer prometheus.Registerer
	Now        func() time.Time // time.Now where nil
}

// Console is the page and what stands behind it.
type Console struct {
	cfg      Config
	deps     Deps
	log      *slog.Logger
	page     http.Handler
	sessions *sessions
	login    *gate
	hub      *hub
	wake     [4]chan struct{} // for each source's poller
	metrics  *metrics
}

// New checks cfg and that the password can be read. It starts nothing.
func New(cfg Config, deps Deps, log *slog.Logger) (*Console, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	for _, file := range []string{cfg.PasswordFile, cfg.ViewerFile} {
		if file == "" {
			continue
		}
		if _, err := readPassword(file); err != nil {
			return nil, fmt.Errorf("console: %w", err)
		}
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	files, err := fs.Sub(static, "static")
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	page, err := webpage.New(files)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	m := newMetrics(deps.Registerer)
	c := &Console{
		cfg: cfg, deps: deps, log: log, page: http.StripPrefix("/console", page), metrics: m,
		sessions: newSessions(cfg.SessionTTL), login: newGate(deps.Now),
	}
	for i := range c.wake {
		c.wake[i] = make(chan struct{}, 1)
	}
	c.hub = newHub(cfg.MaxViewers, m, c.poke)
	return c, nil
}

// poke makes the pollers ask at once instead of at the next tick. It never blocks.
func (c *Console) poke() {
	for _, wake := range c.wake {
		select {
		case wake <- struct{}{}:
		default: // it is awake already
		}
	}
}

// Handler serves [Path] and sends "/" there.
func (c *Console) Handler() http.Handler {
	api := http.NewServeMux()
	api.HandleFunc("POST /console/api/session", c.postSession)
	api.HandleFunc("GET /console/api/session", c.signedIn(c.getSession))
	api.HandleFunc("DELETE /console/api/session", c.signedIn(c.deleteSession))
	api.HandleFunc("GET /console/api/events", c.signedIn(c.getEvents))
	api.HandleFunc("POST /console/api/groups/{id}/isolate", c.operators(c.order(c.deps.Operator.Isolate)))
	api.HandleFunc("POST /console/api/groups/{id}/release", c.operators(c.order(c.deps.Operator.Release)))
	api.HandleFunc("POST /console/api/groups/{id}/limit", c.operators(c.order(c.deps.Operator.Shed)))
	api.HandleFunc("POST /console/api/decisions/{id}/confirm", c.operators(c.confirm))
	api.HandleFunc("GET /console/api/decisions", c.signedIn(c.getDecisions))
	api.HandleFunc("GET /console/api/policy", c.signedIn(c.getPolicy))
	api.HandleFunc("POST /console/api/policy/difference", c.signedIn(c.postDifference))
	api.HandleFunc("GET /console/api/groups/{id}/traces", c.signedIn(c.getTraces))
	api.HandleFunc("GET /console/api/traces/{id}", c.signedIn(c.getTrace))
	api.HandleFunc("/console/api/", func(w http.ResponseWriter, _ *http.Request) { refuse(w, errNotFound) })

	mux := http.NewServeMux()
	mux.Handle("/console/api/", c.guard(api))
	mux.Handle("/console/", c.page)
	mux.Handle("/{$}", http.RedirectHandler(Path, http.StatusFound))
	return mux
}
