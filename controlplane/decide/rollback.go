package decide

import (
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// changed says whether an update of the configuration is why a group is bad: it came into
// force within RollbackWithin and can touch the service, the group was well until then,
// and no service that it cannot touch is bad too. Taking it back is a smaller step than
// moving the group, and helps all that suffer from it.
func (e *evaluation) changed(id group.ID, g GroupState, f finding) bool {
	c := e.Change
	if c == nil || !c.Services[f.stats.Service] || c.Revision.From == 0 && c.Revision.Settings == "" || !c.At.After(e.state.RolledBack) {
		return false
	}
	if age := e.Now.Sub(c.At); age < 0 || age > e.RollbackWithin {
		return false
	}
	before, enough := e.measured(byGroup(c.Before)[id], f.stats.Service, e.home(g.Color))
	if !enough || e.breaks(before, 1) {
		return false
	}
	for _, st := range e.Short {
		if st.Service == "" || c.Services[st.Service] {
			continue
		}
		others := merge(e.Short, func(o sli.Stats) bool { return o.Service == st.Service })
		if others.Requests >= e.MinRequests && e.breaks(others, 1) {
			return false
		}
	}
	return true
}

// justRolledBack says that what an update had done may still be in the windows.
func (e *evaluation) justRolledBack() bool {
	return !e.state.RolledBack.IsZero() && e.Now.Sub(e.state.RolledBack) < e.Cooldown
}
