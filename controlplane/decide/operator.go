package decide

import (
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// Order is what an operator asks for.
type Order struct {
	Group  group.Group
	Home   string // the group's own pool
	By     string
	Reason string
	For    time.Duration // zero: until the operator's next word
	Now    time.Time
}

// ReleaseFor is how long a group that an operator released is left alone where
// they did not say.
const ReleaseFor = time.Minute

// Isolate carries out an operator's order, whatever policy thinks of it, and keeps
// policy from undoing it.
func (s State) Isolate(o Order) (Decision, State) {
	return s.order(o, Isolate, semconv.PoolIsolated)
}

// Release sends a group home, whoever moved it.
func (s State) Release(o Order) (Decision, State) {
	if o.For == 0 {
		o.For = ReleaseFor
	}
	return s.order(o, Release, "")
}

func (s State) order(o Order, action Action, pool string) (Decision, State) {
	out, id := s.clone(), o.Group.ID()
	g := out.Groups[id]
	from, to := g.Pool, pool
	if from == "" {
		from = o.Home
	}
	if to == "" {
		to = o.Home
	}
	out.Groups[id] = GroupState{
		Color: o.Group.Color, Env: o.Group.Env, Tenant: o.Group.Tenant,
		Pool: pool, Since: o.Now, By: o.By, Manual: true, Until: until(o), Seen: g.Seen,
	}
	return Decision{
		Time: o.Now, Action: action, Group: id, Color: o.Group.Color, Env: o.Group.Env, Tenant: o.Group.Tenant,
		FromPool: from, ToPool: to, Reason: o.Reason, By: o.By,
	}, out
}

func until(o Order) time.Time {
	if o.For == 0 {
		return time.Time{}
	}
	return o.Now.Add(o.For)
}
