package controlplane

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tracegate/tracegate/controlplane/ctl"
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
	before    string         // version of the plan that edges had
	late      bool           // published although not everyone answered
	waiting   []string       // edges that have not acknowledged
	held      bool           // some of it is in quarantine
	effective *policy.Policy // wish.policy without what is
}

// effective is the wish that the plans of all edges are made of: the one that is due, but
// for a policy that is on trial, which one edge has and the others have not.
func (l *loop) effective() wish {
	w := l.due()
	if t := l.trial; t != nil {
		w.policy, w.rawPolicy = t.to.policy, t.to.rawPolicy
	}
	if w.endpoints != nil {
		e := *w.endpoints
		e.Draining = draining(l.drains)
		w.endpoints = &e
	}
	return w
}

// due is what should be in force: each document as the operator wants it, or the last good
// one where edges refused it or it was never valid.
func (l *loop) due() wish {
	w := l.wanted
	if u := l.undone; u.raw != nil && bytes.Equal(w.rawPolicy, u.raw) {
		w.policy, w.rawPolicy = u.to.policy, u.to.rawPolicy
	}
	if l.good == nil {
		return w
	}
	if w.policy == nil || l.bad.rawPolicy != nil && bytes.Equal(w.rawPolicy, l.bad.rawPolicy) {
		w.policy, w.rawPolicy = l.good.wish.policy, l.good.wish.rawPolicy
	}
	if w.endpoints == nil || l.bad.rawEndpoints != nil {
		w.endpoints, w.rawEndpoints = l.good.wish.endpoints, l.good.wish.rawEndpoints
	}
	return w
}

// isolatable are the services whose isolated pool has an instance: moving a group to one
// that has none would leave it where it is.
func (w wish) isolatable() map[string]bool {
	out := w.policy.Isolatable()
	for service := range out {
		if w.endpoints != nil && len(inRotation(*w.endpoints, service, semconv.PoolIsolated)) == 0 {
			delete(out, service)
		}
	}
	return out
}

// hasPool says whether a service has the pool.
func (w wish) hasPool(name string) bool {
	return slices.ContainsFunc(w.policy.Services, func(s policy.Service) bool {
		return slices.ContainsFunc(s.Pools, func(p policy.Pool) bool { return p.Name == name })
	})
}

// untilPin is how long until a pin that the last plan holds ends, a drain, a quarantine, the time of a
// trial, or the wait for causes; an hour where none does.
func (l *loop) untilPin(now time.Time) time.Duration {
	wait := time.Hour
	for _, end := range []time.Time{l.pinEnd, l.nextRetry(), l.trial.nextLook(l.cfg.Trial, now), l.nextTold(), nextDrainEnd(l.drains)} {
		if !end.IsZero() {
			wait = min(wait, end.Sub(now))
		}
	}
	return wait
}

// program gives edges a plan of the effective wish and the present moves. What
// makes no plan changes nothing.
func (l *loop) program(now time.Time, ds []decide.Decision) {
	l.startTrial(now)
	w := l.effective()
	if !w.complete() {
		return
	}
	l.release(*w.policy, now)
	effective := l.withoutHeld(*w.policy)
	pol, end := effective.At(now)
	l.pinEnd = end
	p, snapshot, err := l.renderer.render(pol, *w.endpoints, l.placed(), l.edge())
	if err != nil {
		l.noPlan(err)
		return
	}
	l.refused = ""
	snapshot, held := l.quarantine(snapshot, now)
	l.metrics.quarantined.Set(float64(len(held) + len(l.held)))
	next := &programming{held: len(held)+len(l.held) > 0, effective: &effective, wish: w, snapshot: snapshot, placement: p.Placement(0), decisions: ds, retired: p.Retired, since: now}
	if l.pending != nil {
		next.decisions = append(slices.Clone(l.pending.decisions), ds...)
	}
	if l.good != nil {
		next.before = l.good.snapshot.Version
	}
	l.noteUpdate(w, l.last.long, now)
	l.pending = next
	l.metrics.isolated.Set(float64(l.away(w, p.Moves)))
	l.metrics.limited.Set(float64(len(p.Sheds)))
	l.board.Write(func(v *ctl.View) {
		v.Basis = &ctl.Basis{Document: w.rawPolicy, Endpoints: *w.endpoints, Plan: p, Snapshot: snapshot}
	})
	l.edges.Set(snapshot)
	l.stage(now)
	l.clients.plan = &p
	l.serveClients()
	l.settle(now, false)
}

// placed is where groups are, and what they may ask for.
func (l *loop) placed() plan.Groups {
	return plan.Groups{Pools: l.state.Moves(), Home: l.state.Home(), Sheds: l.state.Sheds()}
}

// away counts the groups that are moved; one that is pinned to its home is not.
func (l *loop) away(w wish, moves []plan.Move) (n int) {
	for _, m := range moves {
		if m.Pool != w.home(l.state.Groups[m.Group].Color) {
			n++
		}
	}
	return n
}

func (l *loop) noPlan(err error) {
	l.refused = err.Error()
	l.metrics.programmed.WithLabelValues("refused").Inc()
	l.log.Warn("no plan, the one before goes on", "error", err)
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
		if e.InSync && (e.Version == p.snapshot.Version || l.trial.has(e)) {
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

// sought says that which of several resources is at fault is still looked for: they are
// offered again one by one.
func sought(n server.Nack) bool { return n.Type == xds.VirtualHosts && len(n.Names) > 1 }

// reject goes back to the last good policy, or where that is in use already, to
// the last good endpoints. Where both are, the server goes on offering, and ok is
// false.
func (l *loop) reject(p *programming, edge string, n server.Nack) (ok bool) {
	if sought(n) {
		return false
	}
	if l.rejection == nil || l.rejection.Version != n.Version {
		l.metrics.programmed.WithLabelValues("rejected").Inc()
		r := l.rejected(p, edge, n, "")
		l.rejection = &r
	}
	switch {
	case l.holdRules(p, edge, n, time.Now()):
		return true
	case l.confine(p, edge, n, time.Now()):
		return true
	case l.good == nil || !l.good.wish.complete():
		return false
	case !bytes.Equal(l.good.wish.rawPolicy, p.wish.rawPolicy):
		l.bad.rawPolicy = p.wish.rawPolicy
		l.trial.backTo(l.good.wish)
		l.remember(l.history.Refused(p.wish.rawPolicy, why(*l.rejection)))
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
	l.remember(l.history.InForce(p.wish.rawPolicy, now, l.missing()))
	l.pending, l.good = nil, p
	if l.rejection != nil && l.rejection.Version == p.snapshot.Version {
		l.rejection = nil // a retry was accepted
	}
	l.metrics.programmed.WithLabelValues("acked").Inc()
	l.metrics.programming.Observe(now.Sub(p.since).Seconds())
	l.publish(p, now)
	traceProgrammed(l.tracer, p, now)
	for _, d := range p.decisions {
		d.Programmed, d.Version, d.VersionBefore = now, p.snapshot.Version, p.before
		if shown, ok := l.board.Decision(d.ID); ok {
			d.Room = shown.Room // its path may have become known meanwhile
		}
		if d.Action.Moves() && len(l.unmeasured) < maxUnmeasured {
			l.unmeasured = append(l.unmeasured, d)
		}
		l.amend(d)
		if d.Action == decide.Isolate && d.Service != "" && len(d.Causes) == 0 && len(l.unexplained) < maxUnexplained {
			l.unexplained = append(l.unexplained, d)
		}
		if d.Action == decide.Isolate {
			f := finding{d.ID, justBefore(d, l.changes())}
			l.addCauses(f, now)
			if l.whys.source == nil {
				l.answered(f)
			}
		}
		if d.Action == decide.Isolate && d.By == decide.ByPolicy && p.wish.policy != nil {
			l.whys.ask(d, p.wish.policy.Decide)
		}
		l.log.Info("programmed", semconv.Group, string(d.Group), "pool", d.ToPool, "version", d.Version, "after", now.Sub(d.Time).Round(time.Millisecond))
	}
	p.decisions = nil
	if err := l.saveGood(p); err != nil {
		l.metrics.durable.WithLabelValues(goodFolder).Inc()
		l.log.Error("last good configuration cannot be kept", "error", err)
		return
	}
	l.goodLost = ""
}

// missing says what of the policy is not in force; empty: all is.
func (l *loop) missing() string {
	var out []string
	for _, r := range l.quarantined() {
		out = append(out, why(r))
	}
	return strings.Join(out, "; ")
}

// amend keeps and shows what became known of a decision after it was taken. The
// decision itself is on disk; a write that fails loses the addition only.
func (l *loop) amend(d decide.Decision) {
	if i := slices.IndexFunc(l.unjournaled, func(u decide.Decision) bool { return u.ID == d.ID }); i >= 0 {
		l.unjournaled[i] = d
	} else if err := l.journal.Append(d); err != nil {
		l.metrics.durable.WithLabelValues(journalFile).Inc()
	}
	l.recorder.add(d)
	l.board.Record(d)
}

// publish makes a placement public if it says something new.
func (l *loop) publish(p *programming, now time.Time) {
	out := p.placement
	out.Edges = l.generations
	l.announce(out, now)
}

// maxGenerations bounds how many edges, those that are away included, are remembered.
const maxGenerations = 1024

// followEdges publishes which Envoy of an edge serves: one that has everything has taken
// over from the one before, whose sockets core then asks to come back.
func (l *loop) followEdges(now time.Time) {
	serving := l.edges.Serving()
	for id, generation := range l.generations { // one that is away may still have sockets of the one before
		if _, known := serving[id]; known || len(serving) < maxGenerations {
			serving[id] = max(serving[id], generation)
		}
	}
	if maps.Equal(serving, l.generations) {
		return
	}
	l.generations = serving
	if v, _ := l.board.Read(); v.Placement != nil {
		out := *v.Placement
		out.Edges = serving
		l.announce(out, now)
	}
}

func (l *loop) announce(out placement.Placement, now time.Time) {
	if v, _ := l.board.Read(); v.Placement != nil && same(*v.Placement, out) {
		return
	}
	// The clock keeps versions growing when the state file was lost.
	l.placementVersion = max(l.placementVersion+1, now.UnixMilli())
	out.Version = l.placementVersion
	l.board.Write(func(v *ctl.View) { v.Placement = &out })
}

func same(a, b placement.Placement) bool {
	return maps.Equal(a.Cohorts, b.Cohorts) && maps.Equal(a.Groups, b.Groups) && maps.Equal(a.Home, b.Home) && maps.Equal(a.Edges, b.Edges) && slices.Equal(a.Draining, b.Draining)
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
	Refusals  []savedRefusal      `json:"refusals,omitempty"`
	Held      []heldRule          `json:"held,omitempty"`
}

// edgeClass is the class of edges that get the same configuration: the cluster that
// their bootstrap names. There is one today.
const edgeClass = "edge"

func (l *loop) goodPath() string { return filepath.Join(l.cfg.Dir, goodFolder, edgeClass+".json") }

type savedResource struct {
	Type  string `json:"type"` // type URL of the discovery service
	Name  string `json:"name"`
	Of    string `json:"of"` // type URL of Value
	Value []byte `json:"value"`
}

func (l *loop) saveGood(p *programming) error {
	out := savedGood{Version: p.snapshot.Version, Policy: p.wish.rawPolicy, Endpoints: p.wish.rawEndpoints, Placement: p.placement, Retired: p.retired, Refusals: l.saveRefusals(), Held: slices.Collect(maps.Values(l.held))}
	out.Placement.Version = l.placementVersion
	for i, rs := range p.snapshot.Resources {
		if xds.Type(i) == xds.Secrets {
			continue // private keys: an edge keeps those it has, and their files are read at the start
		}
		for _, r := range rs {
			out.Resources = append(out.Resources, savedResource{Type: xds.Type(i).URL(), Name: r.Name, Of: r.Body.GetTypeUrl(), Value: r.Body.GetValue()})
		}
	}
	return durable.SaveSigned(l.goodPath(), l.key, out)
}

// loadGood serves what the last run ended with. A file that cannot be used, or that
// this control plane did not write, is as good as none: the sources come next.
func (l *loop) loadGood() error {
	if err := os.MkdirAll(filepath.Dir(l.goodPath()), 0o700); err != nil {
		return fmt.Errorf("create folder of last good configurations: %w", err)
	}
	var err error
	if l.key, err = durable.Key(cmp.Or(l.cfg.LastGoodKey, l.path(goodKey))); err != nil {
		return err
	}
	var s savedGood
	if err := durable.LoadSigned(l.goodPath(), l.key, &s); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			l.goodLost = err.Error()
			l.metrics.durable.WithLabelValues(goodFolder).Inc()
			l.log.Error("last good configuration is not used", "error", err)
		}
		return nil
	}
	l.serveGood(s)
	return nil
}

func (l *loop) serveGood(s savedGood) {
	var resources [xds.NumTypes][]xds.Resource
	for _, r := range s.Resources {
		t, ok := xds.TypeOf(r.Type)
		if !ok {
			continue // of a newer program
		}
		body := &anypb.Any{TypeUrl: r.Of, Value: r.Value}
		resources[t] = append(resources[t], xds.Resource{Name: r.Name, Version: xds.VersionOf(body), Body: body})
	}
	l.loadRefusals(s.Refusals)
	for _, h := range s.Held {
		l.held[h.Rule] = h
	}
	g := &programming{held: len(s.Refusals)+len(s.Held) > 0, snapshot: xds.NewSnapshot(resources), placement: s.Placement, retired: s.Retired, since: time.Now()}
	g.wish = parseWish(s.Policy, s.Endpoints)
	l.good = g
	if l.renderer.retired = s.Retired; g.wish.policy != nil {
		effective := l.withoutHeld(*g.wish.policy)
		g.effective = &effective
		l.renderer.services = serviceNames(*g.wish.policy)
	}
	l.servedOnTrial()
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
