package controlplane

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server/servertest"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// calm is a policy that waits for longer after it has acted: on a busy machine what a
// test mends may still be measured after the default's three seconds.
func calm(document []byte) string {
	return strings.NewReplacer("cooldown: 3s", "cooldown: 30s", "releaseStepFor: 5s", "releaseStepFor: 30s").Replace(string(document))
}

// TestBadUpdateIsTakenBack has a group become bad right after an update of the policy: the
// one before is in force again, the document stays where it is, a restart does not try it
// again, and who brings it once more has it.
func TestBadUpdateIsTakenBack(t *testing.T) {
	t.Parallel()
	cfg, w := testConfig(t), newWorld()
	good, worse := calm(policy.Default), calm(renamed("worse"))
	write(t, cfg.Policy, good)
	p := run(t, cfg, w)
	servertest.Connect(t, p.xds, servertest.Options{})
	p.newest("first", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionInForce })
	eventually(t, "groups are measured", func() bool {
		gs, err := p.api.Groups(t.Context())
		return err == nil && len(gs) == 2
	}, func() any { return nil })

	write(t, cfg.Policy, worse)
	p.newest("second", func(r ctlapi.Revision) bool { return r.Number == 2 && r.State == ctlapi.RevisionInForce })
	w.set(func(w *world) { w.p95[semconv.PoolCanary] = 800 * time.Millisecond })
	s := p.status("taken back", func(s ctlapi.Status) bool { return s.RolledBack != nil && acked(s) })
	w.set(func(w *world) { w.p95[semconv.PoolCanary] = 0 })
	if r := s.RolledBack; r.From != 2 || r.To != 1 || r.Why == "" {
		t.Errorf("status says %+v", r)
	}
	inForce := func(p *plane) string {
		d, err := p.api.Policy(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return d.Document
	}
	if inForce(p) != good {
		t.Error("the policy before is not in force")
	}
	if raw, err := os.ReadFile(cfg.Policy); err != nil || string(raw) != worse {
		t.Errorf("the operator's file was changed: %v", err)
	}
	r := p.newest("history", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionRolledBack })
	if r.Number != 2 || r.BackTo != 1 || !strings.Contains(r.Why, "revision 2") {
		t.Errorf("history says %+v", r)
	}
	ds := w.decisions(decide.RollBack)
	eventually(t, "saved", func() bool {
		ds = w.decisions(decide.RollBack)
		return len(ds) == 1 && !ds[0].Programmed.IsZero()
	}, func() any { return ds })
	if d := ds[0]; d.Group != sick.ID() || *d.Revision != (decide.RevisionChange{From: 2, To: 1}) || d.Undo != "tracegate ctl rollback 2" || d.VersionBefore == d.Version {
		t.Errorf("decision: %+v", d)
	}
	if moved := w.decisions(decide.Isolate); len(moved) > 0 {
		t.Errorf("groups were moved as well: %+v", moved)
	}
	p.stop()

	p = run(t, cfg, w)
	servertest.Connect(t, p.xds, servertest.Options{})
	p.status("still taken back", func(s ctlapi.Status) bool { return s.RolledBack != nil && acked(s) })
	if inForce(p) != good {
		t.Error("after a restart the policy before is not in force")
	}
	if err := p.api.PutPolicy(t.Context(), []byte(worse), "ann", "it was not the policy"); err != nil {
		t.Fatal(err)
	}
	p.status("wanted once more", func(s ctlapi.Status) bool { return s.RolledBack == nil && acked(s) })
	if r := p.newest("third", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionInForce }); r.Number != 3 || r.By != "operator:ann" {
		t.Errorf("the newest revision: %+v", r)
	}
	if inForce(p) != worse {
		t.Error("what an operator wants is not in force")
	}
}

// TestConfirmRecommendation: a policy that recommends moves nothing until a person says so.
func TestConfirmRecommendation(t *testing.T) {
	t.Parallel()
	cfg, w := testConfig(t), newWorld()
	write(t, cfg.Policy, strings.Replace(string(policy.Default), "mode: act ", "mode: recommend ", 1))
	p := run(t, cfg, w)
	servertest.Connect(t, p.xds, servertest.Options{})
	p.status("programmed", acked)
	w.set(func(w *world) { w.p95[semconv.PoolCanary] = 800 * time.Millisecond })
	var advice decide.Decision
	eventually(t, "recommended", func() bool {
		ds, err := p.api.Decisions(t.Context(), 1)
		if err == nil && len(ds) == 1 {
			advice = ds[0]
		}
		return advice.Advice == decide.Isolate
	}, func() any { return advice })
	var refused *protocol.Error
	if _, err := p.api.Confirm(t.Context(), "nothing", ctlapi.Order{By: "ann", Reason: "x"}); !errors.As(err, &refused) || refused.Code != protocol.CodeNotFound {
		t.Errorf("a decision that is none: %v", err)
	}
	d, err := p.api.Confirm(t.Context(), advice.ID, ctlapi.Order{By: "ann", Reason: "I see it too"})
	if err != nil || d.Action != decide.Isolate || d.Confirms != advice.ID || d.By != "operator:ann" || d.Group != sick.ID() {
		t.Fatalf("confirmed: %+v, %v", d, err)
	}
	w.set(func(w *world) { w.placed = semconv.PoolIsolated })
	groups, err := p.api.Groups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		if g.Group == sick.ID() && (g.State != ctlapi.StateIsolated || g.Pool != semconv.PoolIsolated) {
			t.Errorf("group: %+v", g)
		}
	}
	if _, err := p.api.Confirm(t.Context(), advice.ID, ctlapi.Order{By: "ann", Reason: "again"}); !errors.As(err, &refused) || refused.Field != "decision" {
		t.Errorf("confirmed twice: %v", err)
	}
}

// TestShedIsProgrammed: an operator's limit reaches the edges' routes, and its end too.
func TestShedIsProgrammed(t *testing.T) {
	t.Parallel()
	cfg, w := testConfig(t), newWorld()
	p := run(t, cfg, w)
	servertest.Connect(t, p.xds, servertest.Options{})
	before := p.status("programmed", acked)
	order := byHand
	order.Requests = 7
	d, err := p.api.Shed(t.Context(), sick.ID(), order)
	if err != nil || d.Action != decide.Shed || d.Requests != 7 {
		t.Fatalf("limited: %+v, %v", d, err)
	}
	p.status("another plan", func(s ctlapi.Status) bool { return acked(s) && s.Version != before.Version })
	state := func(id group.ID) (g ctlapi.Group) {
		all, err := p.api.Groups(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range all {
			if g.Group == id {
				return g
			}
		}
		return g
	}
	if g := state(sick.ID()); g.Limit != 7 || g.State != ctlapi.StatePinned || g.By != "operator:ann" || !g.Since.Equal(d.Time) || !g.Until.IsZero() {
		t.Errorf("group: %+v", g)
	}
	if d, err = p.api.Lift(t.Context(), sick.ID(), byHand); err != nil || d.Action != decide.Lift || d.Requests != 7 {
		t.Fatalf("lifted: %+v, %v", d, err)
	}
	p.status("the plan before", func(s ctlapi.Status) bool { return acked(s) && s.Version == before.Version })
	if g := state(sick.ID()); g.Limit != 0 || g.State != ctlapi.StatePinned || g.Pool != g.Home {
		t.Errorf("group afterwards: %+v", g)
	}
	var refused *protocol.Error
	if _, err := p.api.Lift(t.Context(), sick.ID(), byHand); !errors.As(err, &refused) || refused.Code != protocol.CodeNotFound || refused.Field != "group" {
		t.Errorf("lifted twice: %v", err)
	}
}
