package anomaly

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestJoin: windows end with the newest minute, a minute without a point had no request and
// no P95, and shares count by requests.
func TestJoin(t *testing.T) {
	t.Parallel()
	minute := func(i int, value, of float64) Point {
		return Point{Time: start.Add(time.Duration(i) * time.Minute), Value: value, Of: of}
	}
	points := []Point{minute(0, 1, 60), minute(2, 4, 240), minute(3, 2, 120), minute(6, 8, 480)}
	at := func(i int, value, of float64) Point { return minute(i, value, of) }
	for m, want := range map[Measure][]Point{
		Requests: {at(-3, 0.2, 60), at(2, 14.0/5, 840)},
		Errors:   {at(-3, 1, 60), at(2, (4*240+2*120+8*480)/840.0, 840)},
		Latency:  {at(-3, 1, 60), at(2, 4, 840)},
	} {
		if diff := cmp.Diff(want, m.join(points, 5*time.Minute)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", m, diff)
		}
		if diff := cmp.Diff(points, m.join(points, time.Minute)); diff != "" {
			t.Errorf("%s, a minute (-want +got):\n%s", m, diff)
		}
	}
}

// TestLength: the fewer requests, the longer the window, up to an hour.
func TestLength(t *testing.T) {
	t.Parallel()
	s := DefaultSettings()
	for each, want := range map[float64][2]int{5000: {1, 1}, 300: {1, 5}, 150: {2, 5}, 30: {10, 10}, 10: {20, 20}, 1: {60, 60}} {
		var points []Point
		for i := range 600 {
			points = append(points, Point{Time: start.Add(time.Duration(i) * time.Minute), Of: each})
		}
		if got := [2]int{int(s.length(Requests, points).Minutes()), int(s.length(Latency, points).Minutes())}; got != want {
			t.Errorf("%v a minute: %v minutes, want %v", each, got, want)
		}
	}
	if got := s.length(Errors, nil); got != time.Minute {
		t.Errorf("nothing: %s", got)
	}
}

// TestTail holds the negative binomial tail against its definition, and its ends.
func TestTail(t *testing.T) {
	t.Parallel()
	for _, mean := range []float64{0.05, 1, 30} {
		r, sum := 1/uneven, 0.0
		p := mean / (mean + r)
		term := math.Pow(1-p, r)
		for k := range 2000 {
			if k > 0 && float64(k) > mean {
				if got, want := tail(float64(k), mean, uneven), 1-sum; want > 1e-6 && math.Abs(got-want) > 1e-6*want+1e-12 {
					t.Fatalf("mean %v, %d or more: %v, want %v", mean, k, got, want)
				}
			}
			sum += term
			term *= p * (float64(k) + r) / float64(k+1)
		}
	}
	if tail(3, 5, uneven) != 1 || tail(0, 0, uneven) != 1 || tail(1e6, 1, uneven) <= 0 {
		t.Error("below the mean all is likely, far above it next to nothing")
	}
}

// TestStable: six deviations of a Poisson process are that many whether few or many are
// expected, and rates that differ from day to day need more.
func TestStable(t *testing.T) {
	t.Parallel()
	for _, mean := range []float64{50, 100, 200} { // beyond, rates that differ by a twentieth count more
		spread := 1 / math.Sqrt(mean) // what chance alone makes of so many
		if z := stable(mean+3*math.Sqrt(mean), mean, 1, spread); z < 2 || z > 3.5 {
			t.Errorf("three deviations from %v are %v", mean, z)
		}
		if z := stable(2*mean, mean, 1, 0.3); z > 3 {
			t.Errorf("twice %v, where a third is usual, is %v deviations", mean, z)
		}
	}
}
