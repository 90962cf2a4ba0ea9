package load

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/client/coretest"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// product is the whole product as far as the lab can see it: the edge with core behind
// it, the control API, core's and Envoy's admin interfaces. Its decisions follow a
// fault after a fixed time instead of measurements.
type product struct {
	core    *coretest.Server
	control *httptest.Server

	// How it behaves; set before use.
	decideAfter, programAfter, releaseAfter time.Duration
	moveSockets                             bool
	listenerTouched                         bool // a change touches a listener
	chaos                                   func(change int)
	onFault                                 func(*http.Request, faultRequest) // zero: it is off
	onMove                                  func(g group.Group, pool string)  // "": home
	anyGroup                                bool                              // orders about every group are taken
	state                                   string                            // of the victim, as the control plane says
	away                                    atomic.Bool                       // the control plane does not answer
	refused                                 atomic.Int32                      // calls while it was away

	mu        sync.Mutex
	decisions []decide.Decision
	changed   chan struct{}
	changes   int
	policy    []byte
	version   int // of the plan
	timers    []*time.Timer
}

func newProduct(t *testing.T) *product {
	t.Helper()
	p := &product{
		state:       ctlapi.StateHome,
		core:        coretest.New(),
		decideAfter: 200 * time.Millisecond, programAfter: 20 * time.Millisecond, releaseAfter: 300 * time.Millisecond,
		moveSockets: true,
		changed:     make(chan struct{}),
	}
	p.onFault = func(_ *http.Request, f faultRequest) {
		p.core.SetFault(semconv.PoolCanary, coretest.Fault{Latency: time.Duration(f.LatencyMS) * time.Millisecond, ErrorRatio: f.ErrorRatio})
	}
	p.onMove = func(g group.Group, pool string) {
		p.core.Move(g.ID(), pool, protocol.Reconnect{DelayMS: 5, GraceMS: 5000})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/fault", p.fault)
	mux.HandleFunc("DELETE /v1/fault", p.mend)
	mux.HandleFunc("GET /v1/decisions/watch", p.watch)
	mux.HandleFunc("POST /v1/groups/{id}/{what}", p.move)
	mux.HandleFunc("PUT /v1/policy", p.putPolicy)
	mux.HandleFunc("GET /v1/policy", p.getPolicy)
	mux.HandleFunc("GET /v1/status", p.status)
	mux.HandleFunc("GET /v1/groups", p.groups)
	mux.HandleFunc("GET /stats", p.stats)
	p.control = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.away.Load() {
			p.refused.Add(1)
			panic(http.ErrAbortHandler)
		}
		mux.ServeHTTP(w, r)
	}))
	p.control.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(func() {
		p.mu.Lock()
		for _, timer := range p.timers {
			timer.Stop()
		}
		p.mu.Unlock()
		p.control.CloseClientConnections()
		p.control.Close()
		p.core.Close()
	})
	return p
}

func (p *product) config() Config {
	cfg := DefaultConfig()
	cfg.Edge, cfg.EdgeAdmin, cfg.Control, cfg.Token = p.core.URL, p.control.URL, p.control.URL, labToken
	cfg.Cores = map[string]string{semconv.PoolCanary: p.control.URL}
	cfg.Duration, cfg.ReleaseWait, cfg.Settle = 2*time.Second, 2*time.Second, 2*time.Second
	cfg.FaultLatency = 50 * time.Millisecond
	// A busy machine must not break a promise that the test is not about.
	cfg.Rate, cfg.Users, cfg.MaxInFlight, cfg.Wait = 20, 4, 20_000, 30*time.Second
	return cfg
}

func (p *product) after(d time.Duration, f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timers = append(p.timers, time.AfterFunc(d, f))
}

func victim() group.Group {
	return group.Group{Color: group.ColorOf("canary"), Env: "canary", Tenant: "payment"}
}

func (p *product) fault(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+labToken {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var f faultRequest
	_ = json.NewDecoder(r.Body).Decode(&f)
	p.onFault(r, f)
	if p.decideAfter > 0 {
		at := time.Now().Add(p.decideAfter)
		p.after(p.decideAfter, func() { p.decide(at, victim(), decide.Isolate, semconv.PoolIsolated) })
	}
	w.WriteHeader(http.StatusNoContent)
}

func (p *product) mend(w http.ResponseWriter, r *http.Request) {
	p.onFault(r, faultRequest{})
	if p.releaseAfter > 0 {
		at := time.Now().Add(p.releaseAfter)
		p.after(p.releaseAfter, func() { p.decide(at, victim(), decide.Release, "") })
	}
	w.WriteHeader(http.StatusNoContent)
}

// decide publishes a decision made at a moment, and its acknowledgment a little later.
// The moments are what they should be however late a busy machine comes to them.
func (p *product) decide(at time.Time, g group.Group, action decide.Action, pool string) decide.Decision {
	return p.decideBy("policy", at, g, action, pool)
}

func (p *product) decideBy(by string, at time.Time, g group.Group, action decide.Action, pool string) decide.Decision {
	d := decide.Decision{
		ID: fmt.Sprint(time.Now().UnixNano()), Time: at, Action: action,
		Group: g.ID(), Reason: "because", By: by, ToPool: pool,
	}
	p.publish(d)
	p.after(p.programAfter, func() {
		if p.moveSockets {
			p.onMove(g, pool)
		}
		programmed := d
		programmed.Programmed, programmed.Outcome = at.Add(p.programAfter), &decide.Outcome{Words: "well"}
		p.mu.Lock()
		p.version++
		programmed.Version = fmt.Sprint(p.version)
		p.mu.Unlock()
		p.publish(programmed)
	})
	return d
}

func (p *product) publish(d decide.Decision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.decisions = append(p.decisions, d)
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *product) watch(w http.ResponseWriter, r *http.Request) {
	next := 0
	enc := json.NewEncoder(w)
	for {
		p.mu.Lock()
		fresh, changed := p.decisions[next:], p.changed
		next = len(p.decisions)
		p.mu.Unlock()
		for _, d := range fresh {
			if enc.Encode(d) != nil {
				return
			}
		}
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func (p *product) move(w http.ResponseWriter, r *http.Request) {
	var o ctlapi.Order
	_ = json.NewDecoder(r.Body).Decode(&o)
	g := victim()
	if o.Identity != nil {
		color, _ := group.ParseColor(o.Identity.Color)
		g = group.Group{Color: color, Env: o.Identity.Env, Tenant: o.Identity.Tenant}
	}
	if p.anyGroup && string(g.ID()) != r.PathValue("id") { // somebody's who has nothing to do with the fault
		_ = json.NewEncoder(w).Encode(decide.Decision{ID: "other", Action: decide.Release, By: "operator:x"})
		return
	}
	if string(g.ID()) != r.PathValue("id") {
		http.Error(w, "unknown group", http.StatusNotFound)
		return
	}
	action, pool := decide.Isolate, semconv.PoolIsolated
	if r.PathValue("what") == "release" {
		action, pool = decide.Release, ""
	}
	p.change()
	_ = json.NewEncoder(w).Encode(p.decideBy("operator:"+o.By, time.Now(), g, action, pool))
}

func (p *product) putPolicy(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	p.mu.Lock()
	p.policy = b
	p.version++
	p.mu.Unlock()
	p.change()
}

func (p *product) getPolicy(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = json.NewEncoder(w).Encode(ctlapi.Document{Document: string(p.policy)})
}

func (p *product) status(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	version := fmt.Sprint(p.version)
	_ = json.NewEncoder(w).Encode(ctlapi.Status{Version: version, LastGood: version})
}

func (p *product) groups(w http.ResponseWriter, _ *http.Request) {
	list := []ctlapi.Group{{Group: victim().ID(), State: p.state}}
	if p.anyGroup {
		for _, tenant := range []string{"search", "payment"} {
			list = append(list, ctlapi.Group{Group: group.Group{Env: "prod", Tenant: tenant}.ID(), State: ctlapi.StateHome})
		}
	}
	_ = json.NewEncoder(w).Encode(list)
}

func (p *product) change() {
	p.mu.Lock()
	p.changes++
	n := p.changes
	p.mu.Unlock()
	if p.chaos != nil {
		p.chaos(n)
	}
}

func (p *product) stats(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	modified := 0
	if p.listenerTouched {
		modified = p.changes
	}
	fmt.Fprintf(w, "listener_manager.listener_added: 1\nlistener_manager.listener_modified: %d\n", modified)
}

const labToken = "0123456789abcdef"

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}
