package controlplane

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/controlplane/ctl"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/durable"
	"github.com/tracegate/tracegate/controlplane/notify"
	"github.com/tracegate/tracegate/mesh/secret"
	"github.com/tracegate/tracegate/mesh/webhook"
	"github.com/tracegate/tracegate/observability/semconv"
)

// hooked is a configuration with one webhook, and what that is told.
func hooked(t *testing.T, dir string) (notify.Config, <-chan notify.Data) {
	t.Helper()
	told := make(chan notify.Data, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m notify.Message
		_ = json.NewDecoder(r.Body).Decode(&m)
		told <- m.Data
	}))
	t.Cleanup(hook.Close)
	return notify.Config{Hooks: []notify.Hook{{URL: hook.URL}}, Secret: secret.Text(webhook.NewSecret([32]byte{1})), Dir: dir}, told
}

// TestIsolationWaitsForItsCauses, and what comes behind it too; each is told once.
func TestIsolationWaitsForItsCauses(t *testing.T) {
	t.Parallel()
	now := time.Now()
	isolation := decide.Decision{ID: "1", Time: now, Action: decide.Isolate, By: decide.ByPolicy}
	release := decide.Decision{ID: "2", Time: now.Add(time.Second), Action: decide.Release, Share: 100, By: "operator:ann"}
	for name, c := range map[string]struct {
		probes   CauseSource
		found    []string // of traces; empty: they say nothing
		never    bool     // traces do not answer
		at, told time.Duration
		causes   []string
	}{
		"traces explain it":                     {probes: newWorld(), found: []string{"db1"}, at: 2 * time.Second, told: 2 * time.Second, causes: []string{"db1"}},
		"traces do not, and there is no probe":  {at: 2 * time.Second, told: 2 * time.Second},
		"traces do not, and a probe says none":  {probes: newWorld(), at: 2 * time.Second, told: tellWithin},
		"nobody answers":                        {never: true, told: tellWithin},
		"traces explain it when it is too late": {found: []string{"db1"}, at: tellWithin, told: tellWithin, causes: []string{"db1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, told := hooked(t, t.TempDir())
			n, err := notify.New(cfg, nil, now.Add(-time.Second), prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			go n.Run(t.Context())
			l := testLoop(t, c.probes)
			l.notifier = n
			l.board.Record(isolation, release)
			l.tell(isolation)
			l.tell(release)
			for at := time.Duration(0); at <= tellWithin; at += time.Second {
				if at == c.at && !c.never {
					f := finding{isolation.ID, c.found}
					l.addCauses(f, now.Add(at))
					l.answered(f)
				}
				l.tellDue(now.Add(at))
				if waits := len(l.untold) == 2; waits != (at < c.told) {
					t.Errorf("after %s it waits: %v", at, waits)
				}
				if waits := l.nextTold(); (at < c.told) != waits.Equal(now.Add(tellWithin)) {
					t.Errorf("after %s it waits until %s", at, waits)
				}
			}
			l.tell(decide.Decision{ID: "3", Time: now.Add(2 * time.Second), Action: decide.Shed, By: "operator:ann"})
			l.tellDue(now.Add(tellWithin))
			for i, want := range []string{"1", "2", "3"} {
				got := (<-told).Decision
				if got.ID != want || i == 0 && !cmp.Equal(got.Causes, c.causes) {
					t.Errorf("told of %s, causes %q; want %s, %q", got.ID, got.Causes, want, c.causes)
				}
			}
		})
	}
}

// TestNothingElseWaits: an isolation that probes have explained, and a person's.
func TestNothingElseWaits(t *testing.T) {
	t.Parallel()
	l := &loop{}
	l.tell(decide.Decision{ID: "1", Time: time.Now(), Action: decide.Isolate, By: decide.ByPolicy, Causes: []string{"connects take 1s"}})
	l.tell(decide.Decision{ID: "2", Time: time.Now(), Action: decide.Isolate, By: "operator:ann"})
	l.tell(decide.Decision{ID: "3", Time: time.Now(), Action: decide.RollBack, By: decide.ByPolicy})
	for _, u := range l.untold {
		if !u.until.IsZero() {
			t.Errorf("%s waits", u.decision.ID)
		}
	}
}

// testLoop has what decisions are shown, kept and explained by.
func testLoop(t *testing.T, probes CauseSource) *loop {
	t.Helper()
	m, log := newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler)
	journal, err := durable.OpenJournal(filepath.Join(t.TempDir(), journalFile), journalSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { journal.Close() })
	return &loop{board: ctl.NewBoard(), causes: &causes{source: probes}, recorder: newRecorder(newWorld(), m, log), journal: journal, metrics: m, log: log}
}

// TestEndWhileAnIsolationWaits: the next process tells of it, once.
func TestEndWhileAnIsolationWaits(t *testing.T) {
	t.Parallel()
	cfg, w := testConfig(t), newWorld()
	var told <-chan notify.Data
	cfg.Notify, told = hooked(t, cfg.Dir)
	w.p95[semconv.PoolCanary] = 800 * time.Millisecond
	p := run(t, cfg, w) // no edge has it, so nobody is asked why
	eventually(t, "isolated", func() bool {
		ds, err := p.api.Decisions(t.Context(), 1)
		return err == nil && len(ds) == 1 && ds[0].Action == decide.Isolate
	}, func() any { return nil })
	p.stop()
	w.set(func(w *world) { w.placed, w.p95[semconv.PoolCanary] = semconv.PoolIsolated, 0 })
	p = run(t, cfg, w)
	p.status("read", func(s ctlapi.Status) bool { return s.Sources["policy"].Error == "" })
	if _, err := p.api.Release(t.Context(), sick.ID(), byHand); err != nil {
		t.Fatal(err)
	}
	for _, want := range []decide.Action{decide.Isolate, decide.Release} {
		if got := (<-told).Decision; got.Action != want {
			t.Errorf("told of %s, want %s", got.Action, want)
		}
	}
}
