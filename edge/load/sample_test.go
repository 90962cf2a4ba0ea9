package load

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time {
	return epoch.Add(time.Duration(seconds * float64(time.Second)))
}

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, tt := range []struct {
		name   string
		sorted []time.Duration
		p      float64
		want   time.Duration
	}{
		{"of nothing", nil, 95, 0},
		{"of one", []time.Duration{7}, 50, 7},
		{"95 of a hundred", hundred, 95, 95},
		{"99 of a hundred", hundred, 99, 99},
		{"99.9 of a hundred", hundred, 99.9, 100},
		{"the greatest", hundred, 100, 100},
		{"of two, the lesser is half", []time.Duration{1, 9}, 50, 1},
		{"95 of twenty", hundred[:20], 95, 19},
		{"95 of nineteen", hundred[:19], 95, 19},
	} {
		if got := percentile(tt.sorted, tt.p); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestSummarize(t *testing.T) {
	samples := []sample{
		{due: at(0.9), took: time.Hour}, // before
		{due: at(1), took: 10 * time.Millisecond},
		{due: at(1.5), took: 30 * time.Millisecond, failed: true},
		{due: at(1.6), shed: true},
		{due: at(2), took: time.Hour}, // after
	}
	tries := []try{
		{start: at(1), fault: fault5xx},
		{start: at(1.1), fault: faultTransport},
		{start: at(1.2)},
		{start: at(2), fault: fault5xx},
	}
	want := Figures{
		Requests: 3, Failed: 1, Shed: 1, P50: 10, P95: 30, P99: 30, Max: 30,
		Attempts: 3, Errors5xx: 1, ErrorsTransport: 1,
	}
	if diff := cmp.Diff(want, summarize(samples, tries, at(1), at(2))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFirstBadSecond(t *testing.T) {
	fine := []sample{{due: at(0.1), took: time.Millisecond}, {due: at(1.1), took: time.Millisecond}, {due: at(2.1), took: time.Millisecond}}
	slow := append(append([]sample(nil), fine...), sample{due: at(2.2), took: time.Second})
	for _, tt := range []struct {
		name    string
		samples []sample
		tries   []try
		want    time.Time
	}{
		{"none", fine, nil, time.Time{}},
		{"slow", slow, nil, at(2)},
		{"an error", fine, []try{{start: at(1.9), fault: fault5xx}}, at(1)},
		{"an error before", fine, []try{{start: at(-1), fault: fault5xx}}, time.Time{}},
	} {
		if got := firstBadSecond(tt.samples, tt.tries, at(0), at(10), 500*time.Millisecond); !got.Equal(tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestFirstServed(t *testing.T) {
	tries := []try{
		{start: at(1), end: at(2), pool: "isolated"}, // too early
		{start: at(3), end: at(9), pool: "isolated"},
		{start: at(4), end: at(5), pool: "isolated", fault: fault5xx},
		{start: at(4), end: at(6), pool: "isolated"},
		{start: at(3), end: at(4), pool: "canary"},
	}
	if got := firstServed(tries, "isolated", at(3)); !got.Equal(at(6)) {
		t.Errorf("got %v, want %v", got, at(6))
	}
	if got := firstServed(tries, "baseline", at(0)); !got.IsZero() {
		t.Errorf("got %v, want never", got)
	}
}

func TestLongestSilence(t *testing.T) {
	for _, tt := range []struct {
		name  string
		tries []try
		want  time.Duration
	}{
		{"nobody", nil, 10 * time.Second},
		{"faults do not count", []try{{end: at(5), fault: fault5xx}}, 10 * time.Second},
		{"in the middle", []try{{end: at(1)}, {end: at(6)}, {end: at(8)}}, 5 * time.Second},
		{"at the end", []try{{end: at(3)}}, 7 * time.Second},
	} {
		if got := longestSilence(tt.tries, at(0), at(10)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Requests start by the clock although none is answered, until the limit.
func TestPaceIsAnOpenLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 995*time.Millisecond)
		defer cancel()
		var done, shed atomic.Int32
		pace(ctx, begin, 100, 70, func(i int, due time.Time) {
			if want := begin.Add(time.Duration(i) * 10 * time.Millisecond); !due.Equal(want) || !time.Now().Equal(due) {
				t.Errorf("request %d is due at %v and starts at %v, want %v", i, due, time.Now(), want)
			}
			time.Sleep(time.Minute)
			done.Add(1)
		}, func(int, time.Time) { shed.Add(1) })
		if done.Load() != 70 || shed.Load() != 30 {
			t.Errorf("%d done and %d shed, want 70 and 30", done.Load(), shed.Load())
		}
	})
}
