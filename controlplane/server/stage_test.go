package server_test

import (
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/controlplane/server/servertest"
	"github.com/tracegate/tracegate/controlplane/xds"
)

// versions waits until each edge is in sync with the snapshot that it should have.
func (c chain) versions(want map[string]*xds.Snapshot) {
	c.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		in := 0
		for _, e := range c.Edges() {
			if s := want[e.ID]; s != nil && e.Connected && e.InSync && e.Version == s.Version {
				in++
			}
		}
		if in == len(want) {
			return
		}
		select {
		case <-c.Changed():
		case <-deadline:
			c.t.Fatalf("edges: %+v", c.Edges())
		}
	}
}

// TestStage gives one edge another snapshot than the rest: it alone gets it, keeps it
// over a new connection without having seen the others' in between, and comes back.
func TestStage(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	named := func(name string) *xds.Snapshot {
		return snapshot(t, func(p *plan.Plan) { p.Services[0].Routes[0].Name = name })
	}
	all, staged := named("all"), named("staged")
	c.Set(all)
	a := servertest.Connect(t, c.addr, servertest.Options{ID: "a"})
	b := servertest.Connect(t, c.addr, servertest.Options{ID: "b"})
	expect(t, a, first...)
	expect(t, b, first...)
	c.versions(map[string]*xds.Snapshot{"a": all, "b": all})

	c.Stage(staged, "a")
	expect(t, a, "rds +edge")
	c.versions(map[string]*xds.Snapshot{"a": staged, "b": all})

	// A change of all is none of the one, and the other way round.
	moved, both := named("moved"), named("staged and moved")
	c.Set(moved)
	expect(t, b, "rds +edge")
	c.versions(map[string]*xds.Snapshot{"a": staged, "b": moved})
	c.Stage(both, "a")
	expect(t, a, "rds +edge")
	c.versions(map[string]*xds.Snapshot{"a": both, "b": moved})

	has := a.Has()
	a.Close()
	<-a.Ended
	c.wait("gone", func(e server.Edge) bool { return !e.Connected })
	a = servertest.Connect(t, c.addr, servertest.Options{ID: "a", Has: has})
	c.versions(map[string]*xds.Snapshot{"a": both, "b": moved})

	c.Stage(nil, "")
	expect(t, a, "rds +edge") // the first response of the new connection
	c.versions(map[string]*xds.Snapshot{"a": moved, "b": moved})
	if len(b.Events) > 0 {
		t.Errorf("the other edge got %+v", <-b.Events)
	}
}

// TestStageOfAll ends a stage by giving all what the one has: it is told nothing.
func TestStageOfAll(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	all, staged := snapshot(t, nil), snapshot(t, func(p *plan.Plan) { p.Services[0].Routes[0].Name = "staged" })
	c.Set(all)
	c.Stage(staged, "a") // before it has come
	a := servertest.Connect(t, c.addr, servertest.Options{ID: "a"})
	expect(t, a, first...)
	c.versions(map[string]*xds.Snapshot{"a": staged})
	c.Set(snapshot(t, func(p *plan.Plan) { p.Services[0].Routes[0].Name = "staged" }))
	c.Stage(nil, "")
	last := snapshot(t, func(p *plan.Plan) { p.Services[0].Routes[0].Name, p.Edge.JWKS = "staged", `{"keys":[]}` })
	c.Set(last)
	expect(t, a, "ecds +jwt") // and nothing before it
	c.versions(map[string]*xds.Snapshot{"a": last})
}
