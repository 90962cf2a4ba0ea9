package session

import (
	"slices"
	"strings"

	"go.opentelemetry.io/otel/baggage"

	"github.com/tracegate/tracegate/mesh/group"
)

// origin is what connections of one group and tenant with the same baggage, by the same
// Envoy to the same address, have in common. Each would else keep some 700 bytes of parsed baggage for itself.
type origin struct {
	key     string
	tenant  string // of the user
	group   group.Group
	id      group.ID
	edge    string          // see Who
	address string          // see Who
	baggage baggage.Baggage // travels with every command
	conns   int             // that have it; guarded by the hub's mu
}

func newOrigin(who Who) *origin {
	key := make([]string, 0, 8)
	for _, m := range who.Baggage.Members() {
		key = append(key, m.String())
	}
	slices.Sort(key) // they come in any order
	key = append(key, who.Group.Color.String(), who.Group.Env, who.Group.Tenant, who.User.Tenant, who.Edge, who.Address)
	return &origin{
		key:    strings.Join(key, ","),
		tenant: who.User.Tenant, group: who.Group, id: who.Group.ID(), edge: who.Edge, address: who.Address, baggage: who.Baggage,
	}
}

// share returns the origin that is there already for o's key, or o; mu is held.
func (h *Hub) share(o *origin) *origin {
	if known := h.origins[o.key]; known != nil {
		o = known
	} else {
		h.origins[o.key] = o
	}
	o.conns++
	return o
}

// unshare forgets an origin with its last connection; mu is held.
func (h *Hub) unshare(o *origin) {
	if o.conns--; o.conns == 0 {
		delete(h.origins, o.key)
	}
}
