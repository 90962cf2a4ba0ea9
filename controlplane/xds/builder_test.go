package xds

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/mesh/group"
)

// edit changes one thing of a plan, in memory of its own; the rest is shared.
func edit(rnd *rand.Rand, p plan.Plan) plan.Plan {
	p.Services = slices.Clone(p.Services)
	at := rnd.IntN(len(p.Services))
	s := &p.Services[at]
	switch rnd.IntN(14) {
	case 0:
		p.FailClosed = !p.FailClosed
	case 1:
		p.Filter = fmt.Sprint(rnd.IntN(3))
	case 2:
		p.Moves = append(slices.Clone(p.Moves), plan.Move{Group: group.ID(fmt.Sprintf("%06x", rnd.IntN(1<<24))), Pool: fmt.Sprintf("p%d", rnd.IntN(3))})
	case 3:
		p.Moves = slices.Clone(p.Moves[:len(p.Moves)/2])
	case 4:
		p.Cohorts = append(slices.Clone(p.Cohorts), plan.Cohort{Name: "c", Color: group.Color(rnd.Uint32()), Pool: "p0"})
	case 5:
		s.Rules = append(slices.Clone(s.Rules), randomRule(rnd, fmt.Sprintf("n%d", rnd.IntN(1000)), *s))
	case 6:
		s.Rules = nil
	case 7:
		s.Rules = slices.Clone(s.Rules)
		rnd.Shuffle(len(s.Rules), func(i, j int) { s.Rules[i], s.Rules[j] = s.Rules[j], s.Rules[i] })
	case 8:
		s.Rules = slices.Clone(s.Rules)
		for i := range s.Rules {
			s.Rules[i].Timeout = time.Duration(1+rnd.IntN(3)) * time.Second
			s.Rules[i].Match = slices.Clone(s.Rules[i].Match)
			s.Rules[i].Match[0].Hosts = []string{randomHost(rnd)}
		}
	case 9:
		s.Pools = slices.Clone(s.Pools)
		s.Pools[0].Endpoints = []string{fmt.Sprintf("127.0.0.1:%d", 1+rnd.IntN(3))}
		if rnd.IntN(3) == 0 {
			s.Pools[0].Endpoints = []string{"nowhere"}
		}
	case 10:
		s.Pools = slices.Clone(s.Pools)
		s.Pools[0].CircuitBreakers = &policy.CircuitBreakers{MaxRequests: 1 + rnd.Uint32N(3)}
	case 11:
		s.Routes = slices.Clone(s.Routes)
		s.Routes[0].WebSocket = !s.Routes[0].WebSocket
	case 12:
		if len(p.Services) > 1 {
			p.Retired = []string{s.Name}
			p.Services = slices.Delete(p.Services, at, at+1)
		}
	default:
		p = deep(p) // equal, and shares nothing
	}
	return p
}

func deep(p plan.Plan) plan.Plan {
	p.Services, p.Moves, p.Cohorts = slices.Clone(p.Services), slices.Clone(p.Moves), slices.Clone(p.Cohorts)
	for i := range p.Services {
		s := &p.Services[i]
		s.Pools, s.Routes, s.Rules = slices.Clone(s.Pools), slices.Clone(s.Routes), slices.Clone(s.Rules)
		for j := range s.Rules {
			s.Rules[j].Match = slices.Clone(s.Rules[j].Match)
		}
	}
	return p
}

// TestBuilderIsBuild: what a builder makes of a plan depends on no plan before it.
func TestBuilderIsBuild(t *testing.T) {
	t.Parallel()
	refused, built := 0, 0
	for seed := range uint64(15) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		p := randomPlan(rnd)
		var b Builder
		for step := range 40 {
			got, err := b.Build(p)
			want, wantErr := Build(p)
			if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
				t.Fatalf("seed %d, step %d: %v, from scratch %v", seed, step, err, wantErr)
			}
			if err != nil {
				refused++
			} else if built++; !same(got, want) {
				t.Fatalf("seed %d, step %d: version %s, from scratch %s", seed, step, got.Version, want.Version)
			}
			p = edit(rnd, p)
		}
	}
	if refused == 0 || built < 300 {
		t.Errorf("%d plans were refused and %d built: the edits are too tame or too wild", refused, built)
	}
}

func same(a, b *Snapshot) bool {
	for i := range a.Resources {
		if !slices.EqualFunc(a.Resources[i], b.Resources[i], func(a, b Resource) bool {
			return a.Name == b.Name && a.Version == b.Version && bytes.Equal(a.Body.GetValue(), b.Body.GetValue())
		}) {
			return false
		}
	}
	return a.Version == b.Version
}

// TestBuilderRendersWhatChanged looks at which resources are new in memory.
func TestBuilderRendersWhatChanged(t *testing.T) {
	t.Parallel()
	p := large(30, 6)
	for name, c := range map[string]struct {
		change func(*plan.Plan)
		want   []string
	}{
		"nothing": {func(*plan.Plan) {}, nil},
		"a rule of a host": {func(p *plan.Plan) {
			p.Services[3].Rules[2].Timeout = time.Minute
		}, []string{"vhds edge/host3.test"}},
		"a move":           {func(p *plan.Plan) { p.Moves = []plan.Move{{Group: "abcdef", Pool: "isolated"}} }, []string{"rds edge"}},
		"a route":          {func(p *plan.Plan) { p.Services[3].Routes[0].Timeout = time.Minute }, []string{"rds edge"}},
		"an endpoint":      {func(p *plan.Plan) { p.Services[3].Pools[1].Endpoints = []string{"127.0.0.1:9"} }, []string{"eds s3.isolated"}},
		"a pool's setting": {func(p *plan.Plan) { p.Services[3].Pools[1].PanicThreshold = new(float64) }, []string{"cds s3.isolated"}},
		"the filter":       {func(p *plan.Plan) { p.Filter = "{}" }, nil}, // there is no module
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b Builder
			before, err := b.Build(p)
			if err != nil {
				t.Fatal(err)
			}
			next := deep(p)
			c.change(&next)
			after, err := b.Build(next)
			if err != nil {
				t.Fatal(err)
			}
			var got, changed []string
			for i, rs := range after.Resources {
				for _, r := range rs {
					if old, ok := before.Find(Type(i), r.Name); !ok || old.Body != r.Body {
						got = append(got, Type(i).String()+" "+r.Name)
					}
				}
			}
			for i, names := range before.Changes(after) {
				for _, name := range names {
					changed = append(changed, Type(i).String()+" "+name)
				}
			}
			if diff := cmp.Diff(c.want, changed); diff != "" {
				t.Errorf("changed (-want +got):\n%s", diff)
			}
			if name == "the filter" {
				c.want = []string{"ecds traffic"} // rendered, and found to be the same
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("rendered (-want +got):\n%s", diff)
			}
		})
	}
}

// large has services with as many rules each, under a host of their own, the last
// of which takes what no other does.
func large(services, rules int) plan.Plan {
	p := plan.Plan{Edge: plan.Edge{Listen: "127.0.0.1:1", Observe: "127.0.0.1:2"}}
	for i := range services {
		name, host := fmt.Sprintf("s%d", i), fmt.Sprintf("host%d.test", i)
		s := plan.Service{
			Name:   name,
			Pools:  []plan.Pool{{Name: "baseline", Endpoints: []string{"127.0.0.1:3"}}, {Name: "isolated", Endpoints: []string{"127.0.0.1:4"}}},
			Routes: []plan.Route{{Name: name, Prefix: "/" + name, Timeout: time.Second}},
		}
		for j := range rules {
			m := plan.Match{Hosts: []string{host}, Prefix: "/"}
			if j < rules-1 {
				m.Prefix = fmt.Sprintf("/p%d", j)
			}
			s.Rules = append(s.Rules, plan.Rule{Name: fmt.Sprint(j), Service: name, Timeout: time.Second, Match: []plan.Match{m}})
		}
		p.Services = append(p.Services, s)
	}
	return p
}

// BenchmarkChange changes one rule of one host among many.
func BenchmarkChange(b *testing.B) {
	for _, services := range []int{17, 500} {
		b.Run(fmt.Sprint(services*6), func(b *testing.B) {
			p := large(services, 6)
			var builder Builder
			if _, err := builder.Build(p); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p.Services = slices.Clone(p.Services)
				s := &p.Services[7]
				s.Rules = slices.Clone(s.Rules)
				s.Rules[2].Timeout = time.Duration(i+1) * time.Millisecond
				if _, err := builder.Build(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
