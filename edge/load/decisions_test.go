package load

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
	docs "github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/observability/semconv"
)

// TestDecisions has a product that isolates the canary group at every fault: right where
// its pool is late, wrong where all pools are, and none of both where it does nothing.
func TestDecisions(t *testing.T) {
	for _, tt := range []struct {
		name   string
		set    func(*product)
		faults []string
		wrong  map[string]int
		miss   map[string]int
	}{
		{"right", func(*product) {}, []string{"latency", "errors"}, nil, nil},
		{"wrong", func(*product) {}, []string{"latency", "everything is slow"}, map[string]int{"everything is slow": 1}, nil},
		{"blind", func(p *product) { p.decideAfter = 0 }, []string{"latency"}, nil, map[string]int{"latency": 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newProduct(t)
			p.anyGroup = true
			tt.set(p)
			cfg := p.config()
			cfg.Wait, cfg.Forget, cfg.ReleaseWait = 5*time.Second, 10*time.Millisecond, 5*time.Second
			if tt.name == "blind" {
				cfg.Wait = time.Second
			}
			cfg.Cores = map[string]string{semconv.PoolBaseline: p.control.URL, semconv.PoolCanary: p.control.URL, semconv.PoolIsolated: p.control.URL}
			var out bytes.Buffer
			r, err := Decisions(deadline(t), cfg, tt.faults, docs.Default, &out, quiet())
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Faults) != len(tt.faults) {
				t.Fatalf("%d faults played", len(r.Faults))
			}
			for _, f := range r.Faults {
				if (len(f.Wrong) > 0) != (tt.wrong[f.Name] > 0) || len(f.Missing) != tt.miss[f.Name] {
					t.Errorf("%s: wrong %v, missing %v", f.Name, f.Wrong, f.Missing)
				}
				if f.Name == "latency" && tt.miss == nil && (mark(f.Timeline, EventWantedApplied).IsZero() || mark(f.Timeline, EventOver).IsZero() || f.Reason == "" || f.Outcome == nil) {
					t.Errorf("%s: %+v", f.Name, f)
				}
			}
			if r.OK != (tt.wrong == nil && tt.miss == nil) {
				t.Errorf("OK = %v:\n%s", r.OK, out.String())
			}
			if string(p.policy) != string(docs.Default) {
				t.Error("the policy is not as it was")
			}
			for _, want := range []string{"FAULT latency", "PROMISE", "wanted isolate of canary+payment"} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the text does not mention %s:\n%s", want, out.String())
				}
			}
		})
	}
}

func TestDecisionsRefuseAnUnknownFault(t *testing.T) {
	t.Parallel()
	_, err := Decisions(t.Context(), DefaultConfig(), []string{"flood"}, docs.Default, &bytes.Buffer{}, quiet())
	if err == nil || !strings.Contains(err.Error(), "noisy neighbour") {
		t.Errorf("error: %v", err)
	}
}

// TestJudge is what a decision is worth in a fault.
func TestJudge(t *testing.T) {
	t.Parallel()
	at := func(s int) time.Time { return time.Date(2026, 1, 1, 0, 0, s, 0, time.UTC) }
	isolates := decisionFault{want: decide.Isolate, group: hurtGroup, may: []decide.Action{decide.Release}}
	undoes := decisionFault{want: decide.RollBack, group: hurtGroup}
	seen, blind := &scene{}, &scene{dark: at(10), dawn: at(20)}
	for name, tt := range map[string]struct {
		fault decisionFault
		d     decide.Decision
		group string
		scene *scene
		right bool
	}{
		"the right one":                   {isolates, decide.Decision{Action: decide.Isolate}, hurtGroup, seen, true},
		"its end":                         {isolates, decide.Decision{Action: decide.Release}, hurtGroup, seen, true},
		"another group":                   {isolates, decide.Decision{Action: decide.Isolate}, noisyGroup, seen, false},
		"another action":                  {isolates, decide.Decision{Action: decide.Shed}, hurtGroup, seen, false},
		"while nothing is known":          {isolates, decide.Decision{Action: decide.Isolate, Time: at(15)}, hurtGroup, blind, false},
		"when something is known again":   {isolates, decide.Decision{Action: decide.Isolate, Time: at(21)}, hurtGroup, blind, true},
		"an update, by any of its groups": {undoes, decide.Decision{Action: decide.RollBack}, noisyGroup, seen, true},
		"a move instead of an update":     {undoes, decide.Decision{Action: decide.Isolate}, hurtGroup, seen, false},
		"something where nothing is":      {decisionFault{}, decide.Decision{Action: decide.Isolate}, hurtGroup, seen, false},
	} {
		if why := tt.fault.judge(tt.d, tt.group, tt.scene); (why == "") != tt.right {
			t.Errorf("%s: %q", name, why)
		}
	}
}

// TestFaultsMakePolicies: what the faults do to a policy is a policy.
func TestFaultsMakePolicies(t *testing.T) {
	t.Parallel()
	if n := len(decisionFaults()); n != 10 {
		t.Errorf("%d faults", n)
	}
	quick, err := quickPolicy(docs.Default, 700*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	p, err := docs.Parse(quick)
	if err != nil {
		t.Fatal(err)
	}
	if p.Decide.MaxP95 != 700*time.Millisecond || p.Decide.LongWindow != quickLong || p.Decide.MinRequests != 10 || len(p.Decide.ReleaseSteps) != 1 {
		t.Errorf("decide: %+v", p.Decide)
	}
}
