package load

import (
	"slices"
	"sync"
	"time"

	"github.com/tracegate/tracegate/edge/client"
)

// sample is one request of the schedule.
type sample struct {
	due    time.Time     // when it was to start
	took   time.Duration // from then to its end, all repetitions included
	failed bool          // it was given up
	shed   bool          // it was not started, too many were under way
}

// try is one attempt of a call, as the client tells it.
type try struct {
	start, end time.Time
	pool       string
	fault      fault
}

// fault is what went wrong on the other side.
type fault int

const (
	faultNone fault = iota
	fault5xx
	faultTransport
)

// record collects what a group sees. It is safe for concurrent use.
type record struct {
	mu      sync.Mutex
	samples []sample
	tries   []try
}

func (r *record) add(s sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.samples = append(r.samples, s)
}

// attempt is the client's OnAttempt.
func (r *record) attempt(a client.Attempt) {
	t := try{start: a.Start, end: a.Start.Add(a.Took), pool: a.Served.Pool}
	if a.Fault() {
		t.fault = faultTransport
		if isAnswer(a.Err) {
			t.fault = fault5xx
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries = append(r.tries, t)
}

// snapshot copies what was collected so far.
func (r *record) snapshot() (samples []sample, tries []try) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.samples), slices.Clone(r.tries)
}

// Figures are what a group saw between two moments.
type Figures struct {
	// Requests were to start then; latency counts from when they were to start to
	// their end, repetitions included. Those given up are in it with the time it took.
	Requests int     `json:"requests"`
	Failed   int     `json:"failed"` // given up
	Shed     int     `json:"shed"`   // not started: too many were under way
	P50      float64 `json:"p50_ms"`
	P95      float64 `json:"p95_ms"`
	P99      float64 `json:"p99_ms"`
	Max      float64 `json:"max_ms"`
	// Attempts started then, repetitions and connections included.
	Attempts        int `json:"attempts"`
	Errors5xx       int `json:"errors_5xx"`
	ErrorsTransport int `json:"errors_transport"`
}

// Errors is every fault of the other side.
func (f Figures) Errors() int { return f.Errors5xx + f.ErrorsTransport }

// summarize gives the figures of [from, to).
func summarize(samples []sample, tries []try, from, to time.Time) Figures {
	within := func(t time.Time) bool { return !t.Before(from) && t.Before(to) }
	var f Figures
	var took []time.Duration
	for _, s := range samples {
		if !within(s.due) {
			continue
		}
		f.Requests++
		if s.shed {
			f.Shed++
			continue
		}
		if s.failed {
			f.Failed++
		}
		took = append(took, s.took)
	}
	for _, t := range tries {
		if !within(t.start) {
			continue
		}
		f.Attempts++
		switch t.fault {
		case fault5xx:
			f.Errors5xx++
		case faultTransport:
			f.ErrorsTransport++
		}
	}
	slices.Sort(took)
	f.P50, f.P95, f.P99, f.Max = ms(percentile(took, 50)), ms(percentile(took, 95)), ms(percentile(took, 99)), ms(percentile(took, 100))
	return f
}

// percentile is the nearest rank of sorted: the least value that p percent of the
// values do not exceed. It is 0 of nothing.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(float64(len(sorted))*p/100 + 0.999999999)
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// ms is d in milliseconds with microseconds behind the point.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// firstServed is when the first response from a pool came, of requests begun after since.
func firstServed(tries []try, pool string, since time.Time) (first time.Time) {
	for _, t := range tries {
		if t.pool == pool && t.fault == faultNone && !t.start.Before(since) && (first.IsZero() || t.end.Before(first)) {
			first = t.end
		}
	}
	return first
}

// firstBadSecond is the start of the first second after since that a user would call
// bad: an attempt failed, or the P95 is above limit. Seconds count from since.
func firstBadSecond(samples []sample, tries []try, since, until time.Time, limit time.Duration) time.Time {
	for from := since; from.Before(until); from = from.Add(time.Second) {
		f := summarize(samples, tries, from, from.Add(time.Second))
		if f.Errors() > 0 || f.P95 > ms(limit) {
			return from
		}
	}
	return time.Time{}
}

// longestSilence is the longest time between the ends of attempts without a fault in
// [from, to]: how long nobody was served.
func longestSilence(tries []try, from, to time.Time) time.Duration {
	var ends []time.Time
	for _, t := range tries {
		if t.fault == faultNone && !t.end.Before(from) && !t.end.After(to) {
			ends = append(ends, t.end)
		}
	}
	slices.SortFunc(ends, time.Time.Compare)
	longest, last := time.Duration(0), from
	for _, e := range append(ends, to) {
		longest, last = max(longest, e.Sub(last)), e
	}
	return longest
}
