package controlplane

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"

	"github.com/tracegate/tracegate/controlplane/ctl"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/durable"
	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// show puts the present state on the board.
func (l *loop) show() {
	status, groups := l.status(), l.groups()
	ready := l.good != nil || l.pending != nil
	shown, handed := l.live.show(), l.live.documents()
	l.board.Write(func(v *ctl.View) {
		v.Ready, v.Status, v.Groups, v.Settings, v.Handed = ready, status, groups, shown, handed
	})
}

func (l *loop) status() ctlapi.Status {
	s := ctlapi.Status{
		Edges:           []ctlapi.Edge{},
		Clients:         l.showClients(),
		Trial:           l.showTrial(),
		Sources:         maps.Clone(l.sources),
		Rejected:        l.rejection,
		Quarantined:     l.quarantined(),
		LastGoodProblem: l.goodLost,
		TelemetryStale:  l.stale != "",
		TelemetryReason: l.stale,
		Telemetry:       l.telemetry(),
		Saturation:      l.last.saturation,
		NotDurable:      l.notDurable,
		Unsaved:         l.recorder.unsaved(),
		Drains:          l.drains,
	}
	if u := l.undone; u.raw != nil {
		s.RolledBack = &u.why
	}
	if l.refused != "" {
		p := s.Sources["policy"]
		p.Error = cmp.Or(p.Error, l.refused)
		s.Sources["policy"] = p
	}
	if w := l.effective(); w.policy != nil {
		s.Mode = string(w.policy.Decide.Mode)
		l.keys.show(w.policy.JWT, s.Sources)
		if l.cfg.Edge.TLS.Listen != "" {
			l.certs.show(w.policy.TLS, s.Sources)
		}
	}
	if l.good != nil {
		s.Version, s.LastGood = l.good.snapshot.Version, l.good.snapshot.Version
	}
	if p := l.pending; p != nil {
		s.Version = p.snapshot.Version
		s.Programming = &ctlapi.Programming{Version: p.snapshot.Version, Since: p.since, Waiting: slices.Clone(p.waiting), Late: p.late}
	}
	for _, e := range l.edges.Edges() {
		s.Edges = append(s.Edges, wireEdge(e))
	}
	refused := s.Quarantined
	if len(refused) == 0 && s.Rejected != nil {
		refused = []ctlapi.Rejection{*s.Rejected}
	}
	for _, r := range refused {
		blameEdge(s.Edges, r)
	}
	return s
}

// blameEdge shows what an edge refused where it has been given something else since, with
// which it is in sync.
func blameEdge(edges []ctlapi.Edge, r ctlapi.Rejection) {
	for _, e := range edges {
		for i, t := range e.Types {
			if e.ID == r.Edge && e.Connected && t.Type == r.Nack.Type && t.State != ctlapi.TypeNacked {
				e.Types[i] = ctlapi.TypeState{Type: t.Type, State: ctlapi.TypeNacked, Since: r.Time, Reason: r.Nack.Reason}
			}
		}
	}
}

func wireEdge(e server.Edge) ctlapi.Edge {
	out := ctlapi.Edge{
		ID: e.ID, Connected: e.Connected, Since: e.Since, InSync: e.InSync,
		Acked: map[string]string{}, Nacks: []ctlapi.Nack{}, Types: []ctlapi.TypeState{},
	}
	for t, version := range e.Acked {
		out.Acked[t.URL()] = version
	}
	for _, n := range e.Nacks {
		out.Nacks = append(out.Nacks, wireNack(n))
	}
	for _, t := range e.Types {
		out.Types = append(out.Types, ctlapi.TypeState{Type: t.Type.String(), State: string(t.State), Since: t.Since, Reason: t.Reason})
	}
	return out
}

func wireNack(n server.Nack) ctlapi.Nack {
	return ctlapi.Nack{Type: n.Type.String(), Resource: n.Resource, Reason: n.Reason, Version: n.Version, Time: n.Time, Count: n.Count}
}

func (l *loop) groups() []ctlapi.Group {
	w := l.effective()
	if w.policy == nil {
		return nil
	}
	stats := map[group.ID][]sli.Stats{}
	for _, st := range l.last.short {
		stats[st.Group] = append(stats[st.Group], st)
	}
	out := make([]ctlapi.Group, 0, len(l.state.Groups))
	for _, id := range slices.Sorted(maps.Keys(l.state.Groups)) {
		g := l.state.Groups[id]
		home := w.home(g.Color)
		shown := ctlapi.Group{
			Group: id, Color: g.Color, Cohort: w.cohort(g.Color), Env: g.Env, Tenant: g.Tenant,
			Pool: cmp.Or(g.Pool, home), Home: home, State: stateOf(g, home),
			Since: g.Since, Until: g.Until, By: g.By, Bad: g.Bad, Held: g.Held, Share: g.Share, Limit: g.Shed,
			Stats: stats[id],
		}
		if limitedHome(g) {
			shown.Since, shown.Until, shown.By = g.ShedAt, g.ShedUntil, g.ShedBy
		}
		out = append(out, shown)
	}
	return out
}

// limitedHome says that an operator's limit is all that there is to say of where a group is.
func limitedHome(g decide.GroupState) bool { return g.ShedBy != "" && g.Pool == "" && !g.Manual }

func stateOf(g decide.GroupState, home string) string {
	switch {
	case g.Manual && g.Pool != "" && g.Pool != home:
		return ctlapi.StateForced
	case g.Manual, limitedHome(g):
		return ctlapi.StatePinned
	case g.Pool != "" && g.Share > 0:
		return ctlapi.StateReturning
	case g.Pool != "":
		return ctlapi.StateIsolated
	case g.Shed > 0:
		return ctlapi.StateLimited
	default:
		return ctlapi.StateHome
	}
}

// loadDecisions fills the board with what the journal and the state file have, and returns
// it, oldest first.
func (l *loop) loadDecisions() ([]decide.Decision, error) {
	byID := map[string]decide.Decision{}
	torn, err := durable.ReadJournal(l.path(journalFile), func(line []byte) error {
		var d decide.Decision
		if json.Unmarshal(line, &d) == nil && d.ID != "" {
			byID[d.ID] = d
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if torn > 0 {
		l.log.Warn("journal has torn lines", "lines", torn)
	}
	l.unjournaled = slices.DeleteFunc(l.unjournaled, func(d decide.Decision) bool { return byID[d.ID].ID != "" })
	for _, d := range l.unjournaled {
		byID[d.ID] = d
	}
	ds := slices.SortedFunc(maps.Values(byID), func(a, b decide.Decision) int { return cmp.Compare(a.ID, b.ID) })
	ds = ds[max(0, len(ds)-ctl.MaxDecisions):]
	l.board.Record(ds...)
	return ds, nil
}

// telemetry says what is known of the traffic.
func (l *loop) telemetry() string {
	switch {
	case l.stale != "":
		return ctlapi.TelemetryNoData
	case l.quiet:
		return ctlapi.TelemetryNoTraffic
	}
	return ctlapi.TelemetryFresh
}
