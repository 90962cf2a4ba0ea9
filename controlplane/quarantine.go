package controlplane

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tracegate/tracegate/controlplane/blame"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/controlplane/xds"
)

// Quarantine. An edge refuses a resource, not a policy. What of the policy it is about is
// found by controlplane/blame: where that is a rule, the rule stays as it was (or away,
// where it is new), in all resources that it is a part of; else the resource does.
// Everything else of the policy goes out. A later version of the rule or resource is
// another one and is tried at once; the same one is tried again after
// [retryQuarantine], since an edge may have been upgraded.
//
// (Going back to the last good policy whole lost: one mistake among thousands of routes
// would keep all other changes of everybody else from the edges. It is still what
// happens where keeping a resource back is of no help.)

// retryQuarantine is after how long edges are asked again about the same version.
const retryQuarantine = 10 * time.Minute

// resourceID names a resource.
type resourceID struct {
	typ  xds.Type
	name string
}

// refusal is a version of a resource that is kept from edges.
type refusal struct {
	version string // empty: that it is removed
	retry   time.Time
	nack    ctlapi.Rejection
}

// quarantine puts what edges refused back to what it was in the last good
// configuration. held is what it found.
func (l *loop) quarantine(snap *xds.Snapshot, now time.Time) (_ *xds.Snapshot, held []resourceID) {
	for id, r := range l.refusals {
		have, ok := snap.Find(id.typ, id.name)
		if same := have.Version == r.version && (ok || r.version == ""); !same || now.After(r.retry) {
			delete(l.refusals, id)
		}
	}
	if len(l.refusals) == 0 || l.good == nil {
		return snap, nil
	}
	held = slices.SortedFunc(maps.Keys(l.refusals), func(a, b resourceID) int {
		return cmp.Or(cmp.Compare(a.typ, b.typ), strings.Compare(a.name, b.name))
	})
	return l.confined(snap, held), held
}

// withoutRefused is a snapshot of another plan, without what edges refused.
func (l *loop) withoutRefused(snap *xds.Snapshot) *xds.Snapshot {
	var held []resourceID
	for id, r := range l.refusals {
		if have, ok := snap.Find(id.typ, id.name); have.Version == r.version && (ok || r.version == "") {
			held = append(held, id)
		}
	}
	if len(held) == 0 {
		return snap
	}
	return l.confined(snap, held)
}

// confined is a snapshot with some resources as they are in the last good configuration.
func (l *loop) confined(snap *xds.Snapshot, held []resourceID) *xds.Snapshot {
	out := snap.Resources
	for _, id := range held {
		out = replace(out, id, l.good.snapshot)
		if id.typ == xds.Clusters { // Envoy asks for endpoints of clusters that it has
			if _, has := l.good.snapshot.Find(xds.Clusters, id.name); !has {
				out = replace(out, resourceID{xds.Endpoints, id.name}, l.good.snapshot)
			}
		}
	}
	return xds.NewSnapshot(out)
}

// replace takes a resource from another snapshot, or out where that has none.
func replace(in [xds.NumTypes][]xds.Resource, id resourceID, from *xds.Snapshot) [xds.NumTypes][]xds.Resource {
	rs := slices.DeleteFunc(slices.Clone(in[id.typ]), func(r xds.Resource) bool { return r.Name == id.name })
	if r, ok := from.Find(id.typ, id.name); ok {
		rs = append(rs, r)
	}
	in[id.typ] = rs
	return in
}

// heldRule is a version of a rule that is kept from edges.
type heldRule struct {
	Rule    blame.Rule       `json:"rule"`
	Digest  string           `json:"digest"`            // of the rule
	Instead *policy.Rule     `json:"instead,omitempty"` // what edges have of it
	Retry   time.Time        `json:"retry"`
	Nack    ctlapi.Rejection `json:"nack"`
}

func digestOf(r policy.Rule) string {
	text, err := json.Marshal(r)
	if err != nil {
		return "" // of no rule that was parsed: they are plain values
	}
	return ctlapi.DigestOf(text)
}

// withoutHeld is the policy with what stands for rules that are in quarantine.
func (l *loop) withoutHeld(p policy.Policy) policy.Policy {
	if len(l.held) == 0 {
		return p
	}
	p.Services = slices.Clone(p.Services)
	for i := range p.Services {
		s := &p.Services[i]
		var rules []policy.Rule
		for _, r := range s.Rules {
			h, ok := l.held[blame.Rule{Service: s.Name, Name: r.Name}]
			switch {
			case !ok || h.Digest != digestOf(r):
				rules = append(rules, r)
			case h.Instead != nil && servable(p, *h.Instead):
				rules = append(rules, *h.Instead)
			}
		}
		s.Rules = rules
	}
	return p
}

// servable says whether the policy still has the pools that an older rule names.
func servable(p policy.Policy, r policy.Rule) bool {
	i := slices.IndexFunc(p.Services, func(s policy.Service) bool { return s.Name == r.Service })
	if i < 0 {
		return false
	}
	var pools []string
	if r.Pool != "" {
		pools = append(pools, r.Pool)
	}
	if r.Mirror != nil {
		pools = append(pools, r.Mirror.Pool)
	}
	if r.Canary != nil {
		for _, c := range r.Canary.Pools {
			pools = append(pools, c.Pool)
		}
	}
	return !slices.ContainsFunc(pools, func(name string) bool {
		return !slices.ContainsFunc(p.Services[i].Pools, func(p policy.Pool) bool { return p.Name == name })
	})
}

// release ends quarantines of rules that are not in the policy any more, or whose time
// is up.
func (l *loop) release(p policy.Policy, now time.Time) {
	maps.DeleteFunc(l.held, func(id blame.Rule, h heldRule) bool {
		r, ok := ruleOf(p, id)
		return !ok || digestOf(r) != h.Digest || now.After(h.Retry)
	})
}

func ruleOf(p policy.Policy, id blame.Rule) (policy.Rule, bool) {
	for _, s := range p.Services {
		for _, r := range s.Rules {
			if s.Name == id.Service && r.Name == id.Name {
				return r, true
			}
		}
	}
	return policy.Rule{}, false
}

// holdRules keeps rules that a refusal is about from all edges and programs the rest.
// It says no where none can be named.
func (l *loop) holdRules(p *programming, edge string, n server.Nack, now time.Time) bool {
	if p.wish.policy == nil || p.effective == nil {
		return false
	}
	d, found := l.documents(p), false
	d.Policy = *p.effective
	for _, name := range n.Names {
		for _, id := range blame.Rules(d, n.Type, name, n.Reason) {
			r, ok := ruleOf(*p.wish.policy, id)
			if _, already := l.held[id]; !ok || already {
				continue
			}
			h := heldRule{Rule: id, Digest: digestOf(r), Retry: now.Add(retryQuarantine), Nack: l.rejected(p, edge, n, name)}
			if l.good != nil && l.good.effective != nil {
				if before, ok := ruleOf(*l.good.effective, id); ok {
					h.Instead = &before
				}
			}
			l.held[id] = h
			found = true
			l.log.Error("edge refused a rule: it stays as it was, everything else goes out", "edge", edge,
				"service", id.Service, "rule", id.Name, "reason", n.Reason, "where", where(h.Nack.Places))
		}
	}
	if found {
		l.program(now, nil)
	}
	return found
}

// confine keeps what an edge refused from all of them and programs the rest. It says
// no where that is of no help: nothing would be left of the change, or what is refused
// is the last good itself.
func (l *loop) confine(p *programming, edge string, n server.Nack, now time.Time) bool {
	if l.good == nil || !l.good.wish.complete() {
		return false
	}
	added := map[resourceID]refusal{}
	for _, name := range n.Names {
		id := resourceID{n.Type, name}
		wanted, _ := p.snapshot.Find(id.typ, id.name)
		before, _ := l.good.snapshot.Find(id.typ, id.name)
		if _, known := l.refusals[id]; known || wanted.Version == before.Version {
			continue
		}
		retry := now.Add(retryQuarantine)
		if n.Type == xds.Extensions {
			retry = now.Add(365 * 24 * time.Hour) // Envoy acknowledges it unseen when it is offered again
		}
		added[id] = refusal{version: wanted.Version, retry: retry, nack: l.rejected(p, edge, n, name)}
	}
	if len(added) == 0 {
		return false
	}
	before := maps.Clone(l.refusals)
	maps.Copy(l.refusals, added)
	rest, _ := l.quarantine(p.snapshot, now)
	if rest.Version == l.good.snapshot.Version || rest.Version == p.snapshot.Version {
		l.refusals = before
		return false
	}
	for id, r := range added {
		l.log.Error("edge refused a resource: it stays as it was, everything else goes out", "edge", edge,
			"type", id.typ.String(), "resource", id.name, "reason", r.nack.Nack.Reason, "where", where(r.nack.Places))
	}
	l.program(now, nil)
	return true
}

// rejected is what an operator is told of a refusal.
func (l *loop) rejected(p *programming, edge string, n server.Nack, resource string) ctlapi.Rejection {
	out := ctlapi.Rejection{Version: n.Version, Edge: edge, Nack: wireNack(n), Time: n.Time}
	if resource != "" {
		out.Nack.Resource = resource
	}
	if p.wish.policy == nil {
		return out
	}
	d := l.documents(p)
	for _, name := range n.Names {
		if resource != "" && name != resource {
			continue
		}
		for _, place := range blame.Places(d, n.Type, name, n.Reason) {
			if !slices.Contains(out.Places, place) {
				out.Places = append(out.Places, place)
			}
		}
	}
	return out
}

func (l *loop) documents(p *programming) blame.Documents {
	d := blame.Documents{
		PolicyFile: l.cfg.policySource(), EndpointsFile: l.cfg.Endpoints,
		RawPolicy: p.wish.rawPolicy, RawEndpoints: p.wish.rawEndpoints, Policy: *p.wish.policy,
	}
	if l.good != nil {
		d.Good = l.good.effective
	}
	return d
}

// where is places in one line.
func where(places []policy.Place) string {
	var out []string
	for _, p := range places {
		out = append(out, p.String())
	}
	return strings.Join(out, ", ")
}

// why says in a line of the history what edges said.
func why(r ctlapi.Rejection) string {
	s := fmt.Sprintf("edge %s refused %s %s: %s", r.Edge, r.Nack.Type, r.Nack.Resource, r.Nack.Reason)
	if len(r.Places) > 0 {
		s = where(r.Places) + ": " + s
	}
	return s
}

// quarantined are the refusals that edges are kept from, for status.
func (l *loop) quarantined() []ctlapi.Rejection {
	var out []ctlapi.Rejection
	for _, r := range l.refusals {
		out = append(out, r.nack)
	}
	for _, h := range l.held {
		out = append(out, h.Nack)
	}
	slices.SortFunc(out, func(a, b ctlapi.Rejection) int {
		return cmp.Or(strings.Compare(a.Nack.Type, b.Nack.Type), strings.Compare(a.Nack.Resource, b.Nack.Resource))
	})
	return out
}

// nextRetry is when the first quarantine ends; zero where there is none.
func (l *loop) nextRetry() time.Time {
	var out time.Time
	sooner := func(t time.Time) {
		if out.IsZero() || t.Before(out) {
			out = t
		}
	}
	for _, r := range l.refusals {
		sooner(r.retry)
	}
	for _, h := range l.held {
		sooner(h.Retry)
	}
	return out
}

// savedRefusal is a refusal in the file of the last good configuration.
type savedRefusal struct {
	Type      string           `json:"type"`
	Name      string           `json:"name"`
	Version   string           `json:"version"`
	Retry     time.Time        `json:"retry"`
	Rejection ctlapi.Rejection `json:"rejection"`
}

func (l *loop) saveRefusals() []savedRefusal {
	var out []savedRefusal
	for id, r := range l.refusals {
		out = append(out, savedRefusal{id.typ.URL(), id.name, r.version, r.retry, r.nack})
	}
	return out
}

func (l *loop) loadRefusals(saved []savedRefusal) {
	for _, s := range saved {
		if t, ok := xds.TypeOf(s.Type); ok {
			l.refusals[resourceID{t, s.Name}] = refusal{version: s.Version, retry: s.Retry, nack: s.Rejection}
		}
	}
}
