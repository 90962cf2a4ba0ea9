package contrast_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/tracegate/tracegate/observability/contrast"
)

// samples has n requests of which a share has the value "x" of attribute a, and the rest
// "y"; attributes id and noise say nothing.
func samples(r *rand.Rand, n int, share float64) []contrast.Sample {
	out := make([]contrast.Sample, n)
	for i := range out {
		out[i] = contrast.Sample{"a": "y", "id": fmt.Sprint(r.Uint64()), "noise": fmt.Sprint(r.IntN(5)), "same": "s"}
		if r.Float64() < share {
			out[i]["a"] = "x"
		}
	}
	return out
}

func TestRank(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, tc := range []struct {
		name          string
		bad, good     int
		shares        [2]float64
		least, most   float64 // V; 0: not named at all
		first, second float64
	}{
		{"all of it", 200, 200, [2]float64{1, 0}, 0.99, 1, 1, 0},
		{"few bad ones", 30, 300, [2]float64{1, 0}, 0.97, 1, 1, 0},
		{"most of it", 300, 300, [2]float64{0.9, 0.2}, 0.6, 0.8, 0.9, 0.2},
		{"nothing", 300, 300, [2]float64{0.5, 0.5}, 0, 0, 0, 0},
		{"too few to say", 4, 4, [2]float64{0.5, 0.5}, 0, 0, 0, 0},
	} {
		got := contrast.Rank(samples(r, tc.bad, tc.shares[0]), samples(r, tc.good, tc.shares[1]), 10)
		if tc.least == 0 {
			if len(got) != 0 {
				t.Errorf("%s: %v", tc.name, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Attribute != "a" || got[0].Value != "x" || got[0].V < tc.least || got[0].V > tc.most {
			t.Errorf("%s: %v, want a with V %g to %g", tc.name, got, tc.least, tc.most)
			continue
		}
		if g := got[0]; math.Abs(g.First-tc.first) > 0.1 || math.Abs(g.Second-tc.second) > 0.1 {
			t.Errorf("%s: shares %g and %g, want %g and %g", tc.name, g.First, g.Second, tc.first, tc.second)
		}
	}
}

func TestRankOrdersByHowWellItSeparates(t *testing.T) {
	var bad, good []contrast.Sample
	for i := range 100 {
		bad = append(bad, contrast.Sample{"pool": "canary", "pod": fmt.Sprintf("canary-%d", i%3), "route": fmt.Sprint("/", i%2)})
		good = append(good, contrast.Sample{"pool": "baseline", "pod": fmt.Sprintf("baseline-%d", i%3), "route": fmt.Sprint("/", min(i%10, 1))})
	}
	got := contrast.Rank(bad, good, 10)
	if len(got) != 3 || got[0].Attribute != "pool" || got[1].Attribute != "pod" || got[2].Attribute != "route" || got[2].Value != "/0" {
		t.Errorf("%v", got)
	}
	if got := contrast.Rank(bad, good, 1); len(got) != 1 {
		t.Errorf("limit of 1 gives %d", len(got))
	}
}

func TestRankKnowsWhatIsMissing(t *testing.T) {
	var bad, good []contrast.Sample
	for range 50 {
		bad, good = append(bad, contrast.Sample{}), append(good, contrast.Sample{"dependency db": "fast"})
	}
	got := contrast.Rank(bad, good, 10)
	if len(got) != 1 || got[0].Value != contrast.Absent || got[0].First != 1 || got[0].Second != 0 {
		t.Errorf("%v", got)
	}
	for _, sets := range [][2][]contrast.Sample{{nil, good}, {bad, nil}, {nil, nil}} {
		if got := contrast.Rank(sets[0], sets[1], 10); got != nil {
			t.Errorf("an empty set is separated by %v", got)
		}
	}
}

// TestChanceIsNotNamed draws both sets from one distribution, again and again.
func TestChanceIsNotNamed(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	named := 0
	const runs = 200
	for range runs {
		named += len(contrast.Rank(samples(r, 20+r.IntN(200), 0.3), samples(r, 20+r.IntN(200), 0.3), 10))
	}
	if named > runs/50 { // Alpha is 1%
		t.Errorf("%d attributes named by chance in %d runs", named, runs)
	}
}
