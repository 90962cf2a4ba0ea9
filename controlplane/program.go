package controlplane

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tracegate/tracegate/controlplane/ctl"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/durable"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/placement"
	"github.com/tracegate/tracegate/observability/semconv"
)

// wish is what the operator's files say. Both are nil until they were valid once.
type wish struct {
	policy                  *policy.Policy
	endpoints               *policy.Endpoints
	rawPolicy, rawEndpoints []byte
}

func (w wish) complete() bool { return w.policy != nil && w.endpoints != nil }

func (w wish) home(c group.Color) string {
	if pool := w.policy.Homes()[c]; pool != "" {
		return pool
	}
	return semconv.PoolBaseline
}

func (w wish) cohort(c group.Color) string {
	for _, co := range w.policy.Color.Cohorts {
		if policy.ColorOf(co) == c {
			return co.Name
		}
	}
	return ""
}

// programming is a plan that edges were given.
type programming struct {
	wish      wish
	snapshot  *xds.Snapshot
	placement placement.Placement // without version
	decisions []decide.Decision   // that it carries
	retired   []string            // services that are gone
	since     time.Time
	late      bool     // published although not everyone answered
	waiting   []string // edges that have not acknowledged
}

// effective is the wish that plans are made of: each document as the operator
// wants it, or the last good one where edges refused it or it was never valid.
func (l *loop) effective() wish {
	w := l.wanted
	if l.good == nil {
		return w
	}
	if w.policy == nil || l.bad.rawPolicy != nil {
		w.policy, w.rawPolicy = l.good.wish.policy, l.good.wish.rawPolicy
	}
	if w.endpoints == nil || l.bad.rawEndpoints != nil {
		w.endpoints, w.rawEndpoints = l.good.wish.endpoints, l.good.wish.rawEndpoints
	}
	return w
}

// untilPin is how long until a pin that the last plan holds ends; an hour where
// none does.
func (l *loop) untilPin(now time.Time) time.Duration {
	const seldom = time.Hour
	if l.pinEnd.IsZero() {
		return seldom
	}
	return min(l.pinEnd.Sub(now), seldom)
}

// program gives edges a plan of the effective wish and the present moves. What
// makes no plan changes nothing.
func (l *loop) program(now time.Time, ds []decide.Decision) {
	w := l.effective()
	if !w.complete() {
		return
	}
	pol, end := w.policy.At(now)
	l.pinEnd = end
	p, snapshot, err := l.render(pol, *w.endpoints)
	if err != nil {
		l.refused = err.Error()
		l.metrics.programmed.WithLabelValues("refused").Inc()
		l.log.Warn("no plan, the one before goes on", "error", err)
		return
	}
	l.refused = ""
	next := &programming{wish: w, snapshot: snapshot, placement: p.Placement(0), decisions: ds, retired: p.Retired, since: now}
	if l.pending != nil {
		next.decisions = append(slices.Clone(l.pending.decisions), ds...)
	}
	l.pending = next
	l.metrics.isolated.Set(float64(len(p.Moves)))
	l.board.Write(func(v *ctl.View) {
		v.Basis = &ctl.Basis{Document: w.rawPolicy, Endpoints: *w.endpoints, Plan: p, Snapshot: snapshot}
	})
	l.edges.Set(snapshot)
	l.settle(now, false)
}

func (l *loop) render(pol policy.Policy, e policy.Endpoints) (plan.Plan, *xds.Snapshot, error) {
	p, err := plan.Build(pol, e, l.state.Moves(), l.cfg.Edge)
	if err != nil {
		return p, nil, fmt.Errorf("plan: %w", err)
	}
	names := serviceNames(pol)
	p.Retired = retire(l.retired, l.services, names)
	snapshot, err := l.builder.Build(p)
	if err != nil {
		return p, nil, fmt.Errorf("render plan: %w", err)
	}
	l.services, l.retired = names, p.Retired
	return p, snapshot, nil
}

func serviceNames(p policy.Policy) []string {
	var out []string
	for _, s := range p.Services {
		out = append(out, s.Name)
	}
	return out
}

// maxRetired bounds how many services that are gone edges are told of. An edge that
// was away while more of them went refuses new routes until it is started again.
const maxRetired = 64

// retire is which services are gone, the last to go last.
func retire(retired, before, now []string) []string {
	out := slices.Clone(retired)
	for _, name := range before {
		if !slices.Contains(now, name) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	out = slices.DeleteFunc(out, func(name string) bool { return slices.Contains(now, name) })
	return out[max(0, len(out)-maxRetired):]
}

// settle looks at what edges answered to the pending plan. Everyone acknowledged:
// it is the last good one, and the placement is published. Someone refused: back
// to the last good wish. Time is up: the placement is published without those who
// did not answer.
func (l *loop) settle(now time.Time, timeIsUp bool) {
	p := l.pending
	if p == nil {
		return
	}
	connected := 0
	p.waiting = nil
	for _, e := range l.edges.Edges() {
		if !e.Connected {
			continue
		}
		connected++
		if e.InSync && e.Version == p.snapshot.Version {
			continue
		}
		if nack, ok := e.Rejected(p.snapshot.Version); ok && l.reject(p, e.ID, nack) {
			return
		}
		p.waiting = append(p.waiting, e.ID)
	}
	switch {
	case connected > 0 && len(p.waiting) == 0:
		l.acknowledged(p, now)
	case timeIsUp && !p.late:
		p.late = true
		l.metrics.programmed.WithLabelValues("late").Inc()
		l.log.Warn("edges have not acknowledged in time", "version", p.snapshot.Version, "waiting", p.waiting, "connected", connected)
		l.publish(p, now)
	}
}

// reject goes back to the last good policy, or where that is in use already, to
// the last good endpoints. Where both are, the server goes on offering, and ok is
// false.
func (l *loop) reject(p *programming, edge string, n server.Nack) (ok bool) {
	if l.rejection == nil || l.rejection.Version != n.Version {
		l.metrics.programmed.WithLabelValues("rejected").Inc()
		l.rejection = &ctlapi.Rejection{Version: n.Version, Edge: edge, Nack: wireNack(n), Time: n.Time}
	}
	switch {
	case l.good == nil || !l.good.wish.complete():
		return false
	case !bytes.Equal(l.good.wish.rawPolicy, p.wish.rawPolicy):
		l.bad.rawPolicy = p.wish.rawPolicy
		l.remember(l.history.Refused(p.wish.rawPolicy, fmt.Sprintf("edge %s refused %s %s: %s", edge, n.Type, n.Resource, n.Reason)))
	case !bytes.Equal(l.good.wish.rawEndpoints, p.wish.rawEndpoints):
		l.bad.rawEndpoints = p.wish.rawEndpoints
	default:
		return false
	}
	l.log.Error("edge refused the configuration, back to the last good one",
		"edge", edge, "type", n.Type.String(), "resource", n.Resource, "reason", n.Reason)
	l.program(time.Now(), nil)
	return true
}

func (l *loop) acknowledged(p *programming, now time.Time) {
	if l.good == nil || !bytes.Equal(l.good.wish.rawPolicy, p.wish.rawPolicy) {
		l.remember(l.history.InForce(p.wish.rawPolicy, now))
	}
	l.pending, l.good = nil, p
	if l.rejection != nil && l.rejection.Version == p.snapshot.Version {
		l.rejection = nil // a retry was accepted
	}
	l.metrics.programmed.WithLabelValues("acked").Inc()
	l.metrics.programming.Observe(now.Sub(p.since).Seconds())
	l.publish(p, now)
	traceProgrammed(l.tracer, p, now)
	for _, d := range p.decisions {
		d.Programmed, d.Version = now, p.snapshot.Version
		l.amend(d)
		if d.Action == decide.Isolate && d.Service != "" && len(d.Causes) == 0 && len(l.unexplained) < maxUnexplained {
			l.unexplained = append(l.unexplained, d)
		}
		if d.Action == decide.Isolate && d.By == decide.ByPolicy && p.wish.policy != nil {
			l.whys.ask(d, p.wish.policy.Decide)
		}
		l.log.Info("programmed", semconv.Group, string(d.Group), "pool", d.ToPool, "version", d.Version, "after", now.Sub(d.Time).Round(time.Millisecond))
	}
	p.decisions = nil
	if err := l.saveGood(p); err != nil {
		l.metrics.durable.WithLabelValues(goodFile).Inc()
		l.log.Error("last good configuration cannot be kept", "error", err)
	}
}

// amend keeps and shows what became known of a decision after it was taken. The
// decision itself is in the journal; a write that fails loses the addition only.
func (l *loop) amend(d decide.Decision) {
	if err := l.journal.Append(d); err != nil {
		l.metrics.durable.WithLabelValues(journalFile).Inc()
	}
	l.recorder.add(d)
	l.board.Record(d)
}

// publish makes a placement public if it says something new.
func (l *loop) publish(p *programming, now time.Time) {
	if v, _ := l.board.Read(); v.Placement != nil && same(*v.Placement, p.placement) {
		return
	}
	// The clock keeps versions growing when the state file was lost.
	l.placementVersion = max(l.placementVersion+1, now.UnixMilli())
	out := p.placement
	out.Version = l.placementVersion
	l.board.Write(func(v *ctl.View) { v.Placement = &out })
}

func same(a, b placement.Placement) bool {
	return maps.Equal(a.Cohorts, b.Cohorts) && maps.Equal(a.Groups, b.Groups)
}

// savedGood is the last good file: the resources as edges acknowledged them, and
// the documents they were made of.
type savedGood struct {
	Version   string              `json:"version"`
	Resources []savedResource     `json:"resources"`
	Policy    []byte              `json:"policy"`
	Endpoints []byte              `json:"endpoints"`
	Placement placement.Placement `json:"placement"`
	Retired   []string            `json:"retired,omitempty"` // services, as in plan.Plan
}

type savedResource struct {
	Type  string `json:"type"` // type URL of the discovery service
	Name  string `json:"name"`
	Of    string `json:"of"` // type URL of Value
	Value []byte `json:"value"`
}

func (l *loop) saveGood(p *programming) error {
	out := savedGood{Version: p.snapshot.Version, Policy: p.wish.rawPolicy, Endpoints: p.wish.rawEndpoints, Placement: p.placement, Retired: p.retired}
	out.Placement.Version = l.placementVersion
	for i, rs := range p.snapshot.Resources {
		for _, r := range rs {
			out.Resources = append(out.Resources, savedResource{Type: xds.Type(i).URL(), Name: r.Name, Of: r.Body.GetTypeUrl(), Value: r.Body.GetValue()})
		}
	}
	return durable.Save(l.path(goodFile), out)
}

// loadGood serves what the last run ended with. A file that cannot be used is as
// good as none: the sources come next.
func (l *loop) loadGood() {
	var s savedGood
	if err := durable.Load(l.path(goodFile), &s); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			l.log.Error("last good configuration is lost", "error", err)
		}
		return
	}
	var resources [xds.NumTypes][]xds.Resource
	for _, r := range s.Resources {
		t, ok := xds.TypeOf(r.Type)
		if !ok {
			continue // of a newer program
		}
		body := &anypb.Any{TypeUrl: r.Of, Value: r.Value}
		resources[t] = append(resources[t], xds.Resource{Name: r.Name, Version: xds.VersionOf(body), Body: body})
	}
	g := &programming{snapshot: xds.NewSnapshot(resources), placement: s.Placement, retired: s.Retired, since: time.Now()}
	g.wish = parseWish(s.Policy, s.Endpoints)
	l.good = g
	if l.retired = s.Retired; g.wish.policy != nil {
		l.services = serviceNames(*g.wish.policy)
	}
	l.placementVersion = max(l.placementVersion, s.Placement.Version)
	l.edges.Set(g.snapshot)
	l.board.Write(func(v *ctl.View) { v.Placement = &s.Placement })
	l.log.Info("serving the last good configuration", "version", g.snapshot.Version)
}

// parseWish is incomplete where this program no longer takes what an earlier one did.
func parseWish(rawPolicy, rawEndpoints []byte) wish {
	p, err1 := policy.Parse(rawPolicy)
	e, err2 := policy.ParseEndpoints(rawEndpoints)
	if err1 != nil || err2 != nil {
		return wish{}
	}
	return wish{policy: &p, endpoints: &e, rawPolicy: rawPolicy, rawEndpoints: rawEndpoints}
}
