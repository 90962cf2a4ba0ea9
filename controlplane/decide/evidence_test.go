package decide

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

func TestAtLeastIsTheBinomialTail(t *testing.T) {
	t.Parallel()
	for _, n := range []uint64{1, 2, 7, 60, 90} {
		for _, p := range []float64{0.001, 0.005, 0.05, 0.3, 0.9} {
			// From the far end, so that small terms are added first.
			want, term := 0.0, math.Pow(p, float64(n))
			for k := n; ; k-- {
				want += term
				got := atLeast(k, n, p)
				exact := float64(k) > p*float64(n)
				if exact && math.Abs(got-want) > 1e-5*want || !exact && got != 1 {
					t.Fatalf("P(X >= %d), n %d, p %v: %v, want %v", k, n, p, got, want)
				}
				if k == 0 {
					break
				}
				term *= float64(k) / float64(n-k+1) * (1 - p) / p
			}
		}
	}
	for _, c := range []struct {
		k, n uint64
		p    float64
		want float64
	}{{0, 10, 0, 1}, {1, 10, 0, 0}, {11, 10, 0.5, 0}, {10, 10, 1, 1}, {0, 0, 0.1, 1}} {
		if got := atLeast(c.k, c.n, c.p); got != c.want {
			t.Errorf("atLeast(%d, %d, %v) = %v, want %v", c.k, c.n, c.p, got, c.want)
		}
	}
}

// TestSlowerReadsShares holds the shares that are read off percentiles against those
// of the samples: near for lognormal latencies, never too small by much for Pareto tails.
func TestSlowerReadsShares(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, tail := range []float64{0, 2, 3} {
		samples := make([]time.Duration, 200_000)
		for i := range samples {
			z := rnd.NormFloat64()
			if tail > 0 && z > z95 {
				z = z95 + rnd.ExpFloat64()/(0.7*tail)
			}
			samples[i] = time.Duration(60e6 * math.Exp(0.7*z))
		}
		slices.Sort(samples)
		at := func(q float64) time.Duration { return samples[int(q*float64(len(samples)))] }
		st := sli.Stats{Requests: uint64(len(samples)), P50: at(0.5), P95: at(0.95), P99: at(0.99)}
		for _, q := range []float64{0.6, 0.8, 0.94, 0.96, 0.985, 0.995, 0.999} {
			if got, want := slower(st, at(q)), 1-q; got < 0.8*want || got > 5*want {
				t.Errorf("tail %v: %.4f are slower than %s, read as %.4f", tail, want, at(q), got)
			}
		}
	}
}

func TestSlowerOfOddPercentiles(t *testing.T) {
	t.Parallel()
	for _, st := range []sli.Stats{
		{}, {Requests: 1}, {Requests: 1, P50: 1, P95: 1, P99: 1},
		{Requests: 9, P50: time.Second, P95: time.Millisecond, P99: 2 * time.Millisecond},
	} {
		for _, d := range []time.Duration{0, 1, time.Millisecond, time.Second, math.MaxInt64} {
			if got := slower(st, d); math.IsNaN(got) || got < 0 || got > 1 {
				t.Errorf("%+v: share above %s is %v", st, d, got)
			}
		}
	}
}

// TestHealthyGroupsAreSeldomSurelyBad counts how often a healthy group is surely bad
// at a significance that can be counted: not more often than it says.
func TestHealthyGroupsAreSeldomSurelyBad(t *testing.T) {
	t.Parallel()
	const looks, significance = 40_000, 1e-3
	p := DefaultPolicy()
	p.Significance, p.MaxP99 = significance, 350*time.Millisecond // of which a healthy request in 170 takes more
	e := evaluation{Policy: p}
	rnd := rand.New(rand.NewPCG(3, 4))
	draw := func(n int) sli.Stats {
		st := sli.Stats{Requests: uint64(n)}
		samples := make([]time.Duration, n)
		for i := range samples {
			samples[i] = time.Duration(60e6 * math.Exp(0.7*rnd.NormFloat64()))
			if rnd.Float64() < 0.004 {
				st.Errors++
			}
		}
		slices.Sort(samples)
		at := func(q float64) time.Duration { return samples[int(math.Ceil(q*float64(n)))-1] }
		st.P50, st.P95, st.P99 = at(0.5), at(0.95), at(0.99)
		return st
	}
	ref := draw(3000)
	errors, slow, tail := 0, 0, 0
	for i := range looks {
		st, base := draw(10+i%90), draw(20+i%180)
		if e.sure(e.errorChance(st, base, ref)) {
			errors++
		}
		if e.sure(e.chancesOf(false, true, false, st, base, ref).slow()) {
			slow++
		}
		if e.sure(e.chancesOf(false, false, true, st, base, ref).tail) {
			tail++
		}
	}
	if most := int(looks*significance + 4*math.Sqrt(looks*significance)); errors > most || slow > most || tail > most {
		t.Errorf("of %d looks, surely more errors in %d, surely slower in %d and with slower slowest in %d, at most %d expected", looks, errors, slow, tail, most)
	}
}

// TestOneStallIsNoFault: a pool that stood still for some tenths of a second is not taken
// for a group that is slow, however improbable its median is; a fault is as before.
func TestOneStallIsNoFault(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	well := sli.Stats{Requests: 60, P50: 60 * ms, P95: 170 * ms, P99: 230 * ms}
	for _, tt := range []struct {
		name  string
		quick sli.Stats     // of the canary group
		seen  time.Duration // of the window, until the newest request
		moved bool
	}{
		{"most are slower, few too slow", sli.Stats{Requests: 39, P50: 259 * ms, P95: 505 * ms, P99: 612 * ms}, 1200 * ms, false},
		{"the window is young", sli.Stats{Requests: 39, P50: 300 * ms, P95: 560 * ms, P99: 900 * ms}, 786 * ms, false},
		{"a fault", sli.Stats{Requests: 39, P50: 300 * ms, P95: 900 * ms, P99: 1200 * ms}, 1200 * ms, true},
		{"beyond doubt in a young window", sli.Stats{Requests: 39, P50: 600 * ms, P95: 1600 * ms, P99: 2 * time.Second}, 786 * ms, true},
		{"errors in a young window", sli.Stats{Requests: 39, Errors: 20, P50: 60 * ms, P95: 170 * ms, P99: 230 * ms}, 786 * ms, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := DefaultPolicy()
			p.BadEvaluations, p.SlowEvaluations = 1, 1
			w := sli.Window{From: start, To: start.Add(2 * time.Second)}
			canary, baseline := identity("canary", "canary", "shop"), identity("", "prod", "shop")
			of := func(g group.Group, pool string, st sli.Stats) sli.Stats {
				st.Group, st.Color, st.Env, st.Tenant, st.Service, st.Pool, st.Window = g.ID(), g.Color, g.Env, g.Tenant, semconv.ServiceCore, pool, w
				return st
			}
			in := Input{
				Now: start.Add(1500 * ms), Newest: start.Add(tt.seen), Isolatable: map[string]bool{semconv.ServiceCore: true},
				Homes: map[group.Color]string{canary.Color: semconv.PoolCanary},
				Quick: []sli.Stats{of(canary, semconv.PoolCanary, tt.quick), of(baseline, semconv.PoolBaseline, well)},
				Short: []sli.Stats{of(canary, semconv.PoolCanary, well), of(baseline, semconv.PoolBaseline, well)},
			}
			in.Long = in.Short
			ds, _ := Decide(p, State{}, in)
			if moved := len(ds) == 1 && ds[0].Action == Isolate; moved != tt.moved {
				t.Errorf("isolated: %v, want %v (%+v)", moved, tt.moved, ds)
			}
		})
	}
}
