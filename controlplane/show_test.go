package controlplane

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
)

// TestARefusalStaysWithWhoRefused: the edge is in sync with what it was given instead, and
// what is wanted is refused still.
func TestARefusalStaysWithWhoRefused(t *testing.T) {
	t.Parallel()
	at := time.Now()
	synced := func(typ string) ctlapi.TypeState {
		return ctlapi.TypeState{Type: typ, State: ctlapi.TypeSynced, Since: at}
	}
	gone := ctlapi.TypeState{Type: "rds", State: ctlapi.TypeStale, Since: at, Reason: "not connected"}
	edges := []ctlapi.Edge{
		{ID: "a", Connected: true, Types: []ctlapi.TypeState{synced("lds"), synced("rds")}},
		{ID: "b", Connected: true, Types: []ctlapi.TypeState{synced("lds"), synced("rds")}},
		{ID: "c", Types: []ctlapi.TypeState{gone}},
	}
	for _, id := range []string{"a", "c"} {
		blameEdge(edges, ctlapi.Rejection{Edge: id, Time: at.Add(time.Second), Nack: ctlapi.Nack{Type: "rds", Reason: "no"}})
	}
	nacked := ctlapi.TypeState{Type: "rds", State: ctlapi.TypeNacked, Since: at.Add(time.Second), Reason: "no"}
	want := [][]ctlapi.TypeState{{synced("lds"), nacked}, {synced("lds"), synced("rds")}, {gone}}
	for i, e := range edges {
		if diff := cmp.Diff(want[i], e.Types); diff != "" {
			t.Errorf("edge %s (-want +got):\n%s", e.ID, diff)
		}
	}
}

// TestStateOf tells a person's word from policy's, and a limit from a place.
func TestStateOf(t *testing.T) {
	t.Parallel()
	const home, away = "canary", "isolated"
	for want, states := range map[string][]decide.GroupState{
		ctlapi.StateHome:      {{}},
		ctlapi.StateLimited:   {{Shed: 7}},
		ctlapi.StatePinned:    {{Manual: true}, {Manual: true, Pool: home}, {Shed: 7, ShedBy: "ann"}, {Shed: 7, ShedBy: "ann", Manual: true}},
		ctlapi.StateForced:    {{Manual: true, Pool: away}, {Manual: true, Pool: away, Shed: 7, ShedBy: "ann"}},
		ctlapi.StateIsolated:  {{Pool: away}, {Pool: away, Shed: 7, ShedBy: "ann"}},
		ctlapi.StateReturning: {{Pool: away, Share: 10}, {Pool: away, Share: 10, Shed: 7, ShedBy: "ann"}},
	} {
		for _, g := range states {
			if got := stateOf(g, home); got != want {
				t.Errorf("%+v: %s, want %s", g, got, want)
			}
		}
	}
}
