// Package placement says which pool serves which group: the one answer that the
// routes of the edge, the sockets of core and the console must share.
//
// It is pure. The control plane publishes a Placement once every connected edge
// has acknowledged the routes that carry it; core moves sockets by it.
package placement

import (
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
}

// Pool is the pool of g: its own move first, then its cohort's pool, else baseline.
func (p Placement) Pool(g group.Group) string {
	if pool, ok := p.Groups[g.ID()]; ok {
		return pool
	}
	if pool, ok := p.Cohorts[g.Color.String()]; ok && pool != "" {
		return pool
	}
	return semconv.PoolBaseline
}
