package hist

import (
	"testing"
	"time"
)

func TestEveryDurationLiesWithinItsBucket(t *testing.T) {
	for d := time.Duration(1); d < 300*time.Second; d = d*17/16 + 1 {
		i := Index(d)
		from, to := Bounds(i)
		if d < from || d >= to && i != Slots-1 {
			t.Fatalf("%v falls into bucket %d, which is [%v, %v)", d, i, from, to)
		}
		if from >= 8192 && i < Slots-1 && (to-from)*8 > from {
			t.Fatalf("bucket %d [%v, %v) is wider than an eighth", i, from, to)
		}
	}
	if got := Index(-1); got != 0 {
		t.Errorf("Index(-1) = %d, want 0", got)
	}
	if got := Index(time.Hour); got != Slots-1 {
		t.Errorf("Index(1h) = %d, want the last, %d", got, Slots-1)
	}
}

func TestBucketsTouch(t *testing.T) {
	for i := range Slots - 1 {
		if from, _ := Bounds(i); Index(from) != i || i > 0 && Index(from-1) != i-1 {
			t.Fatalf("bucket %d does not begin at %v", i, from)
		}
	}
}

func TestQuantile(t *testing.T) {
	var h Histogram
	if got := h.Quantile(0.5); got != 0 {
		t.Errorf("empty histogram: P50 = %v", got)
	}
	for i := 1; i <= 1000; i++ {
		h.Record(time.Duration(i) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.95: 950 * time.Millisecond, 0.99: 990 * time.Millisecond, 0: time.Millisecond, 1: time.Second} {
		got := h.Quantile(q)
		if from, to := Bounds(Index(want)); got < from || got > to {
			t.Errorf("P%g = %v, want within [%v, %v)", q*100, got, from, to)
		}
	}
	if got, want := h.Mean(), 500500*time.Microsecond; got != want {
		t.Errorf("mean = %v, want %v", got, want)
	}
}

func TestSince(t *testing.T) {
	var before, after Histogram
	before.RecordN(time.Millisecond, 5)
	after = before
	after.RecordN(time.Second, 2)
	d := after.Since(&before)
	if d.Count() != 2 || d.Sum != uint64(2*time.Second) {
		t.Errorf("difference has %d events, sum %v", d.Count(), time.Duration(d.Sum))
	}
	if d := before.Since(&after); d.Count() != 5 {
		t.Errorf("a counter that went back counts %d events, want all 5", d.Count())
	}
}

func TestCumulativeCountsEveryEventOnce(t *testing.T) {
	var h Histogram
	h.Record(0)
	h.Record(3 * time.Microsecond)
	h.Record(5 * time.Millisecond)
	h.Record(100 * time.Second)
	got := h.Cumulative()
	if n := got[(time.Duration(1) << 37).Seconds()]; n != 4 {
		t.Errorf("last bound has %d events, want 4: %v", n, got)
	}
	if n := got[(time.Duration(4096)).Seconds()]; n != 2 {
		t.Errorf("below 4.096 us: %d events, want 2", n)
	}
}
