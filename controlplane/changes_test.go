package controlplane

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server/servertest"
	"github.com/tracegate/tracegate/observability/semconv"
)

func TestJustBefore(t *testing.T) {
	t.Parallel()
	bad := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	isolated := decide.Decision{Action: decide.Isolate, Service: "core", FromPool: "canary", FirstBad: bad, Thresholds: &decide.Thresholds{ShortWindow: 2 * time.Second}}
	byHand := isolated
	byHand.FirstBad, byHand.Thresholds = time.Time{}, nil
	at := func(before time.Duration, what, service, pool string) changed {
		return changed{at: bad.Add(-before), what: what, touches: func(p decide.Pool) bool {
			return p.Service == service && (pool == "" || p.Name == pool)
		}}
	}
	for name, c := range map[string]struct {
		decision decide.Decision
		changes  []changed
		want     []string
	}{
		"nothing":                         {decision: isolated},
		"a person's":                      {decision: byHand, changes: []changed{at(time.Second, "A", "core", "")}},
		"some seconds before":             {isolated, []changed{at(12*time.Second, "A", "core", "")}, []string{"A 12s before"}},
		"at the edge of what counts":      {isolated, []changed{at(changedWithin, "A", "core", "")}, []string{"A 5m0s before"}},
		"too long ago":                    {isolated, []changed{at(changedWithin+time.Millisecond, "A", "core", "")}, nil},
		"in the first bad window":         {isolated, []changed{at(-2*time.Second, "A", "core", "")}, []string{"A as it began"}},
		"after the first bad window":      {isolated, []changed{at(-2*time.Second-time.Millisecond, "A", "core", "")}, nil},
		"another service":                 {isolated, []changed{at(time.Second, "A", "chat", "")}, nil},
		"another pool":                    {isolated, []changed{at(time.Second, "A", "core", "baseline")}, nil},
		"the newest first, and not all":   {isolated, []changed{at(9*time.Second, "A", "core", ""), at(4*time.Second, "B", "core", ""), at(time.Second, "C", "core", "canary"), at(90*time.Second, "D", "core", "")}, []string{"C 1s before", "B 4s before", "A 9s before"}},
		"one that counts among many":      {isolated, []changed{at(time.Second, "A", "chat", ""), at(8*time.Second, "B", "core", ""), at(time.Hour, "C", "core", "")}, []string{"B 8s before"}},
		"less than a second is no number": {isolated, []changed{at(400*time.Millisecond, "A", "core", "")}, []string{"A as it began"}},
	} {
		if got := justBefore(c.decision, c.changes); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestInForce(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]decide.RevisionChange{
		"policy revision 7 came into force":             {From: 6, To: 7},
		"settings core/gray revision 2 came into force": {From: 1, To: 2, Settings: "core/gray"},
		"settings core/gray were removed":               {From: 1, Settings: "core/gray"},
		"another policy came into force":                {From: 1},
	} {
		if got := inForce(r); got != want {
			t.Errorf("%+v: %q, want %q", r, got, want)
		}
	}
}

func TestJoined(t *testing.T) {
	t.Parallel()
	of := func(pools map[string][]string) policy.Endpoints {
		return policy.Endpoints{Services: map[string]map[string][]string{"core": pools}}
	}
	core := func(pool string) decide.Pool { return decide.Pool{Service: "core", Name: pool} }
	for name, c := range map[string]struct {
		before, now map[string][]string
		want        map[string]decide.Pool
	}{
		"the same":         {map[string][]string{"canary": {"a", "b"}}, map[string][]string{"canary": {"b", "a"}}, nil},
		"one went":         {map[string][]string{"canary": {"a", "b"}}, map[string][]string{"canary": {"a"}}, nil},
		"one came":         {map[string][]string{"canary": {"a"}}, map[string][]string{"canary": {"a", "b"}}, map[string]decide.Pool{"instance b of pool canary joined": core("canary")}},
		"all are others":   {map[string][]string{"canary": {"a", "b"}}, map[string][]string{"canary": {"c", "d", "e"}}, map[string]decide.Pool{"instance c of pool canary and 2 more joined": core("canary")}},
		"it changed pools": {map[string][]string{"canary": {"a"}, "baseline": {"b"}}, map[string][]string{"baseline": {"b", "a"}}, map[string]decide.Pool{"instance a of pool baseline joined": core("baseline")}},
	} {
		now := time.Now()
		got := joined(of(c.before), of(c.now), now)
		if len(got) != len(c.want) {
			t.Errorf("%s: %d changes, want %d", name, len(got), len(c.want))
		}
		for _, j := range got {
			if pool, found := c.want[j.what]; !found || !j.touches(pool) || j.touches(core("isolated")) || !j.at.Equal(now) {
				t.Errorf("%s: %q", name, j.what)
			}
		}
	}
}

// TestWhatChangedExplainsAnIsolation: an update that is not taken back, and an instance that
// came, are said in the decision's record, beside what probes found.
func TestWhatChangedExplainsAnIsolation(t *testing.T) {
	t.Parallel()
	cfg, w := testConfig(t), newWorld()
	never := func(document []byte) string {
		return strings.Replace(string(document), "rollbackWithin: 1m", "rollbackWithin: 0s", 1)
	}
	write(t, cfg.Policy, never(policy.Default))
	w.causes = map[decide.Pool][]string{{Service: "core", Name: "canary"}: {"connects take 1s"}}
	p := run(t, cfg, w)
	servertest.Connect(t, p.xds, servertest.Options{})
	p.newest("first", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionInForce })
	first := p.status("programmed", acked)
	write(t, cfg.Endpoints, strings.Replace(endpoints, "'127.0.0.1:9102'", "'127.0.0.1:9102', '127.0.0.1:9104'", 1))
	p.status("an instance more", func(s ctlapi.Status) bool { return acked(s) && s.Version != first.Version })
	write(t, cfg.Policy, never(renamed("another")))
	p.newest("second", func(r ctlapi.Revision) bool { return r.Number == 2 && r.State == ctlapi.RevisionInForce })
	w.set(func(w *world) { w.p95[semconv.PoolCanary] = 800 * time.Millisecond })
	eventually(t, "explained", func() bool {
		ds := w.decisions(decide.Isolate)
		has := func(what string) bool {
			return slices.ContainsFunc(ds[0].Causes, func(c string) bool { return strings.HasPrefix(c, what) })
		}
		return len(ds) == 1 && has("policy revision 2 came into force ") && has("instance 127.0.0.1:9104 of pool canary joined ") && has("connects take 1s")
	}, func() any { return w.decisions(decide.Isolate) })
}
