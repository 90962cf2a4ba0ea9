package controlplane

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/durable"
	"github.com/tracegate/tracegate/observability/semconv"
)

// journaled are the decisions of a journal, each as it was written last.
func journaled(t *testing.T, path string) (out []decide.Decision) {
	t.Helper()
	_, err := durable.ReadJournal(path, func(line []byte) error {
		var d decide.Decision
		if err := json.Unmarshal(line, &d); err != nil {
			return err
		}
		out = append(slices.DeleteFunc(out, func(o decide.Decision) bool { return o.ID == d.ID }), d)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestJournalThatFails: what took effect before it did is in the state file, and in the
// journal as soon as that works again; nothing new takes effect until then.
func TestJournalThatFails(t *testing.T) {
	t.Parallel()
	l := testLoop(t, nil)
	l.cfg.Dir = t.TempDir()
	folder := filepath.Join(t.TempDir(), "journal")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, journalFile)
	var err error
	if l.journal, err = durable.OpenJournal(path, 1); err != nil { // each entry needs the folder
		t.Fatal(err)
	}
	t.Cleanup(func() { l.journal.Close() })
	hold := func(reason string) error {
		return l.carryOut([]decide.Decision{{Time: time.Now(), Action: decide.Hold, Reason: reason}}, decide.State{RolledBack: time.Now()})
	}
	if err := hold("first"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(folder, folder+".gone"); err != nil {
		t.Fatal(err)
	}
	if err := hold("second"); err != nil {
		t.Fatal(err)
	}
	kept := l.state
	for range 3 {
		if err := hold("never"); err == nil || l.notDurable == "" {
			t.Errorf("decided without a journal, shown: %q", l.notDurable)
		}
	}
	known := l.unjournaled[0]
	known.Causes = []string{"db1"}
	l.amend(known)
	var s savedState
	if err := durable.Load(l.path(stateFile), &s); err != nil || len(s.Decisions) != 1 || s.Decisions[0].Reason != "second" || !s.Decide.RolledBack.Equal(kept.RolledBack) || !l.state.RolledBack.Equal(kept.RolledBack) {
		t.Errorf("state: %+v, %v", s, err)
	}
	if err := os.Rename(folder+".gone", folder); err != nil {
		t.Fatal(err)
	}
	l.evaluate(measurement{})
	if ds := journaled(t, path); len(ds) != 2 || ds[0].Reason != "first" || ds[1].Reason != "second" || len(ds[1].Causes) != 1 || l.notDurable != "" {
		t.Errorf("%+v, shown: %q", ds, l.notDurable)
	}
}

// TestEndBetweenStateAndJournal: the next process finds the decision in the state file.
func TestEndBetweenStateAndJournal(t *testing.T) {
	t.Parallel()
	cfg, w := testConfig(t), newWorld()
	p := run(t, cfg, w)
	p.status("policy read", func(s ctlapi.Status) bool { return s.Version != "" })
	d, err := p.api.Isolate(t.Context(), sick.ID(), byHand)
	if err != nil {
		t.Fatal(err)
	}
	p.stop()
	journal := filepath.Join(cfg.Dir, journalFile)
	if err := os.Remove(journal); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		p = run(t, cfg, w)
		p.status("journaled", func(ctlapi.Status) bool { return len(journaled(t, journal)) == 1 })
		if ds, err := p.api.Decisions(t.Context(), 10); err != nil || len(ds) != 1 || ds[0].ID != d.ID {
			t.Errorf("decisions: %+v, %v", ds, err)
		}
		p.stop()
	}
	if ds := journaled(t, journal); len(ds) != 1 || ds[0].ID != d.ID {
		t.Errorf("journal: %+v", ds)
	}
}

// TestUnsavedAtTheEnd: what the store did not get before a restart it gets after it.
func TestUnsavedAtTheEnd(t *testing.T) {
	t.Parallel()
	cfg, w := testConfig(t), newWorld()
	w.down = errors.New("connection refused")
	p := run(t, cfg, w)
	p.status("policy read", func(s ctlapi.Status) bool { return s.Version != "" })
	d, err := p.api.Isolate(t.Context(), sick.ID(), byHand)
	if err != nil {
		t.Fatal(err)
	}
	p.stop()
	w.set(func(w *world) { w.down, w.placed = nil, semconv.PoolIsolated })
	run(t, cfg, w)
	eventually(t, "saved", func() bool {
		ds := w.decisions(decide.Isolate)
		return len(ds) == 1 && ds[0].ID == d.ID && ds[0].Time.Equal(d.Time)
	}, func() any { return w.decisions(decide.Isolate) })
}

// TestOldDecisionsAreNotSavedAgain.
func TestOldDecisionsAreNotSavedAgain(t *testing.T) {
	t.Parallel()
	now := time.Now()
	r := newRecorder(newWorld(), newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	r.addPast([]decide.Decision{{ID: "1", Time: now.Add(-saveAgain)}, {ID: "2", Time: now.Add(1 - saveAgain)}, {ID: "3", Time: now}}, now)
	if d, _ := r.first(); r.unsaved() != 2 || d.ID != "2" {
		t.Errorf("%d wait, the first is %q", r.unsaved(), d.ID)
	}
}
