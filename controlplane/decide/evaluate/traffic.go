package evaluate

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
)

// Tick is how often groups are measured and decided on.
const Tick = 250 * time.Millisecond

// Traffic is what happens in one run, all of it drawn from a seed. Times count from
// the start of the run.
type Traffic struct {
	Length   time.Duration
	Groups   []Group
	Bursts   []Burst
	Pauses   []Pause
	Faults   []Fault // the truth
	Pipeline Pipeline
}

// Group is one traffic group and what its requests are like while nothing is wrong.
type Group struct {
	group.Group
	Pool    string
	Rate    float64 // requests a second, a Poisson process
	Diurnal Diurnal
	Median  time.Duration // latency is lognormal
	Sigma   float64       // of the logarithm of latency
	Tail    float64       // exponent of the Pareto tail that the slowest twentieth has; 0: none
	Errors  float64       // share of requests that fail
}

// Diurnal lets a rate swing as a sine.
type Diurnal struct {
	Swing  float64 // 0 to 1: of the rate
	Period time.Duration
	Phase  float64 // 0 to 1
}

// Burst is a multiple of a group's rate for a while, with the queueing it costs.
type Burst struct {
	Group         int
	From, To      time.Duration
	Rate, Latency float64 // factors
}

// Pause holds a pool's requests until its end, as a collection of garbage does.
type Pause struct {
	Pool     string
	From, To time.Duration
}

// Fault is the truth about a run: who suffers, from when to when, how, and whether
// isolating one of them is right. It grows over Ramp.
type Fault struct {
	From, To, Ramp time.Duration
	Groups         []int
	Latency        float64 // factor, 1 for none
	Errors         float64 // share of requests that fail besides those that always do
	Lost           float64 // share of these errors that no upstream answered
	Isolate        bool    // false: the cause is not the group's, so moving it is wrong
}

// Pipeline is what lies between the end of a request and its place in the statistics.
type Pipeline struct {
	Delay  time.Duration // of every span
	Jitter time.Duration // besides Delay, evenly spread
	Late   float64       // share of spans that come up to LateBy later still
	LateBy time.Duration
	Gaps   []Gap
}

// Gap is a time in which no span is stored: they come at its end, or never.
type Gap struct {
	From, To time.Duration
	Lose     bool
}

// visible is when a span that ends at a time can be counted, and whether it ever can.
func (p *Pipeline) visible(rnd *rand.Rand, end float64) (float64, bool) {
	at := end + p.Delay.Seconds()
	if p.Jitter > 0 {
		at += rnd.Float64() * p.Jitter.Seconds()
	}
	if p.Late > 0 && rnd.Float64() < p.Late {
		at += rnd.Float64() * p.LateBy.Seconds()
	}
	for _, g := range p.Gaps {
		if at >= g.From.Seconds() && at < g.To.Seconds() {
			return g.To.Seconds(), !g.Lose
		}
	}
	return at, true
}

// request is one sample.
type request struct {
	group   int
	start   float64 // seconds
	latency float64 // seconds
	failed  bool
	lost    bool // no upstream answered
}

// mood is what holds for a group during one tick.
type mood struct{ rate, latency, errors, lost float64 }

func (t *Traffic) mood(i int, at time.Duration) mood {
	g := &t.Groups[i]
	m := mood{rate: g.Rate, latency: 1, errors: g.Errors}
	if d := g.Diurnal; d.Swing > 0 {
		m.rate *= 1 + d.Swing*math.Sin(2*math.Pi*(at.Seconds()/d.Period.Seconds()+d.Phase))
	}
	for _, b := range t.Bursts {
		if b.Group == i && at >= b.From && at < b.To {
			m.rate *= b.Rate
			m.latency *= b.Latency
		}
	}
	return m
}

// suffer adds what faults do to a request that starts at a time, in seconds.
func (t *Traffic) suffer(i int, start float64, m mood) mood {
	for k := range t.Faults {
		f := &t.Faults[k]
		if start < f.From.Seconds() || start >= f.To.Seconds() || !slices.Contains(f.Groups, i) {
			continue
		}
		grown := 1.0
		if f.Ramp > 0 {
			grown = min(1, (start-f.From.Seconds())/f.Ramp.Seconds())
		}
		m.latency *= 1 + (f.Latency-1)*grown
		m.errors += (1 - m.errors) * f.Errors * grown
		m.lost = f.Lost
	}
	return m
}

// requests gives those of group i that start in the tick at a time, oldest first.
func (t *Traffic) requests(rnd *rand.Rand, i int, at time.Duration, yield func(request)) {
	calm := t.mood(i, at)
	if calm.rate <= 0 {
		return
	}
	g := &t.Groups[i]
	mu, end := math.Log(g.Median.Seconds()), (at + Tick).Seconds()
	pauses := t.pauses(g.Pool, at)
	// Gaps between requests of a Poisson process have no memory: each tick begins anew.
	for start := at.Seconds() + rnd.ExpFloat64()/calm.rate; start < end; start += rnd.ExpFloat64() / calm.rate {
		m := t.suffer(i, start, calm)
		r := request{group: i, start: start, latency: math.Exp(mu+g.Sigma*g.draw(rnd)) * m.latency}
		for _, p := range pauses {
			if start >= p.From.Seconds() && start < p.To.Seconds() {
				r.latency += p.To.Seconds() - start
			}
		}
		r.latency = min(r.latency, maxLatency)
		r.failed = rnd.Float64() < m.errors
		r.lost = r.failed && m.lost > 0 && rnd.Float64() < m.lost
		yield(r)
	}
}

// pauses are those of a pool that touch the tick at a time.
func (t *Traffic) pauses(pool string, at time.Duration) []Pause {
	var out []Pause
	for _, p := range t.Pauses {
		if p.Pool == pool && p.From < at+Tick && p.To > at {
			out = append(out, p)
		}
	}
	return out
}

// maxLatency is where clients give up, in seconds.
const maxLatency = 60

// draw is a standard normal number; a group with a Pareto tail has one beyond the 95th
// percentile.
func (g *Group) draw(rnd *rand.Rand) float64 {
	const p95 = 1.6449
	z := rnd.NormFloat64()
	if g.Tail > 0 && z > p95 {
		z = p95 + rnd.ExpFloat64()/(g.Tail*g.Sigma)
	}
	return z
}

var canary = group.ColorOf("canary")
