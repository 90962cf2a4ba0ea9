package controlplane

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/durable"
	"github.com/tracegate/tracegate/controlplane/notify"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server/servertest"
	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/mesh/placement"
	"github.com/tracegate/tracegate/mesh/secret"
	"github.com/tracegate/tracegate/mesh/webhook"
	"github.com/tracegate/tracegate/observability/semconv"
)

const forEver = time.Hour // a trial that only something else than time ends

func trialConfig(t *testing.T, watch time.Duration) Config {
	t.Helper()
	cfg := testConfig(t)
	cfg.Trial.Watch = watch
	return cfg
}

// pair is a control plane with two edges that have the first policy.
func pair(t *testing.T, cfg Config, w *world) (p *plane, a, b *servertest.Edge) {
	t.Helper()
	p = run(t, cfg, w)
	a = servertest.Connect(t, p.xds, servertest.Options{ID: "a"})
	p.newest("first", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionInForce })
	b = servertest.Connect(t, p.xds, servertest.Options{ID: "b"})
	p.status("two edges", func(s ctlapi.Status) bool {
		return acked(s) && len(s.Edges) == 2 && s.Edges[1].InSync && s.TelemetryReason == ""
	})
	return p, a, b
}

// replacePolicy writes it whole: half of one would be a revision of its own.
func replacePolicy(t *testing.T, cfg Config, document string) {
	t.Helper()
	if err := durable.Replace(cfg.Policy, []byte(document)); err != nil {
		t.Fatal(err)
	}
}

// inForce is the policy that all edges have.
func (p *plane) inForce() string {
	p.t.Helper()
	d, err := p.api.Policy(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return d.Document
}

// onTrial waits until the edge has a revision of the policy and has acknowledged it.
func (p *plane) onTrial(edge string, revision int) ctlapi.Trial {
	p.t.Helper()
	s := p.status("on trial", func(s ctlapi.Status) bool {
		return s.Trial != nil && s.Trial.Edge == edge && s.Trial.Revision == revision && !s.Trial.Until.IsZero()
	})
	p.newest("history", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionTrial && strings.Contains(r.Why, edge) })
	return *s.Trial
}

// routes is the version of the routes that a fake edge has.
func routes(e *servertest.Edge) string { return e.Has()[xds.Routes][xds.RoutesName] }

// TestGoodPolicyGoesToOneEdgeFirst: then to the other, without the first being told again.
func TestGoodPolicyGoesToOneEdgeFirst(t *testing.T) {
	t.Parallel()
	cfg, w := trialConfig(t, 5*time.Second), newWorld()
	p, a, b := pair(t, cfg, w)
	before := routes(b)
	replacePolicy(t, cfg, string(renamed("better")))
	p.onTrial("a", 2)
	if got := routes(b); got != before || routes(a) == before {
		t.Errorf("routes of the edges: %s and %s, before %s", routes(a), got, before)
	}
	if p.inForce() != string(policy.Default) {
		t.Error("the policy before is not in force")
	}
	for len(a.Events) > 0 {
		<-a.Events
	}
	r := p.newest("passed", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionInForce && r.Number == 2 })
	if r.Why != "" || p.inForce() != string(renamed("better")) {
		t.Errorf("revision %+v, in force %d bytes", r, len(p.inForce()))
	}
	p.status("everywhere", func(s ctlapi.Status) bool { return acked(s) && s.Trial == nil && s.Edges[1].InSync })
	if routes(a) != routes(b) || routes(a) == before {
		t.Errorf("routes of the edges: %s and %s", routes(a), routes(b))
	}
	if len(a.Events) > 0 {
		t.Errorf("the first edge was sent %+v again", <-a.Events)
	}
	if ds := w.decisions(decide.RollBack); len(ds) > 0 {
		t.Errorf("taken back: %+v", ds)
	}
}

// TestPolicyThatIsBadAtOneEdge never reaches the other: its edge gets back what was, and
// status, history, decisions and the webhook say why. A restart does not try it again; who
// brings it once more has it tried again.
func TestPolicyThatIsBadAtOneEdge(t *testing.T) {
	t.Parallel()
	cfg, w := trialConfig(t, forEver), newWorld()
	told := make(chan notify.Message, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m notify.Message
		_ = json.NewDecoder(r.Body).Decode(&m)
		told <- m
	}))
	defer hook.Close()
	cfg.Notify = notify.Config{Hooks: []notify.Hook{{URL: hook.URL}}, Secret: secret.Text(webhook.NewSecret([32]byte{1})), Dir: cfg.Dir}
	p, a, b := pair(t, cfg, w)
	before := routes(a)
	for len(b.Events) > 0 {
		<-b.Events
	}
	replacePolicy(t, cfg, string(renamed("worse")))
	p.onTrial("a", 2)
	w.set(func(w *world) { w.errors, w.failing = map[string]uint64{"a": 40}, time.Now() })
	s := p.status("taken back", func(s ctlapi.Status) bool { return s.RolledBack != nil && s.Trial == nil && acked(s) })
	if r := s.RolledBack; r.From != 2 || r.To != 1 || !strings.Contains(r.Why, "40 errors in 100 requests") || !strings.Contains(r.Why, "edge a") {
		t.Errorf("status says %+v", r)
	}
	if routes(a) != before || len(b.Events) > 0 || p.inForce() != string(policy.Default) {
		t.Errorf("the edge has %s, before %s; the other was sent %d responses", routes(a), before, len(b.Events))
	}
	r := p.newest("history", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionRolledBack })
	if r.Number != 2 || r.BackTo != 1 || r.Why != s.RolledBack.Why || !r.Since.IsZero() {
		t.Errorf("history says %+v", r)
	}
	m := <-told
	if m.Type != "policy.rolled_back" || m.Data.Decision.Reason != r.Why || m.Data.Undo != "tracegate ctl rollback 2" || m.Data.Text != "Policy revision 2 was taken back from the edge that had it first, 1 is in force" {
		t.Errorf("the webhook was told %+v", m)
	}
	eventually(t, "saved", func() bool {
		ds := w.decisions(decide.RollBack)
		return len(ds) == 1 && !ds[0].Programmed.IsZero()
	}, func() any { return w.decisions(decide.RollBack) })
	if raw, err := os.ReadFile(cfg.Policy); err != nil || string(raw) != string(renamed("worse")) {
		t.Errorf("the operator's file was changed: %v", err)
	}
	p.stop()

	w.set(func(w *world) { w.errors = nil })
	p = run(t, cfg, w)
	servertest.Connect(t, p.xds, servertest.Options{ID: "a"})
	servertest.Connect(t, p.xds, servertest.Options{ID: "b"})
	p.status("still taken back", func(s ctlapi.Status) bool {
		return s.RolledBack != nil && acked(s) && len(s.Edges) == 2 && s.Edges[1].InSync && s.Trial == nil
	})
	if err := p.api.PutPolicy(t.Context(), renamed("worse"), "ann", "it was not the policy"); err != nil {
		t.Fatal(err)
	}
	p.onTrial("a", 3)
}

// TestPolicyThatOneEdgeRefuses: the other one does not get to see it.
func TestPolicyThatOneEdgeRefuses(t *testing.T) {
	t.Parallel()
	cfg, w := trialConfig(t, forEver), newWorld()
	p, a, b := pair(t, cfg, w)
	before := routes(a)
	for len(b.Events) > 0 {
		<-b.Events
	}
	a.Answer(func(typ xds.Type, r *discoveryv3.DeltaDiscoveryResponse) string {
		if typ == xds.Routes && r.GetResources()[0].GetVersion() != before {
			return "route edge: no such thing"
		}
		return ""
	})
	replacePolicy(t, cfg, string(renamed("wrong")))
	s := p.status("taken back", func(s ctlapi.Status) bool { return s.RolledBack != nil && s.Trial == nil && acked(s) })
	if why := s.RolledBack.Why; !strings.Contains(why, "edge a refused rds edge: route edge: no such thing") || s.Rejected == nil || s.Rejected.Edge != "a" {
		t.Errorf("status says %q, rejected %+v", why, s.Rejected)
	}
	p.newest("history", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionRolledBack && r.Number == 2 })
	if routes(a) != before || len(b.Events) > 0 {
		t.Errorf("the edge has %s, before %s; the other was sent %d responses", routes(a), before, len(b.Events))
	}
}

// TestEdgeOfATrialGoes: an edge that dies of a policy is the only one.
func TestEdgeOfATrialGoes(t *testing.T) {
	t.Parallel()
	cfg, w := trialConfig(t, 5*time.Second), newWorld()
	p, a, b := pair(t, cfg, w)
	before := routes(b)
	replacePolicy(t, cfg, string(renamed("deadly")))
	p.onTrial("a", 2)
	a.Close()
	s := p.status("taken back", func(s ctlapi.Status) bool { return s.RolledBack != nil && s.Trial == nil })
	if !strings.Contains(s.RolledBack.Why, "edge a went away") || routes(b) != before {
		t.Errorf("status says %+v, the other edge has %s", s.RolledBack, routes(b))
	}
}

// TestMoveDuringTrial: a move is for both edges at once, each in its policy; what is on
// trial stays so.
func TestMoveDuringTrial(t *testing.T) {
	t.Parallel()
	cfg, w := trialConfig(t, forEver), newWorld()
	p, a, b := pair(t, cfg, w)
	replacePolicy(t, cfg, string(renamed("better")))
	p.onTrial("a", 2)
	own, others := routes(a), routes(b)
	d, err := p.api.Isolate(t.Context(), sick.ID(), byHand)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "in force at both", func() bool {
		ds := w.decisions(decide.Isolate)
		return len(ds) == 1 && ds[0].ID == d.ID && !ds[0].Programmed.IsZero()
	}, func() any { return w.decisions(decide.Isolate) })
	if routes(a) == own || routes(b) == others || routes(a) == routes(b) {
		t.Errorf("routes of the edges: %s (was %s) and %s (was %s)", routes(a), own, routes(b), others)
	}
	p.placed("isolated", func(pl placement.Placement) bool { return pl.Pool(sick) == semconv.PoolIsolated })
	if s := p.status("goes on", func(s ctlapi.Status) bool { return s.Trial != nil && acked(s) }); s.RolledBack != nil {
		t.Errorf("status: %+v", s)
	}
	if _, err := p.api.Release(t.Context(), sick.ID(), byHand); err != nil {
		t.Fatal(err)
	}
	eventually(t, "as before", func() bool { return routes(a) == own && routes(b) == others }, func() any { return []string{routes(a), routes(b)} })
}

// TestRestartDuringTrial: all edges begin with what was in force, and the policy is tried
// again, whole.
func TestRestartDuringTrial(t *testing.T) {
	t.Parallel()
	cfg, w := trialConfig(t, forEver), newWorld()
	p, a, b := pair(t, cfg, w)
	before := routes(b)
	replacePolicy(t, cfg, string(renamed("better")))
	p.onTrial("a", 2)
	tried, has := routes(a), [2][xds.NumTypes]map[string]string{a.Has(), b.Has()}
	p.stop()

	// Nobody is asked for the policy while it cannot be read: the edge gets back what was.
	if err := os.Remove(cfg.Policy); err != nil {
		t.Fatal(err)
	}
	p = run(t, cfg, w)
	a = servertest.Connect(t, p.xds, servertest.Options{ID: "a", Has: has[0]})
	b = servertest.Connect(t, p.xds, servertest.Options{ID: "b", Has: has[1]})
	p.status("as before", func(s ctlapi.Status) bool { return acked(s) && len(s.Edges) == 2 && s.Edges[1].InSync })
	if routes(a) != before || routes(b) != before {
		t.Errorf("routes of the edges: %s and %s, before %s", routes(a), routes(b), before)
	}
	replacePolicy(t, cfg, string(renamed("better")))
	p.onTrial("a", 2)
	if routes(a) != tried || routes(b) != before {
		t.Errorf("routes of the edges: %s and %s, want %s and %s", routes(a), routes(b), tried, before)
	}
}

// TestOneEdge has the whole life of a trial; another that comes meanwhile has the policy
// before.
func TestOneEdge(t *testing.T) {
	t.Parallel()
	cfg, w := trialConfig(t, 5*time.Second), newWorld()
	p := run(t, cfg, w)
	a := servertest.Connect(t, p.xds, servertest.Options{ID: "a"})
	p.newest("first", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionInForce })
	before := routes(a)
	replacePolicy(t, cfg, string(renamed("better")))
	p.onTrial("a", 2)
	late := servertest.Connect(t, p.xds, servertest.Options{ID: "late"})
	for g := late.Next(); g.Type != xds.Routes; g = late.Next() {
	}
	if routes(late) != before {
		t.Errorf("an edge that came later has %s, want %s", routes(late), before)
	}
	p.newest("passed", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionInForce && r.Number == 2 })
	if routes(late) != routes(a) || routes(a) == before {
		t.Errorf("routes of the edges: %s and %s", routes(a), routes(late))
	}
}

// TestNoEdge: the policy waits for one.
func TestNoEdge(t *testing.T) {
	t.Parallel()
	cfg, w := trialConfig(t, forEver), newWorld()
	p := run(t, cfg, w)
	a := servertest.Connect(t, p.xds, servertest.Options{ID: "a"})
	p.newest("first", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionInForce })
	a.Close()
	p.status("no edge", func(s ctlapi.Status) bool { return len(s.Edges) == 1 && !s.Edges[0].Connected })
	replacePolicy(t, cfg, string(renamed("better")))
	p.status("waits", func(s ctlapi.Status) bool { return s.Trial != nil && s.Trial.Edge == "" })
	servertest.Connect(t, p.xds, servertest.Options{ID: "b"})
	p.onTrial("b", 2)
}

// TestWhatEndsATrial: what comes meanwhile waits, the newest of it goes next; what all have
// is in force at once, and so is what once was.
func TestWhatEndsATrial(t *testing.T) {
	t.Parallel()
	cfg, w := trialConfig(t, forEver), newWorld()
	p, a, b := pair(t, cfg, w)
	before := routes(b)
	put := func(document []byte) {
		t.Helper()
		if err := p.api.PutPolicy(t.Context(), document, "ann", "try"); err != nil {
			t.Fatal(err)
		}
	}
	put(renamed("second"))
	p.onTrial("a", 2)
	put(renamed("third"))
	p.status("waits", func(s ctlapi.Status) bool { return s.Trial != nil && s.Trial.Next == 3 })
	put(renamed("fourth"))
	s := p.status("waits", func(s ctlapi.Status) bool { return s.Trial != nil && s.Trial.Next == 4 })
	if s.Trial.Revision != 2 {
		t.Errorf("on trial: %+v", s.Trial)
	}
	w.set(func(w *world) { w.errors, w.failing = map[string]uint64{"a": 40}, time.Now() })
	p.status("fails, the newest is next", func(s ctlapi.Status) bool { return s.Trial != nil && s.Trial.Revision == 4 })
	w.set(func(w *world) { w.errors = nil })

	put(policy.Default)
	p.status("back to what all have", func(s ctlapi.Status) bool { return s.Trial == nil && acked(s) && s.Edges[1].InSync })
	p.newest("in force", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionInForce && r.Number >= 5 })
	if routes(a) != before || routes(b) != before {
		t.Errorf("routes of the edges: %s and %s, before %s", routes(a), routes(b), before)
	}
	all, err := p.api.Revisions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if r.State == ctlapi.RevisionTrial || r.State == ctlapi.RevisionPending {
			t.Errorf("history: %+v", r)
		}
	}
}

// TestGoingBackIsNotTried: a policy that was in force is so again at once.
func TestGoingBackIsNotTried(t *testing.T) {
	t.Parallel()
	cfg, w := trialConfig(t, 300*time.Millisecond), newWorld()
	p, a, b := pair(t, cfg, w)
	before := routes(b)
	replacePolicy(t, cfg, string(renamed("better")))
	p.newest("passed", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionInForce && r.Number == 2 })
	w.set(func(w *world) { w.errors, w.failing = map[string]uint64{"a": 100}, time.Now() }) // a trial would fail
	replacePolicy(t, cfg, string(policy.Default))
	p.newest("back", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionInForce && r.Number == 3 })
	if routes(a) != before || routes(b) != before {
		t.Errorf("routes of the edges: %s and %s, before %s", routes(a), routes(b), before)
	}
}

// TestTrialWithoutTelemetry: only what the edge acknowledges counts.
func TestTrialWithoutTelemetry(t *testing.T) {
	t.Parallel()
	cfg, w := trialConfig(t, 300*time.Millisecond), newWorld()
	p, a, b := pair(t, cfg, w)
	w.set(func(w *world) { w.down = os.ErrDeadlineExceeded })
	replacePolicy(t, cfg, string(renamed("better")))
	p.newest("passed", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionInForce && r.Number == 2 })
	if routes(a) != routes(b) {
		t.Errorf("routes of the edges: %s and %s", routes(a), routes(b))
	}
}
