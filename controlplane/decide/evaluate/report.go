package evaluate

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
)

// TargetP95 is the delay that the engine is held to: of faults of five times the latency
// or 20% errors at 50 requests a second.
const TargetP95 = 4 * time.Second

// Plan says how much is played.
type Plan struct {
	First   uint64        // seed; [Reporting] for a report
	Runs    int           // of each cell
	Days    float64       // of groups without a fault, over all shapes
	Alone   float64       // more of these days, for the first method only
	Length  time.Duration // of a run without a fault
	Workers int           // changes nothing but the time it takes
}

// Report is what came out, by method.
type Report struct {
	Plan    Plan
	Methods []string // the first is ours, the last ours without its test
	Cells   []Cell
	Calm    []Calm
}

// Cell is one spec under many seeds.
type Cell struct {
	Table, Name string
	Spec        Spec
	Results     []Result // by method
}

// Result is what one method made of a cell.
type Result struct {
	Median, P95   time.Duration
	Missed, Wrong int
	Runs          int
}

// Calm is traffic of one shape without faults.
type Calm struct {
	Shape Shape
	Days  []float64 // of groups, by method
	Wrong []int     // isolations, by method
}

var shapes = []Shape{Steady, Daily, Bursts, Tails, Pauses, Delayed, Low}

func calmSpec(shape Shape, length time.Duration) Spec {
	return Spec{Shape: shape, Length: length, Pipeline: ProductPipeline()}
}

func step(rate, latency, errors float64) Spec {
	return Spec{Shape: Steady, Rate: rate, Event: Step, Latency: latency, Errors: errors, Pipeline: ProductPipeline()}
}

func headlines() []Spec { return []Spec{step(50, 5, 0), step(50, 1, 0.2)} }

// Before switches the test off: thresholds, three times in a row, much as it was before
// there was a test.
func Before() decide.Policy {
	p := decide.DefaultPolicy()
	p.QuickWindow, p.Significance, p.MinRequests, p.BadEvaluations, p.SlowEvaluations = 0, 1, 20, 3, 3
	return p
}

// Methods are those of a report.
func Methods() []Method {
	return []Method{
		Engine("ours", decide.DefaultPolicy()),
		Tuned.QuietCanary.Method("canary, quiet"), Tuned.QuickCanary.Method("canary, quick"),
		Tuned.QuietBurn.Method("burn rate, quiet"), Tuned.QuickBurn.Method("burn rate, quick"),
		Engine("thresholds alone", Before()),
	}
}

// Cells are the faults of a report.
func Cells() []Cell {
	late := func(s Spec) Spec { s.Pipeline = LatePipeline(); return s }
	with := func(shape Shape, event Event, rate, latency, errors float64) Spec {
		s := step(rate, latency, errors)
		s.Shape, s.Event = shape, event
		return s
	}
	out := []Cell{
		{Table: "headline", Name: "latency x5", Spec: step(50, 5, 0)},
		{Table: "headline", Name: "20% errors", Spec: step(50, 1, 0.2)},
		{Table: "late", Name: "latency x5", Spec: late(step(50, 5, 0))},
		{Table: "late", Name: "20% errors", Spec: late(step(50, 1, 0.2))},
		{Table: "scenario", Name: "latency x10 and 30% errors, 60 req/s", Spec: step(60, 10, 0.3)},
	}
	for _, shape := range shapes[1:] {
		rate := 50.0
		if shape == Low {
			rate = 3
		}
		out = append(out,
			Cell{Table: "scenario", Name: string(shape) + ", latency x5", Spec: with(shape, Step, rate, 5, 0)},
			Cell{Table: "scenario", Name: string(shape) + ", 20% errors", Spec: with(shape, Step, rate, 1, 0.2)})
	}
	out = append(out,
		Cell{Table: "scenario", Name: "gradual over 20 s, latency to x5", Spec: with(Steady, Gradual, 50, 5, 0)},
		Cell{Table: "scenario", Name: "gradual over 20 s, errors to 20%", Spec: with(Steady, Gradual, 50, 1, 0.2)},
		Cell{Table: "scenario", Name: "partial outage, 50% errors, half of them without upstream", Spec: with(Steady, Outage, 50, 1, 0.5)},
		Cell{Table: "scenario", Name: "deploy regression, canary pool, latency x5 and 5% errors", Spec: with(Steady, Regression, 50, 5, 0.05)},
		Cell{Table: "scenario", Name: "noisy neighbour in the canary pool, latency x5", Spec: with(Steady, Regression, 50, 5, 0)},
		Cell{Table: "wrong", Name: "noisy neighbour in the baseline pool, latency x5", Spec: with(Steady, Neighbour, 50, 5, 0)},
		Cell{Table: "wrong", Name: "baseline pool fails, 20% errors", Spec: with(Steady, Neighbour, 50, 1, 0.2)},
		Cell{Table: "wrong", Name: "everything slow, latency x5", Spec: with(Steady, Everywhere, 50, 5, 0)},
		Cell{Table: "wrong", Name: "everything fails, 20% errors", Spec: with(Steady, Everywhere, 50, 1, 0.2)})
	for _, size := range []float64{1.5, 2, 3, 4, 5, 7, 10} {
		out = append(out, Cell{Table: "latency", Name: fmt.Sprintf("x%g", size), Spec: step(50, size, 0)})
	}
	for _, size := range []float64{0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5} {
		out = append(out, Cell{Table: "errors", Name: fmt.Sprintf("%.0f%%", 100*size), Spec: step(50, 1, size)})
	}
	for _, rate := range []float64{2, 5, 10, 20, 50, 100} {
		out = append(out,
			Cell{Table: "rate", Name: fmt.Sprintf("%.0f req/s, latency x5", rate), Spec: step(rate, 5, 0)},
			Cell{Table: "rate", Name: fmt.Sprintf("%.0f req/s, 20%% errors", rate), Spec: step(rate, 1, 0.2)})
	}
	return out
}

// Evaluate plays everything. It depends on nothing but its arguments.
func Evaluate(p Plan, cells []Cell, methods []Method) Report {
	r := Report{Plan: p, Cells: cells}
	for _, m := range methods {
		r.Methods = append(r.Methods, m.Name)
	}
	for i := range r.Cells {
		c := &r.Cells[i]
		c.Results = summarize(Replay(c.Spec, Seeds{p.First, p.Runs}, methods, p.Workers), len(methods))
	}
	// The thresholds alone are wrong so often that a part of the days shows it.
	last := len(methods) - 1
	groups := float64(len(calmSpec(Steady, p.Length).Traffic(0).Groups))
	perRun := groups * p.Length.Hours() / 24
	for _, shape := range shapes {
		c := Calm{Shape: shape, Days: make([]float64, len(methods)), Wrong: make([]int, len(methods))}
		n := max(1, int(math.Ceil(p.Days/float64(len(shapes))/perRun)))
		c.add(Replay(calmSpec(shape, p.Length), Seeds{p.First, n}, methods[:last], p.Workers), 0, perRun)
		c.add(Replay(calmSpec(shape, p.Length), Seeds{p.First, max(1, min(n, 20))}, methods[last:], p.Workers), last, perRun)
		if more := int(math.Ceil(p.Alone / float64(len(shapes)) / perRun)); more > 0 {
			c.add(Replay(calmSpec(shape, p.Length), Seeds{p.First + uint64(n), more}, methods[:1], p.Workers), 0, perRun) //nolint:gosec // a count
		}
		r.Calm = append(r.Calm, c)
	}
	return r
}

func (c *Calm) add(runs [][]Outcome, first int, days float64) {
	for _, outcomes := range runs {
		for i, o := range outcomes {
			c.Days[first+i] += days
			c.Wrong[first+i] += o.Wrong
		}
	}
}

func summarize(runs [][]Outcome, methods int) []Result {
	out := make([]Result, methods)
	for i := range out {
		var delays []time.Duration
		for _, outcomes := range runs {
			o := outcomes[i]
			delays = append(delays, o.Delay)
			out[i].Wrong += o.Wrong
			if o.Delay == Missed {
				out[i].Missed++
			}
		}
		slices.Sort(delays)
		out[i].Runs, out[i].Median, out[i].P95 = len(runs), quantile(delays, 0.5), quantile(delays, 0.95)
	}
	return out
}

// quantile of what is sorted.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return Missed
	}
	return sorted[rank(len(sorted), q)-1]
}

// Total adds the shapes up: days and wrong isolations of a method.
func (r *Report) Total(method int) (days float64, wrong int) {
	for _, c := range r.Calm {
		days += c.Days[method]
		wrong += c.Wrong[method]
	}
	return days, wrong
}

// Per1000 is a rate of isolations in 1,000 group-days.
func Per1000(wrong int, days float64) float64 { return 1000 * float64(wrong) / days }

// UpTo is the upper end of the one-sided 95% confidence interval of a Poisson count: a
// quantile of chi-squared, after Wilson and Hilferty (within 1%).
func UpTo(count int) float64 {
	n := float64(count) + 1
	c := 1 - 1/(9*n) + 1.6449/(3*math.Sqrt(n))
	return n * c * c * c
}
