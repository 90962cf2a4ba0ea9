package decide

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

var update = flag.Bool("update", false, "rewrite the expected files of the golden cases")

// scenario is traffic over time, as it would be measured, and what an operator does.
type scenario struct {
	Policy Policy        `yaml:"policy"` // over the defaults
	Until  time.Duration `yaml:"until"`
	Homes  map[string]string
	Groups []struct {
		Cohort, Env, Tenant string
		Traffic             []traffic
	}
	Orders []struct {
		At      time.Duration
		Isolate string // env+tenant
		Release string
		For     time.Duration
	}
	Outages []struct {
		From, To time.Duration
		Lag      bool // telemetry comes to a stop, but answers
	}
	NoIsolatedPool bool      `yaml:"noIsolatedPool"`
	Whole          bool      `yaml:"whole"` // windows reach back over changes of traffic
	Update         *struct { // of the configuration
		At       time.Duration
		Services []string
	}
	Saturation []struct { // of a pool's CPU from a time on
		From time.Duration
		Pool string
		CPU  float64 `yaml:"cpu"` // 0: nobody says
	}
	Confirm time.Duration `yaml:"confirm"` // when a person confirms what is recommended last; 0: nobody does
}

// traffic is a group's from a time on, by the pool that serves it.
type traffic struct {
	From time.Duration
	RPS  float64            `yaml:"rps"`
	In   map[string]quality // pool -> quality; "*" for the others
}

type quality struct {
	P95    time.Duration `yaml:"p95"`
	P99    time.Duration `yaml:"p99"` // 0: twice P95
	Errors float64
	Lost   float64 // share that no upstream answered
}

// step is how often the control plane evaluates.
const step = 250 * time.Millisecond

var start = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// TestGolden plays testdata/<case>/scenario.yaml and compares what is decided with
// decisions.txt beside it.
func TestGolden(t *testing.T) {
	t.Parallel()
	cases, err := filepath.Glob("testdata/*/scenario.yaml")
	if err != nil || len(cases) == 0 {
		t.Fatalf("cases: %v, %v", cases, err)
	}
	for _, in := range cases {
		t.Run(filepath.Base(filepath.Dir(in)), func(t *testing.T) {
			t.Parallel()
			got := play(readScenario(t, in))
			path := filepath.Join(filepath.Dir(in), "decisions.txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatalf("%v (run with -update)", err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("decisions (-want +got, rewrite with -update):\n%s", diff)
			}
		})
	}
}

// TestGoldenFoldersAreWhole finds a folder without a scenario.
func TestGoldenFoldersAreWhole(t *testing.T) {
	t.Parallel()
	all, err := filepath.Glob("testdata/*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if strings.HasPrefix(path, "testdata/fuzz/") {
			continue
		}
		if base := filepath.Base(path); base != "scenario.yaml" && base != "decisions.txt" {
			t.Errorf("%s is stale", path)
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), "scenario.yaml")); err != nil {
			t.Errorf("%s has no scenario", filepath.Dir(path))
		}
	}
}

func readScenario(t *testing.T, path string) scenario {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := scenario{Policy: DefaultPolicy()}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&s); err != nil {
		t.Fatalf("decode %s: %v", path, err)
	}
	for _, e := range s.Policy.Validate() {
		t.Fatalf("%s: %v", path, e)
	}
	return s
}

func play(s scenario) string {
	var (
		out    strings.Builder
		state  State
		homes  = map[group.Color]string{}
		names  = map[group.ID]string{}
		byEnv  = map[string]group.Group{}
		advice Decision
	)
	for cohort, pool := range s.Homes {
		homes[group.ColorOf(cohort)] = pool
	}
	for _, g := range s.Groups {
		gr := identity(g.Cohort, g.Env, g.Tenant)
		names[gr.ID()], byEnv[g.Env+"+"+g.Tenant] = g.Env+"+"+g.Tenant, gr
	}
	orders := slices.Clone(s.Orders)
	for at := time.Duration(0); at <= s.Until; at += step {
		now := start.Add(at)
		for len(orders) > 0 && orders[0].At <= at {
			o := orders[0]
			orders = orders[1:]
			var d Decision
			if o.Isolate != "" {
				d, state = state.Isolate(Order{Group: byEnv[o.Isolate], Home: home(homes, byEnv[o.Isolate]), By: "operator:ann", Reason: "by hand", For: o.For, Now: now})
			} else {
				d, state = state.Release(Order{Group: byEnv[o.Release], Home: home(homes, byEnv[o.Release]), By: "operator:ann", Reason: "by hand", For: o.For, Now: now})
			}
			write(&out, at, names, d)
		}
		in := Input{Now: now, Homes: homes, Isolatable: map[string]bool{semconv.ServiceCore: !s.NoIsolatedPool}}
		in.Quick = s.measure(at, s.Policy.QuickWindow+at%time.Second, state, homes) // from a whole second on, as the store has it
		in.Short = s.measure(at, s.Policy.ShortWindow, state, homes)
		in.Long = s.measure(at, s.Policy.LongWindow, state, homes)
		if len(in.Long) > 0 {
			in.Newest = now.Add(-300 * time.Millisecond)
		}
		in.Saturation = s.fill(at)
		if u := s.Update; u != nil && at >= u.At {
			in.Change = &Change{Revision: RevisionChange{From: 1, To: 2}, At: start.Add(u.At), Services: map[string]bool{}}
			in.Change.Before = s.measure(u.At-step, s.Policy.LongWindow, state, homes)
			for _, name := range u.Services {
				in.Change.Services[name] = true
			}
		}
		for _, o := range s.Outages {
			switch {
			case at < o.From || at >= o.To:
			case o.Lag:
				in.Newest = start.Add(o.From)
			default:
				in.Unavailable, in.Short, in.Long = "statistics are not to be had", nil, nil
			}
		}
		var ds []Decision
		ds, state = Decide(s.Policy, state, in)
		for _, d := range ds {
			write(&out, at, names, d)
			if d.Advice != "" {
				advice = d
			}
			if d.Action == RollBack {
				s = s.undone(at)
			}
		}
		if s.Confirm > 0 && at == s.Confirm {
			d, next, err := state.Confirm(s.Policy, advice, "operator:ann", "looks right", now)
			if err != nil {
				fmt.Fprintf(&out, "%s not confirmed: %v\n", at, err)
				continue
			}
			state = next
			write(&out, at, names, d)
		}
	}
	return out.String()
}

// fill is how full pools say they are at a time; they say so every second.
func (s scenario) fill(at time.Duration) []sli.Saturation {
	last := map[string]sli.Saturation{}
	for _, p := range s.Saturation {
		if p.From > at {
			continue
		}
		last[p.Pool] = sli.Saturation{
			Service: semconv.ServiceCore, Pool: p.Pool, Resource: sli.CPU, Mean: p.CPU, Highest: p.CPU + 0.02, Instances: 2, Newest: start.Add(at.Truncate(time.Second)),
		}
		if p.CPU == 0 {
			delete(last, p.Pool)
		}
	}
	return slices.Collect(maps.Values(last))
}

// undone is the scenario whose traffic is as before the update from a time on.
func (s scenario) undone(at time.Duration) scenario {
	for i, g := range s.Groups {
		if len(g.Traffic) > 1 {
			again := g.Traffic[0]
			again.From = at + step
			s.Groups[i].Traffic = append(slices.Clone(g.Traffic), again)
		}
	}
	return s
}

func home(homes map[group.Color]string, g group.Group) string {
	if p := homes[g.Color]; p != "" {
		return p
	}
	return semconv.PoolBaseline
}

func identity(cohort, env, tenant string) group.Group {
	g := group.Group{Env: env, Tenant: tenant}
	if cohort != "" {
		g.Color = group.ColorOf(cohort)
	}
	return g
}

func write(out *strings.Builder, at time.Duration, names map[group.ID]string, d Decision) {
	fmt.Fprintf(out, "%s %s %s %s -> %s by %s: %s\n", at, d.Action, names[d.Group], d.FromPool, d.ToPool, d.By, d.Reason)
}

// measure is what would be counted over the window before at.
func (s scenario) measure(at, back time.Duration, state State, homes map[group.Color]string) []sli.Stats {
	var out []sli.Stats
	for _, g := range s.Groups {
		gr := identity(g.Cohort, g.Env, g.Tenant)
		now := state.Groups[gr.ID()]
		home := home(homes, gr)
		switch {
		case now.Pool == "":
			out = append(out, s.served(g.Traffic, gr, home, at, back, 1)...)
		case now.Share == 0:
			out = append(out, s.served(g.Traffic, gr, now.Pool, at, back, 1)...)
		default: // the windows reach back to the last step at most
			back := min(back, start.Add(at).Sub(now.Since)+step)
			share := float64(now.Share) / 100
			out = append(out, s.served(g.Traffic, gr, now.Pool, at, back, 1-share)...)
			out = append(out, s.served(g.Traffic, gr, home, at, back, share)...)
		}
	}
	return out
}

// served is what a share of a group got from a pool in a window. It fares as it does at
// the end of the window; what came before the last change of its traffic counts only
// where the scenario says so.
func (s scenario) served(all []traffic, gr group.Group, pool string, at, back time.Duration, share float64) []sli.Stats {
	n, now := 0.0, -1
	for i := range all {
		if all[i].From > at {
			break
		}
		end := at + step
		if i+1 < len(all) {
			end = min(end, all[i+1].From)
		}
		if now = i; !s.Whole {
			n = 0
		}
		n += share * all[i].RPS * max(0, end-max(all[i].From, at+step-back)).Seconds()
	}
	if now < 0 || n == 0 {
		return nil
	}
	q, ok := all[now].In[pool]
	if !ok {
		q = all[now].In["*"]
	}
	if q.P99 == 0 {
		q.P99 = 2 * q.P95
	}
	st := sli.Stats{
		Group: gr.ID(), Color: gr.Color, Env: gr.Env, Tenant: gr.Tenant, Service: semconv.ServiceCore, Pool: pool,
		Window:   sli.Window{From: start.Add(at - back), To: start.Add(at)},
		Requests: uint64(n * (1 - q.Lost)), Errors: uint64(n * (1 - q.Lost) * q.Errors), P50: q.P95 / 2, P95: q.P95, P99: q.P99,
	}
	out := []sli.Stats{st}
	if q.Lost > 0 {
		lost := st
		lost.Pool, lost.Requests = "", uint64(n*q.Lost)
		lost.Errors = lost.Requests
		out = append(out, lost)
	}
	return out
}
