package controlplane

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server/servertest"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/placement"
)

var when = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestDrainsAreChecked(t *testing.T) {
	t.Parallel()
	p := policy.Policy{Services: []policy.Service{{Name: "core"}, {Name: "core-grpc", Instances: "core"}}}
	one := ctlapi.Drain{Service: "core", Pool: "baseline", Instance: "a:1", By: "operator:ann", Reason: "old", Since: when.Add(-time.Hour)}
	e := policy.Endpoints{Services: map[string]map[string][]string{"core": {"baseline": {"a:1", "a:2", "a:3"}, "canary": {"a:4"}}}}
	e.Draining = draining([]ctlapi.Drain{one})
	w := wish{policy: &p, endpoints: &e}
	order := func(service, pool, instance string) ctlapi.DrainOrder {
		return ctlapi.DrainOrder{Service: service, Pool: pool, Instance: instance, Reason: "try", By: "operator:bob"}
	}
	forced := order("core", "canary", "a:4")
	forced.Force = true
	ending := order("core", "baseline", "a:2")
	ending.ForMS = 60_000
	for what, c := range map[string]struct {
		order ctlapi.DrainOrder
		field string // of the error
		code  protocol.Code
		want  string // what drains then
	}{
		"one of several":                  {order: order("core", "baseline", "a:3"), want: "a:1 a:3"},
		"one with an end":                 {order: ending, want: "a:1 a:2 until 03:05:05"},
		"one that drains already":         {order: order("core", "baseline", "a:1"), want: "a:1"},
		"by a service that shares them":   {order: order("core-grpc", "baseline", "a:2"), want: "a:1 a:2"},
		"the last of its pool":            {order: order("core", "canary", "a:4"), field: "instance", code: protocol.CodeInvalidArgument},
		"the last of its pool, forced":    {order: forced, want: "a:1 a:4"},
		"an instance of another pool":     {order: order("core", "canary", "a:1"), field: "instance", code: protocol.CodeNotFound},
		"a pool that there is not":        {order: order("core", "isolated", "a:1"), field: "pool", code: protocol.CodeNotFound},
		"a service that there is not":     {order: order("orders", "baseline", "a:1"), field: "service", code: protocol.CodeNotFound},
		"an address that nobody can have": {order: order("core", "baseline", ""), field: "instance", code: protocol.CodeNotFound},
	} {
		d, next, err := drained([]ctlapi.Drain{one}, w, c.order, when)
		var e *protocol.Error
		if errors.As(err, &e) != (c.code != "") || e != nil && (e.Code != c.code || e.Field != c.field) {
			t.Errorf("%s: %v", what, err)
		}
		if c.code != "" {
			continue
		}
		if d.Service != "core" || d.By != "operator:bob" || !d.Since.Equal(when) {
			t.Errorf("%s: %+v", what, d)
		}
		var got []string
		for _, d := range next {
			got = append(got, d.Instance)
			if !d.Until.IsZero() {
				got = append(got, "until "+d.Until.Format(time.TimeOnly))
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %s drain, want %s", what, got, c.want)
		}
	}
	e.Draining["core"]["baseline"] = []string{"a:1", "a:2"}
	if _, _, err := drained(nil, w, order("core", "baseline", "a:3"), when); err == nil {
		t.Error("the last that does not drain yet")
	}
	many := make([]ctlapi.Drain, maxDrains)
	if _, _, err := drained(many, w, forced, when); err == nil || !strings.Contains(err.Error(), "1000 instances drain already") {
		t.Errorf("too many: %v", err)
	}
	if d, next, err := undrained([]ctlapi.Drain{one}, p, order("core-grpc", "baseline", "a:1")); err != nil || len(next) != 0 || d.By != "operator:ann" {
		t.Errorf("%+v, %+v, %v", d, next, err)
	}
	if _, _, err := undrained([]ctlapi.Drain{one}, p, order("core", "baseline", "a:2")); err == nil {
		t.Error("one that does not drain was put back")
	}
}

func TestDrainsEndByThemselves(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		drains []ctlapi.Drain
		want   time.Time
	}{
		"none":                     {nil, time.Time{}},
		"without an end":           {[]ctlapi.Drain{{}}, time.Time{}},
		"with one":                 {[]ctlapi.Drain{{}, {Until: when}}, when},
		"the first of two":         {[]ctlapi.Drain{{Until: when.Add(1)}, {Until: when}}, when},
		"of an instance that left": {[]ctlapi.Drain{{Gone: when}}, when.Add(drainGone)},
		"that left after its end":  {[]ctlapi.Drain{{Gone: when, Until: when.Add(1)}}, when.Add(1)},
	} {
		if got := nextDrainEnd(c.drains); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}

// TestDrain goes from the order to what edges, core and the status have, over a restart of
// the control plane, and back.
func TestDrain(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	two := strings.Replace(endpoints, "baseline: ['127.0.0.1:9101']", "baseline: ['127.0.0.1:9101', '127.0.0.1:9100']", 1)
	write(t, cfg.Endpoints, two)
	p := run(t, cfg, newWorld())
	servertest.Connect(t, p.xds, servertest.Options{})
	before := p.status("programmed", acked)
	order := ctlapi.DrainOrder{Service: "core", Pool: "baseline", Instance: "127.0.0.1:9101", Reason: "disk", By: "ann"}

	d, err := p.api.Drain(t.Context(), order)
	if err != nil || d.By != "operator:ann" || d.Reason != "disk" || !d.Until.IsZero() {
		t.Fatalf("%+v, %v", d, err)
	}
	p.placed("core knows", func(pl placement.Placement) bool { return slices.Equal(pl.Draining, []string{"127.0.0.1:9101"}) })
	after := p.status("acknowledged", func(s ctlapi.Status) bool { return acked(s) && s.Version != before.Version })
	if diff := cmp.Diff([]ctlapi.Drain{d}, after.Drains, cmpopts.EquateApproxTime(0)); diff != "" {
		t.Errorf("status (-order +status):\n%s", diff)
	}
	states := func() string {
		t.Helper()
		all, err := p.api.Endpoints(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, e := range all {
			if e.Service == "core" && e.Pool == "baseline" {
				out = append(out, e.Instance+" "+e.State)
			}
		}
		return strings.Join(out, ", ")
	}
	if got := states(); got != "127.0.0.1:9100 serves, 127.0.0.1:9101 drains" {
		t.Errorf("endpoints: %s", got)
	}
	other := order
	other.Instance = "127.0.0.1:9100"
	if _, err := p.api.Drain(t.Context(), other); !denied(err, protocol.CodeInvalidArgument) {
		t.Errorf("the last one: %v", err)
	}

	p.stop()
	p = run(t, cfg, newWorld())
	servertest.Connect(t, p.xds, servertest.Options{})
	if s := p.status("after a restart", func(s ctlapi.Status) bool { return acked(s) && s.Version == after.Version }); len(s.Drains) != 1 || s.Drains[0].Reason != "disk" {
		t.Errorf("drains: %+v", s.Drains)
	}

	// An instance that leaves and comes back soon drains on.
	write(t, cfg.Endpoints, strings.Replace(two, "'127.0.0.1:9101', ", "", 1))
	p.status("it left", func(s ctlapi.Status) bool { return acked(s) && len(s.Drains) == 1 && !s.Drains[0].Gone.IsZero() })
	write(t, cfg.Endpoints, two)
	p.status("it is back", func(s ctlapi.Status) bool {
		return acked(s) && len(s.Drains) == 1 && s.Drains[0].Gone.IsZero() && s.Version == after.Version
	})

	if _, err := p.api.Undrain(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	if s := p.status("undone", func(s ctlapi.Status) bool { return acked(s) && s.Version == before.Version }); len(s.Drains) != 0 {
		t.Errorf("drains: %+v", s.Drains)
	}
	if got := states(); got != "127.0.0.1:9100 serves, 127.0.0.1:9101 serves" {
		t.Errorf("endpoints: %s", got)
	}
	if _, err := p.api.Undrain(t.Context(), order); !denied(err, protocol.CodeNotFound) {
		t.Errorf("undone twice: %v", err)
	}

	order.ForMS = 1500
	d, err = p.api.Drain(t.Context(), order)
	if err != nil || d.Until.Sub(d.Since) != 1500*time.Millisecond {
		t.Fatalf("%+v, %v", d, err)
	}
	p.status("over by itself", func(s ctlapi.Status) bool { return acked(s) && s.Version == before.Version && len(s.Drains) == 0 })
	if early := time.Until(d.Until); early > 0 {
		t.Errorf("it ended %v too early", early)
	}

	all, err := p.api.Audit(t.Context(), ctlapi.AuditQuery{Limit: 10})
	var got []string
	for _, r := range slices.Backward(all) {
		got = append(got, fmt.Sprintf("%s %s %s", r.Action, r.Target, r.Outcome))
	}
	want := []string{
		"drain core/baseline/127.0.0.1:9101 done", "drain core/baseline/127.0.0.1:9100 invalid_argument",
		"undrain core/baseline/127.0.0.1:9101 done", "undrain core/baseline/127.0.0.1:9101 not_found", "drain core/baseline/127.0.0.1:9101 done",
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("audit: %v (-want +got):\n%s", err, diff)
	}
}
