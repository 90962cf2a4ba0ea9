package evaluate

import (
	"fmt"
	"time"
)

// muted is how long a stand-in leaves a group alone that it has isolated: as long as
// our policy isolates it at first.
const muted = 30 * time.Second

// Canary checks thresholds at a fixed interval and acts after a number of failed
// checks, in the manner of Flagger, whose defaults are a check a minute, five failures,
// 99% success and a P99 below 500 ms (https://docs.flagger.app/usage/metrics,
// https://docs.flagger.app/usage/how-it-works). Flagger counts failures of a whole
// rollout; here they must be consecutive, since traffic never ends. It has no baseline.
type Canary struct {
	Interval   time.Duration // whole seconds; also the window that is checked
	Failures   int           // consecutive
	MinSuccess float64
	Quantile   float64 // of latency, that must be below the objective
}

func (c Canary) String() string {
	return fmt.Sprintf("every %s, %d failures, success %.4g%%, P%.4g", c.Interval, c.Failures, 100*c.MinSuccess, 100*c.Quantile)
}

// Method makes it comparable.
func (c Canary) Method(name string) Method {
	return Method{Name: name, New: func(groups []Group) Detector {
		return &checker{Canary: c, failed: make([]int, len(groups)), quiet: make([]time.Duration, len(groups))}
	}}
}

type checker struct {
	Canary
	failed []int
	quiet  []time.Duration
}

// Look implements [Detector].
func (c *checker) Look(now time.Duration, b *board) []int {
	if now == 0 || now%c.Interval != 0 {
		return nil
	}
	var out []int
	for g := range b.groups {
		n := b.since(g, c.Interval)
		if n.requests == 0 || now < c.quiet[g] {
			continue
		}
		if float64(n.errors) <= (1-c.MinSuccess)*float64(n.requests) && float64(n.slow) <= (1-c.Quantile)*float64(n.requests) {
			c.failed[g] = 0
			continue
		}
		if c.failed[g]++; c.failed[g] >= c.Failures {
			c.failed[g], c.quiet[g] = 0, now+muted
			out = append(out, g)
		}
	}
	return out
}

// BurnRate alerts on several windows of how fast an error budget burns: both the long
// and the short window of a pair must burn faster than its factor. Factors and windows
// are those of the Google SRE workbook (chapter 5, "Alerting on SLOs", approach 6,
// table 5-8: 14.4x over 1 h and 5 min, 6x over 6 h and 30 min, 1x over 3 d and 6 h;
// https://sre.google/workbook/alerting-on-slos/), all windows shortened by one factor,
// since a budget of 30 days has no use for seconds. An event is bad where it failed or
// was slower than the objective.
type BurnRate struct {
	Shorten float64 // factor of the windows, e.g. 1/300
	Target  float64 // share of good events that is promised
}

func (r BurnRate) String() string {
	p := r.pairs()
	return fmt.Sprintf("windows %s/%s, %s/%s, %s/%s, target %.4g%%", p[0].long, p[0].short, p[1].long, p[1].short, p[2].long, p[2].short, 100*r.Target)
}

type pair struct {
	long, short time.Duration
	factor      float64
}

func (r BurnRate) pairs() []pair {
	out := []pair{{time.Hour, 5 * time.Minute, 14.4}, {6 * time.Hour, 30 * time.Minute, 6}, {72 * time.Hour, 6 * time.Hour, 1}}
	for i := range out {
		out[i].long = max(time.Second, time.Duration(float64(out[i].long)*r.Shorten).Round(time.Second))
		out[i].short = max(time.Second, time.Duration(float64(out[i].short)*r.Shorten).Round(time.Second))
	}
	return out
}

// Method makes it comparable.
func (r BurnRate) Method(name string) Method {
	return Method{Name: name, New: func(groups []Group) Detector {
		return &burner{pairs: r.pairs(), budget: 1 - r.Target, quiet: make([]time.Duration, len(groups))}
	}}
}

type burner struct {
	pairs  []pair
	budget float64
	quiet  []time.Duration
}

// Look implements [Detector].
func (r *burner) Look(now time.Duration, b *board) []int {
	if now%time.Second != 0 {
		return nil
	}
	var out []int
	for g := range b.groups {
		if now < r.quiet[g] {
			continue
		}
		for _, p := range r.pairs {
			limit := p.factor * r.budget
			if b.since(g, p.short).badRatio() > limit && b.since(g, p.long).badRatio() > limit {
				r.quiet[g] = now + muted
				out = append(out, g)
				break
			}
		}
	}
	return out
}

// since is what arrived in the last d, whole seconds; less where the run is younger.
func (b *board) since(g int, d time.Duration) total {
	t := b.totals[g]
	last := len(t) - 1
	was := t[max(0, last-int(d/time.Second))]
	n := t[last]
	return total{n.requests - was.requests, n.errors - was.errors, n.slow - was.slow, n.bad - was.bad}
}

func (t total) badRatio() float64 {
	if t.requests == 0 {
		return 0
	}
	return float64(t.bad) / float64(t.requests)
}
