package sli_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/observability/sli"
)

func histogram(durations []time.Duration) sli.Histogram {
	if len(durations) == 0 {
		return sli.Histogram{}
	}
	counts := map[int16]uint64{}
	for _, d := range durations {
		counts[sli.BucketOf(d)]++
	}
	return sli.NewHistogram(counts)
}

func TestBucketsHaveTheirBounds(t *testing.T) {
	for _, d := range []time.Duration{-1, 0, 1, 2, 3, 1023, 1024, 1025, time.Millisecond, time.Second, 31 * 24 * time.Hour, math.MaxInt64} {
		i := sli.BucketOf(d)
		if v := max(1, float64(d)); v > sli.BucketBound(i)*(1+1e-12) || v <= sli.BucketBound(i-1)*(1-1e-12) {
			t.Errorf("%d ns is not in bucket %d: above %f, up to %f", d, i, sli.BucketBound(i-1), sli.BucketBound(i))
		}
	}
	if i := sli.BucketOf(1024); sli.BucketBound(i) != 1024 {
		t.Errorf("1024 ns is in the bucket up to %f", sli.BucketBound(i))
	}
}

// TestQuantile: the answer lies in the bucket of the true one, whatever the distribution.
func TestQuantile(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 3, 10, 100, 1000} {
		for range 5 {
			durations := make([]time.Duration, n)
			for i := range durations {
				durations[i] = time.Duration(1e6 * math.Exp(3*r.NormFloat64()))
			}
			h := histogram(durations)
			slices.Sort(durations)
			if got := h.Total(); got != uint64(n) {
				t.Fatalf("total %d, want %d", got, n)
			}
			for _, q := range []float64{0, 0.01, 0.5, 0.95, 0.99, 1} {
				want := durations[max(0, int(math.Ceil(q*float64(n-1)-0.5)))]
				got, i := h.Quantile(q), sli.BucketOf(want)
				if float64(got) < sli.BucketBound(i-1)-1 || float64(got) > sli.BucketBound(i)+1 {
					t.Errorf("%d samples: quantile %g is %s, want %s or its bucket", n, q, got, want)
				}
			}
		}
	}
	if got := (sli.Histogram{}).Quantile(0.95); got != 0 {
		t.Errorf("quantile of nothing is %s", got)
	}
}

// TestAddIsExact: the order in which histograms are added changes nothing.
func TestAddIsExact(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		durations := make([]time.Duration, r.IntN(200))
		for i := range durations {
			durations[i] = time.Duration(r.ExpFloat64() * 1e7)
		}
		want := histogram(durations)
		at := r.IntN(len(durations) + 1)
		a, b := histogram(durations[:at]), histogram(durations[at:])
		for _, both := range [][]sli.Histogram{{a, b}, {b, a}} {
			var sum sli.HistogramSum
			for _, h := range both {
				sum.Add(h)
			}
			if diff := cmp.Diff(want, sum.Histogram()); diff != "" {
				t.Fatalf("sum (-want +got):\n%s", diff)
			}
		}
		var sum sli.HistogramSum
		for _, i := range r.Perm(len(durations)) {
			sum.Add(histogram(durations[i : i+1]))
		}
		sum.Add(sli.Histogram{})
		if diff := cmp.Diff(want, sum.Histogram()); diff != "" {
			t.Fatalf("sum of each (-want +got):\n%s", diff)
		}
	}
}
