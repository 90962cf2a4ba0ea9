package bpf

import (
	"cmp"
	"slices"
	"time"

	"github.com/tracegate/tracegate/bpf/hist"
	"github.com/tracegate/tracegate/bpf/probe"
)

// seriesKey identifies a series over time.
type seriesKey struct {
	Probe, Kind string
	Owner       probe.Owner
	Target      string
	Reason      string // of counts
}

// reading is everything read at one time.
type reading struct {
	at     time.Time
	series map[seriesKey]hist.Histogram
	counts map[seriesKey]uint64
}

// windows keeps the last readings and says what happened between the oldest and the
// newest. It belongs to one goroutine.
type windows struct {
	keep     int // readings, besides the newest
	readings []reading
}

// add takes the newest reading.
func (w *windows) add(r reading) {
	w.readings = append(w.readings, r)
	if extra := len(w.readings) - w.keep - 1; extra > 0 {
		w.readings = slices.Delete(w.readings, 0, extra)
	}
}

// span is the time the window covers so far.
func (w *windows) span() time.Duration {
	if len(w.readings) < 2 {
		return 0
	}
	return w.readings[len(w.readings)-1].at.Sub(w.readings[0].at)
}

// latencies returns every series of the newest reading with what it gained in the
// window, in a stable order. A series that is new counts from zero: it began within.
func (w *windows) latencies(th Thresholds) []Latency {
	if len(w.readings) < 2 {
		return nil
	}
	first, last := w.readings[0], w.readings[len(w.readings)-1]
	out := make([]Latency, 0, len(last.series))
	for k, now := range last.series {
		before := first.series[k]
		gained := now.Since(&before)
		out = append(out, Latency{
			Probe: k.Probe, Kind: k.Kind, Owner: k.Owner, Target: k.Target,
			Count: gained.Count(), Total: now.Count(), Threshold: th.threshold(k.Kind),
			Mean: gained.Mean(), P50: gained.Quantile(0.5), P95: gained.Quantile(0.95), P99: gained.Quantile(0.99),
		})
	}
	slices.SortFunc(out, func(a, b Latency) int {
		return cmp.Or(cmp.Compare(a.Probe, b.Probe), cmp.Compare(a.Kind, b.Kind), compareOwner(a.Owner, b.Owner),
			cmp.Compare(a.Target, b.Target))
	})
	return out
}

// counts is latencies for counters.
func (w *windows) counts() []Counter {
	if len(w.readings) < 2 {
		return nil
	}
	first, last := w.readings[0], w.readings[len(w.readings)-1]
	out := make([]Counter, 0, len(last.counts))
	for k, now := range last.counts {
		gained := now
		if before := first.counts[k]; before <= now {
			gained = now - before
		}
		out = append(out, Counter{Probe: k.Probe, Kind: k.Kind, Owner: k.Owner, Target: k.Target, Reason: k.Reason, Count: gained, Total: now})
	}
	slices.SortFunc(out, func(a, b Counter) int {
		return cmp.Or(cmp.Compare(a.Probe, b.Probe), cmp.Compare(a.Kind, b.Kind), compareOwner(a.Owner, b.Owner),
			cmp.Compare(a.Target, b.Target), cmp.Compare(a.Reason, b.Reason))
	})
	return out
}

func compareOwner(a, b probe.Owner) int {
	return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Name, b.Name))
}
