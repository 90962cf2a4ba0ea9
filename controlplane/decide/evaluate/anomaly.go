package evaluate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tracegate/tracegate/mesh/benchdoc"
	"github.com/tracegate/tracegate/observability/anomaly"
)

// A day of the generator's diurnal traffic is 20 minutes. The detector is told that it is a
// whole one, so its minute is 0.83 s here.
const (
	fastDay    = 20 * time.Minute
	fastMinute = fastDay / (24 * 60)
	dayMinutes = 24 * 60
)

// Days of a run: those that make what is usual, and those without a fault that follow.
const (
	learned = 7
	calm    = 7
)

// AnomalyFault is something that happens to one group for half an hour of the day after
// those that are learned.
type AnomalyFault struct {
	Name    string
	Measure anomaly.Measure
	Latency float64 // factor; 0: as it is
	Errors  float64 // share of requests that fail besides
	Rate    float64 // factor; 0: as it is
}

// AnomalyFaults are the sizes that are evaluated.
func AnomalyFaults() []AnomalyFault {
	return []AnomalyFault{
		{Name: "latency x1.5", Measure: anomaly.Latency, Latency: 1.5},
		{Name: "latency x2", Measure: anomaly.Latency, Latency: 2},
		{Name: "latency x3", Measure: anomaly.Latency, Latency: 3},
		{Name: "latency x5", Measure: anomaly.Latency, Latency: 5},
		{Name: "2% errors", Measure: anomaly.Errors, Errors: 0.02},
		{Name: "5% errors", Measure: anomaly.Errors, Errors: 0.05},
		{Name: "20% errors", Measure: anomaly.Errors, Errors: 0.2},
		{Name: "requests x3", Measure: anomaly.Requests, Rate: 3},
		{Name: "requests x0.2", Measure: anomaly.Requests, Rate: 0.2},
	}
}

// AnomalyShapes are the days that are evaluated: all alike, or each with a rate of its own.
func AnomalyShapes() []string { return []string{"days alike", "days differ", "slow tails"} }

// AnomalyPlan says how much is played.
type AnomalyPlan struct {
	First   uint64 // seed
	Rates   []float64
	Runs    int // without a fault, of each shape and rate; each gives a week of a group
	Faults  int // runs of each fault and rate
	Workers int
}

// AnomalyReport is what a plan gave.
type AnomalyReport struct {
	Plan  AnomalyPlan
	False map[string][]FalseAnomalies // by shape, in the order of Rates
	Found [][]int                     // by fault, then rate: runs in which it was found
	Soon  [][]time.Duration           // and the median time until a minute that says so is over
}

// FalseAnomalies are incidents: findings of a measure that are less than a quarter of an
// hour apart are one.
type FalseAnomalies struct {
	Days      int
	Incidents map[anomaly.Measure]int
}

// Total of all measures.
func (f FalseAnomalies) Total() (n int) {
	for _, k := range f.Incidents {
		n += k
	}
	return n
}

// apart is how far findings of one incident may be from each other.
const apart = 15 * time.Minute

// Anomalies plays a plan past anomaly.Find.
func Anomalies(p AnomalyPlan, s anomaly.Settings) AnomalyReport {
	r := AnomalyReport{Plan: p, False: map[string][]FalseAnomalies{}}
	for _, shape := range AnomalyShapes() {
		for i, rate := range p.Rates {
			found := FalseAnomalies{Incidents: map[anomaly.Measure]int{}}
			for _, one := range spread(p.Runs, p.Workers, func(k int) map[anomaly.Measure]int {
				return calmDays(s, shape, rate, p.First+uint64(i*p.Runs+k))
			}) {
				found.Days += calm
				for m, n := range one {
					found.Incidents[m] += n
				}
			}
			r.False[shape] = append(r.False[shape], found)
		}
	}
	for i, rate := range p.Rates {
		runs := spread(p.Faults, p.Workers, func(k int) []time.Duration {
			return suffer(s, rate, p.First+uint64(1<<20+i*p.Faults+k))
		})
		for f := range AnomalyFaults() {
			if i == 0 {
				r.Found, r.Soon = append(r.Found, nil), append(r.Soon, nil)
			}
			n := 0
			var delays []time.Duration
			for _, run := range runs {
				delays = append(delays, run[f])
				if run[f] != Missed {
					n++
				}
			}
			slices.Sort(delays)
			r.Found[f], r.Soon[f] = append(r.Found[f], n), append(r.Soon[f], delays[len(delays)/2])
		}
	}
	return r
}

// spread does n things on some workers, and gives what came of them in their order.
func spread[T any](n, workers int, do func(int) T) []T {
	out := make([]T, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range max(1, workers) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				out[i] = do(i)
			}
		})
	}
	wg.Wait()
	return out
}

// week is the traffic of one group; rate is requests a minute, on average over a day.
func week(shape string, rate float64, days int, seed uint64) Traffic {
	t := Spec{Shape: Daily, Rate: rate / fastMinute.Seconds(), Length: time.Duration(days) * fastDay}.Traffic(seed)
	t.Groups = t.Groups[:1]
	rnd := rand.New(rand.NewPCG(seed, 0x6461797364696666))
	switch shape {
	case "days differ":
		for d := range days {
			t.Bursts = append(t.Bursts, Burst{From: time.Duration(d) * fastDay, To: time.Duration(d+1) * fastDay, Rate: math.Exp(between(rnd, -0.35, 0.35)), Latency: math.Exp(between(rnd, -0.1, 0.1))})
		}
	case "slow tails":
		t.Groups[0].Tail = between(rnd, 2, 3)
	}
	return t
}

// calmDays counts incidents in the days of a run that has no fault.
func calmDays(s anomaly.Settings, shape string, rate float64, seed uint64) map[anomaly.Measure]int {
	series := minutesOf(week(shape, rate, learned+calm, seed), seed, 0, learned+calm)
	out := map[anomaly.Measure]int{}
	for m, points := range series {
		for d := learned; d < learned+calm; d++ {
			from, to := day(d), day(d+1)
			var last time.Time
			for _, f := range find(s, m, within(points, day(d-learned), to), from) {
				if last.IsZero() || f.Time.Sub(last) >= apart {
					out[m]++
				}
				last = f.Time
			}
		}
	}
	return out
}

// suffer says how long after the onset of each fault a finding of its measure is complete.
// All faults follow the same week.
func suffer(s anomaly.Settings, rate float64, seed uint64) []time.Duration {
	const lasts = 30 * time.Minute
	t := week("days alike", rate, learned, seed)
	before := minutesOf(t, seed, 0, learned)
	onset := time.Duration(seed%24) * time.Hour
	from := learned*fastDay + onset/(24*time.Hour/fastDay)
	to, began := from+fastDay/48, day(learned).Add(onset)
	var out []time.Duration
	for i, f := range AnomalyFaults() {
		t.Faults = []Fault{{From: from, To: to, Groups: []int{0}, Latency: max(1, f.Latency), Errors: f.Errors}}
		t.Bursts = nil
		if f.Rate > 0 {
			t.Bursts = []Burst{{From: from, To: to, Rate: f.Rate, Latency: 1}}
		}
		points := slices.Concat(before[f.Measure], minutesOf(t, seed+uint64(i+1)<<40, learned, learned+1)[f.Measure])
		delay := Missed
		for _, x := range find(s, f.Measure, points, day(learned)) {
			if end := x.Time.Add(x.Length); end.After(began) && x.Time.Before(began.Add(lasts)) {
				delay = min(max(end.Sub(began), time.Minute), lasts)
				break
			}
		}
		out = append(out, delay)
	}
	return out
}

// find gives findings in the order of time.
func find(s anomaly.Settings, m anomaly.Measure, points []anomaly.Point, since time.Time) []anomaly.Finding {
	fs := anomaly.Find(s, m, points, since)
	slices.SortFunc(fs, func(a, b anomaly.Finding) int { return a.Time.Compare(b.Time) })
	return fs
}

func day(d int) time.Time { return midnight.Add(time.Duration(d) * 24 * time.Hour) }

// midnight is when the days of the detector begin.
var midnight = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func within(points []anomaly.Point, from, to time.Time) []anomaly.Point {
	at := func(t time.Time) int {
		i, _ := slices.BinarySearchFunc(points, t, func(p anomaly.Point, t time.Time) int { return p.Time.Compare(t) })
		return i
	}
	return points[at(from):at(to)]
}

// minutesOf are the series of the first group in some days, as the store would give them.
func minutesOf(t Traffic, seed uint64, from, to int) map[anomaly.Measure][]anomaly.Point {
	rnd := rand.New(rand.NewPCG(seed, 9))
	latencies, failed := make([][]float64, (to-from)*dayMinutes), make([]int, (to-from)*dayMinutes)
	for at := time.Duration(from) * fastDay; at < time.Duration(to)*fastDay; at += Tick {
		t.requests(rnd, 0, at, func(r request) {
			i := int(seconds(r.start)/fastMinute) - from*dayMinutes
			if i >= len(failed) {
				return
			}
			latencies[i] = append(latencies[i], r.latency)
			if r.failed {
				failed[i]++
			}
		})
	}
	out := map[anomaly.Measure][]anomaly.Point{}
	for i, l := range latencies {
		if len(l) == 0 {
			continue // the store has no row
		}
		slices.Sort(l)
		n := float64(len(l))
		put := func(m anomaly.Measure, v float64) {
			out[m] = append(out[m], anomaly.Point{Time: day(from).Add(time.Duration(i) * time.Minute), Value: v, Of: n})
		}
		put(anomaly.Requests, n/60)
		put(anomaly.Errors, float64(failed[i])/n)
		put(anomaly.Latency, 1000*l[rank(len(l), 0.95)-1])
	}
	return out
}

// Markdown is the report as two tables.
func (r *AnomalyReport) Markdown() string {
	var b strings.Builder
	head := func(first string) {
		b.WriteString("| " + first + " |")
		for _, rate := range r.Plan.Rates {
			fmt.Fprintf(&b, " %.0f a minute |", rate)
		}
		b.WriteString("\n|---|" + strings.Repeat("---:|", len(r.Plan.Rates)) + "\n")
	}
	head("false alarms in 100 group-days (requests, errors, latency)")
	for _, shape := range AnomalyShapes() {
		b.WriteString("| " + shape + " |")
		for _, f := range r.False[shape] {
			per := func(n int) string { return number(100 * float64(n) / float64(f.Days)) }
			fmt.Fprintf(&b, " %s (%d, %d, %d) |", per(f.Total()), f.Incidents[anomaly.Requests], f.Incidents[anomaly.Errors], f.Incidents[anomaly.Latency])
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	head("found of half an hour of; median time until it is")
	for i, f := range AnomalyFaults() {
		b.WriteString("| " + f.Name + " |")
		for j := range r.Plan.Rates {
			fmt.Fprintf(&b, " %s", percent(r.Found[i][j], r.Plan.Faults))
			if 2*r.Found[i][j] > r.Plan.Faults {
				fmt.Fprintf(&b, ", %.0f min", r.Soon[i][j].Minutes())
			}
			b.WriteString(" |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// Figures are the lines that name results one by one.
func (r *AnomalyReport) Figures() string {
	var b strings.Builder
	for j, rate := range r.Plan.Rates {
		days, n := 0, 0
		for _, shape := range AnomalyShapes() {
			f := r.False[shape][j]
			days, n = days+f.Days, n+f.Total()
		}
		fmt.Fprintln(&b, benchdoc.Figure(fmt.Sprintf("anomaly-false-%.0f", rate), "alarms/100 group-days", 100*float64(n)/float64(days), "-", 0))
	}
	for i, f := range AnomalyFaults() {
		for j, rate := range r.Plan.Rates {
			fmt.Fprintln(&b, benchdoc.Figure(fmt.Sprintf("anomaly-found-%s-%.0f", strings.ReplaceAll(f.Name, " ", "-"), rate), "%", 100*float64(r.Found[i][j])/float64(r.Plan.Faults), "-", 0))
		}
	}
	return b.String()
}
