package evaluate

import (
	"cmp"
	"slices"
	"time"
)

// Tuned are the stand-ins that a report compares with: the two ends of what [Tune]
// finds on the tuning seeds. Quiet is the quickest of those that are least often wrong
// on traffic without faults, quick the quickest of all.
var Tuned = struct {
	QuietCanary, QuickCanary Canary
	QuietBurn, QuickBurn     BurnRate
}{
	QuietCanary: Canary{Interval: time.Second, Failures: 5, MinSuccess: 0.95, Quantile: 0.95},
	QuickCanary: Canary{Interval: time.Second, Failures: 1, MinSuccess: 0.9, Quantile: 0.95},
	QuietBurn:   BurnRate{Shorten: 1. / 60, Target: 0.9},
	QuickBurn:   BurnRate{Shorten: 1. / 3600, Target: 0.99},
}

// Candidate is how one setting of a stand-in does.
type Candidate struct {
	Canary   *Canary
	Burn     *BurnRate
	Delay    time.Duration // the longer of the medians of both headline faults
	Wrong    int           // isolations on traffic without faults
	method   Method
	outcomes [2][]time.Duration
}

func (c *Candidate) String() string {
	if c.Canary != nil {
		return c.Canary.String()
	}
	return c.Burn.String()
}

func candidates() []*Candidate {
	var out []*Candidate
	for _, interval := range []time.Duration{1, 2, 3, 5, 10, 30, 60} {
		for _, failures := range []int{1, 2, 3, 5} {
			for _, success := range []float64{0.99, 0.95, 0.9, 0.8} {
				for _, quantile := range []float64{0.99, 0.95, 0.9} {
					c := Canary{interval * time.Second, failures, success, quantile}
					out = append(out, &Candidate{Canary: &c, method: c.Method("")})
				}
			}
		}
	}
	for _, shorten := range []float64{60, 120, 300, 600, 1200, 3600} {
		for _, target := range []float64{0.9, 0.93, 0.95, 0.96, 0.97, 0.98, 0.99, 0.999} {
			r := BurnRate{1 / shorten, target}
			out = append(out, &Candidate{Burn: &r, method: r.Method("")})
		}
	}
	return out
}

// Tune tries every setting on the tuning seeds, runs of each headline fault and calm
// ones of each shape, and gives those that no other of the same kind beats on both
// delay and wrong isolations: the least wrong first, the quickest last.
func Tune(runs, calm, workers int) []*Candidate {
	all := candidates()
	methods := make([]Method, len(all))
	for i, c := range all {
		methods[i] = c.method
	}
	for k, s := range headlines() {
		for _, outcomes := range Replay(s, Seeds{Tuning, runs}, methods, workers) {
			for i, o := range outcomes {
				all[i].outcomes[k] = append(all[i].outcomes[k], o.Delay)
			}
		}
	}
	for _, shape := range shapes {
		for _, outcomes := range Replay(calmSpec(shape, 20*time.Minute), Seeds{Tuning, calm}, methods, workers) {
			for i, o := range outcomes {
				all[i].Wrong += o.Wrong
			}
		}
	}
	for _, c := range all {
		for _, delays := range c.outcomes {
			slices.Sort(delays)
			c.Delay = max(c.Delay, quantile(delays, 0.5))
		}
	}
	slices.SortStableFunc(all, func(a, b *Candidate) int {
		return cmp.Or(cmp.Compare(a.Wrong, b.Wrong), cmp.Compare(a.Delay, b.Delay))
	})
	return slices.Concat(frontier(all, true), frontier(all, false))
}

func frontier(sorted []*Candidate, canary bool) []*Candidate {
	var out []*Candidate
	for _, c := range sorted {
		if (c.Canary != nil) == canary && (len(out) == 0 || c.Delay < out[len(out)-1].Delay) {
			out = append(out, c)
		}
	}
	return out
}
