// Package placement says which pool serves which group: the one answer that the
// routes of the edge, the sockets of core and the console must share.
//
// It is pure. The control plane publishes a Placement once every connected edge
// has acknowledged the routes that carry it; core moves sockets by it.
package placement

import (
	"slices"
	"strconv"
	"strings"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// Placement is a whole state, never a difference: a reader that missed any number
// of versions is right again with the next one it gets.
type Placement struct {
	// Version grows with every published state; readers ignore older ones.
	Version int64 `json:"version"`
	// Cohorts maps a color to the pool that its policy names.
	Cohorts map[string]string `json:"cohorts"`
	// Groups maps a group id to the pool that a decision or a person moved it to.
	Groups map[group.ID]string `json:"groups"`
	// Edges maps an edge's id to the generation of its Envoy that serves: sockets that
	// came by an earlier one should come back before that ends.
	Edges map[string]int64 `json:"edges,omitempty"`
	// Home is, of groups in Groups that are released step by step, the share of users, in
	// percent, who are where they would be without the move.
	Home map[group.ID]uint32 `json:"home,omitempty"`
	// Draining are instances, by address, that get no new requests: sockets that are open
	// there should come back.
	Draining []string `json:"draining,omitempty"`
}

// Via is how an Envoy names itself in requests (semconv.HeaderEdge).
func Via(edge string, generation int64) string {
	return edge + "/" + strconv.FormatInt(generation, 10)
}

// Superseded says whether another Envoy has taken over from the one that via names. It
// says no where via names none.
func (p Placement) Superseded(via string) bool {
	i := strings.LastIndexByte(via, '/')
	if i < 0 || len(p.Edges) == 0 {
		return false
	}
	generation, err := strconv.ParseInt(via[i+1:], 10, 64)
	return err == nil && generation < p.Edges[via[:i]]
}

// Drains says whether the instance at an address is to be left.
func (p Placement) Drains(addr string) bool { return slices.Contains(p.Draining, addr) }

// Pool is the pool of g: its own move first, then its cohort's pool, else baseline.
func (p Placement) Pool(g group.Group) string {
	if pool, ok := p.Groups[g.ID()]; ok {
		return pool
	}
	return p.home(g)
}

// PoolOf is the pool of one user of g, who may be back before the others. An unknown user
// ("") comes with the last of them.
func (p Placement) PoolOf(g group.Group, user string) string {
	id := g.ID()
	if home := p.Home[id]; home > 0 && user != "" && group.Place(id, user) < home {
		return p.home(g)
	}
	return p.Pool(g)
}

// home is the pool of a group that is not moved.
func (p Placement) home(g group.Group) string {
	if pool, ok := p.Cohorts[g.Color.String()]; ok && pool != "" {
		return pool
	}
	return semconv.PoolBaseline
}
