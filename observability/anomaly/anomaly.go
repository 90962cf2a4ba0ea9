// Package anomaly finds what is out of the ordinary for a group by its own past: against
// the same hour of other days, and against the minutes just before. It is pure, learns
// unsupervised, and says what it found in words. It explains and decides nothing: a
// deployment or a campaign looks like a fault to it, so acting on it is off, and
// controlplane/decide compares groups in the same seconds instead.
//
// Two looks at a series of minutes (requests a second, share of errors, P95):
//
//   - Unusual: the minute against the same time of day before (medians of hours, a line
//     between them), in robust standard deviations (median absolute deviation; Iglewicz and
//     Hoaglin's modified z-score). A median forgives one bad day among several, a mean does
//     not. Without enough days nothing is unusual: no data is no baseline.
//   - Change: where the minutes before and after differ most once the time of day is taken
//     off, by ranks (Pettitt's test): no assumption about the distribution, and its p-value
//     is a formula.
//
// A minute of a quiet group says little, so as many minutes are looked at together as have
// [Settings.Requests] requests, up to an hour ([Settings.join]). What chance alone does to
// so few is then reckoned with: requests are compared on the scale on which a negative
// binomial has the same spread everywhere (Anscombe 1948), P95s with a spread that grows as
// there are fewer, and errors by a negative binomial tail, as most minutes have none.
// (Holt-Winters lost: a missed hour bends its trend for a day, and its state says nothing
// to a person. A forest or a network lost: neither says why.)
package anomaly

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Measure is what a series is of.
type Measure string

// The measures.
const (
	Requests Measure = "requests a second"
	Errors   Measure = "share of errors"
	Latency  Measure = "P95 in milliseconds"
)

// Point is one value; there is none where nothing was measured, which is not zero.
type Point struct {
	Time  time.Time
	Value float64
	Of    float64 // requests of the minute
}

// Finding is something out of the ordinary.
type Finding struct {
	Measure Measure       `json:"measure"`
	Kind    string        `json:"kind"`   // "unusual" (for the hour) or "change"
	Time    time.Time     `json:"time"`   // of the minute, or of the change
	Length  time.Duration `json:"length"` // of the minutes that say so together
	Value   float64       `json:"value"`
	Usual   float64       `json:"usual"`
	Score   float64       `json:"score"` // robust standard deviations, or -log10 of the chance
	Words   string        `json:"words"`
}

// Settings bound what counts.
type Settings struct {
	Deviations float64        // from the usual
	Chance     float64        // of a change point by chance
	Days       int            // of an hour that make a baseline
	Requests   float64        // so many are looked at together
	Factor     float64        // less than this times the usual is nothing to speak of
	Zone       *time.Location // whose hours of day count
}

// DefaultSettings look at a minute at a time. Six standard deviations of what is not quite
// normal, or the same chance for errors, are less than one minute in some weeks of a group.
func DefaultSettings() Settings {
	return Settings{Deviations: 6, Chance: 1e-6, Days: 3, Requests: 200, Factor: 1.5, Zone: time.UTC}
}

// Validate names what cannot be used.
func (s Settings) Validate() error {
	switch {
	case !(s.Deviations > 0):
		return fmt.Errorf("deviations: %v is not above 0", s.Deviations)
	case !(s.Chance > 0 && s.Chance < 1):
		return fmt.Errorf("chance: %v is not between 0 and 1", s.Chance)
	case s.Days < 2:
		return fmt.Errorf("days: %d is less than 2", s.Days)
	case !(s.Requests >= 0):
		return fmt.Errorf("requests: %v is below 0", s.Requests)
	case !(s.Factor >= 1):
		return fmt.Errorf("factor: %v is less than 1", s.Factor)
	case s.Zone == nil:
		return fmt.Errorf("zone: missing")
	}
	return nil
}

// Find looks at the newest minutes, since a moment, of one group's series, whose points
// are in the order of time.
func Find(s Settings, m Measure, points []Point, since time.Time) []Finding {
	found, _ := s.find(m, points, since)
	return found
}

// find also says whether the past is known of the time of day of the last window.
func (s Settings) find(m Measure, points []Point, since time.Time) (out []Finding, known bool) {
	length := s.length(m, points)
	windows := m.join(points, length)
	now, _ := slices.BinarySearchFunc(windows, since, func(p Point, t time.Time) int { return p.Time.Add(length).Compare(t.Add(1)) })
	b := newBaseline(s, m, windows[:now], length)
	for _, p := range windows[now:] {
		if f, ok := b.unusual(p); ok {
			out = append(out, f)
		}
	}
	if n := len(windows); n > 0 {
		_, known = b.usual(b.middle(windows[n-1]))
	}
	if f, ok := b.change(from(points, since.Add(-changeWindow))); ok && !f.Time.Before(since) {
		out = append(out, f)
	}
	return out, known
}

func from(points []Point, t time.Time) []Point {
	i, _ := slices.BinarySearchFunc(points, t, func(p Point, t time.Time) int { return p.Time.Compare(t) })
	return points[i:]
}

// scale makes differences ratios. Shares of errors are moved off zero: from none to one in
// a thousand is nothing.
func (m Measure) scale(v float64) float64 { return math.Log(v + m.offset()) }

// back undoes scale.
func (m Measure) back(v float64) float64 { return max(0, math.Exp(v)-m.offset()) }

func (m Measure) offset() float64 {
	switch m {
	case Errors:
		return 0.01
	case Requests:
		return 0.1
	}
	return 1
}

func (m Measure) format(v float64) string {
	switch m {
	case Errors:
		return fmt.Sprintf("%.1f%%", 100*v)
	case Requests:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// narrow is the least standard deviation that is believed, on the scale: a group that was
// all the same for days is not surprising when it is a tenth slower.
const narrow = 0.05

// baseline knows what is usual at each hour.
type baseline struct {
	Settings
	measure Measure
	length  time.Duration // of the windows it is made of
	hours   [24]hour
}

type hour struct {
	center   float64 // median, on the scale
	spread   float64 // standard deviation around the line between centers
	share    float64 // of errors, of all requests
	requests float64 // of a window, the median
	days     int
	windows  int
}

func newBaseline(s Settings, m Measure, windows []Point, length time.Duration) *baseline {
	b := &baseline{Settings: s, measure: m, length: length}
	var values [24][]Point
	for _, p := range windows {
		h := b.middle(p).Hour()
		values[h] = append(values[h], p)
	}
	for h, ps := range values {
		b.hours[h] = b.newHour(ps)
	}
	var all []float64
	for h, ps := range values {
		var deviations []float64
		for _, p := range ps {
			if u, known := b.usual(b.middle(p)); known {
				deviations = append(deviations, math.Abs(m.scale(p.Value)-u))
			}
		}
		b.hours[h].spread, all = 1.4826*median(deviations), append(all, deviations...)
	}
	// An hour of few windows is taken to spread as the others do: its own deviation would
	// be wide of the mark.
	whole := 1.4826 * median(all)
	for h := range b.hours {
		n := float64(b.hours[h].windows)
		b.hours[h].spread = math.Sqrt((n*square(b.hours[h].spread) + others*square(whole)) / (n + others))
	}
	return b
}

// others is how many windows the spread of all hours counts for in that of one.
const others = 60

func square(x float64) float64 { return x * x }

// middle is when a window counts, in the zone whose hours do.
func (b *baseline) middle(p Point) time.Time { return p.Time.Add(b.length / 2).In(b.Zone) }

func (b *baseline) newHour(ps []Point) (h hour) {
	days, scaled, requests := map[int]bool{}, make([]float64, len(ps)), make([]float64, len(ps))
	failed, all := 0.0, 0.0
	for i, p := range ps {
		at := b.middle(p)
		days[at.Year()*366+at.YearDay()] = true
		scaled[i], requests[i] = b.measure.scale(p.Value), p.Of
		failed, all = failed+p.Value*p.Of, all+p.Of
	}
	h.center, h.requests, h.days, h.windows = median(scaled), median(requests), len(days), len(ps)
	if all > 0 {
		h.share = failed / all
	}
	return h
}

// usual is on the line between the middles of two hours, on the scale.
func (b *baseline) usual(at time.Time) (value float64, known bool) {
	h, way := at.Hour(), (float64(at.Minute())+float64(at.Second())/60)/60-0.5
	other := (h + 1) % 24
	if way < 0 {
		other = (h + 23) % 24
	}
	a, o := b.hours[h], b.hours[other]
	if a.days < b.Days {
		return 0, false
	}
	if o.days < b.Days {
		return a.center, true
	}
	return a.center + math.Abs(way)*(o.center-a.center), true
}

// median is 0 of nothing.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// unusual says whether a window is, for its time of day.
func (b *baseline) unusual(p Point) (Finding, bool) {
	at := b.middle(p)
	center, known := b.usual(at)
	if !known {
		return Finding{}, false
	}
	h := b.hours[at.Hour()]
	f := Finding{Measure: b.measure, Kind: "unusual", Time: p.Time, Length: b.length, Value: p.Value, Usual: b.measure.back(center)}
	how := ""
	switch b.measure {
	case Errors:
		f.Usual = h.share
		chance := tail(math.Round(p.Value*p.Of), max(f.Usual, leastShare)*p.Of, uneven)
		if chance > above(b.Deviations) {
			return f, false
		}
		f.Score, how = -math.Log10(chance), odds(chance)
	case Requests:
		f.Score = stable(p.Value, f.Usual, b.length.Seconds(), h.spread)
	default:
		spread := max(narrow, h.spread) * math.Sqrt(max(1, h.requests/max(1, p.Of)))
		f.Score = (b.measure.scale(p.Value) - center) / spread
	}
	if b.measure != Errors {
		if math.Abs(f.Score) < b.Deviations {
			return f, false
		}
		how = fmt.Sprintf("%.1f standard deviations", f.Score)
	}
	difference := b.measure.scale(p.Value) - b.measure.scale(f.Usual)
	if math.Abs(difference) < math.Log(b.Factor) || b.measure != Requests && difference < 0 {
		return f, false // too little to speak of, or better than ever
	}
	in := ""
	if b.length > time.Minute {
		in = fmt.Sprintf(" in %.0f minutes", b.length.Minutes())
	}
	f.Words = fmt.Sprintf("%s %s%s, where %s is usual between %02d:00 and %02d:00 (%s)", b.measure, b.measure.format(f.Value), in, b.measure.format(f.Usual), at.Hour(), (at.Hour()+1)%24, how)
	return f, true
}

// stable is how many standard deviations a rate is from the usual one, on the scale on
// which counts of a negative binomial have the same deviation whatever their mean: what
// spread they have beyond a Poisson process is that of the past, on the logarithmic scale.
func stable(rate, usual, seconds, spread float64) float64 {
	n, mean := rate*seconds, usual*seconds
	k := max(square(narrow), square(spread)-1/max(1, mean))
	scale := func(n float64) float64 { return 2 / math.Sqrt(k) * math.Asinh(math.Sqrt(k*(n+0.375))) }
	return scale(n) - scale(mean)
}

// leastShare of errors is never surprising.
const leastShare = 0.001

// above is the chance of a standard normal above z.
func above(z float64) float64 { return 0.5 * math.Erfc(z/math.Sqrt2) }

// uneven is by how much shares of errors differ from minute to minute beyond chance, as the
// square of their variation: a third of their size. Shares are too small to measure it.
const uneven = 0.1

// tail is the chance of k or more where mean are expected, of a negative binomial whose
// variance is mean + uneven*mean^2.
func tail(k, mean, uneven float64) float64 {
	if k <= mean || mean <= 0 {
		return 1
	}
	r := 1 / uneven
	p := mean / (mean + r)
	lg := func(x float64) float64 { v, _ := math.Lgamma(x); return v }
	term := math.Exp(lg(k+r) - lg(k+1) - lg(r) + k*math.Log(p) + r*math.Log1p(-p))
	sum := term
	for i := k; term > sum*1e-9; i++ {
		term *= p * (i + r) / (i + 1)
		sum += term
	}
	return max(math.SmallestNonzeroFloat64, min(1, sum))
}

func odds(chance float64) string {
	return fmt.Sprintf("by chance once in 10^%.0f", math.Floor(-math.Log10(chance)))
}

// changeWindow is how far back before the minutes asked for a change is looked for, and
// leastSide how many minutes are wanted on either side of one.
const (
	changeWindow = time.Hour
	leastSide    = 5
)

// change is where the ranks before and after differ most (Pettitt 1979). Its chance is
// approximated by 2 exp(-6 K^2 / (n^3 + n^2)), which is too large for small n: it errs on
// the side of silence. Minutes of hours without a baseline are left out.
func (b *baseline) change(points []Point) (Finding, bool) {
	var rest []float64 // without the time of day
	var kept []Point
	for _, p := range points {
		if u, known := b.usual(p.Time.In(b.Zone)); known {
			rest, kept = append(rest, b.measure.scale(p.Value)-u), append(kept, p)
		}
	}
	n := len(rest)
	if n < 2*leastSide {
		return Finding{}, false
	}
	ranks := ranksOf(rest)
	best, at, sum := 0.0, 0, 0.0
	for t := 1; t < n; t++ {
		sum += ranks[t-1]
		u := 2*sum - float64(t)*float64(n+1)
		if t >= leastSide && n-t >= leastSide && math.Abs(u) > math.Abs(best) {
			best, at = u, t
		}
	}
	if at == 0 {
		return Finding{}, false
	}
	cubed := math.Pow(float64(n), 3) + math.Pow(float64(n), 2)
	chance := max(math.SmallestNonzeroFloat64, 2*math.Exp(-6*best*best/cubed))
	change := median(rest[at:]) - median(rest[:at])
	if chance > b.Chance || math.Abs(change) < math.Log(b.Factor) || b.measure != Requests && change < 0 {
		return Finding{}, false
	}
	u, _ := b.usual(kept[at].Time.In(b.Zone))
	f := Finding{
		Measure: b.measure, Kind: "change", Time: kept[at].Time, Length: leastSide * time.Minute, Score: -math.Log10(chance),
		Value: b.measure.back(u + median(rest[at:])), Usual: b.measure.back(u + median(rest[:at])),
	}
	f.Words = fmt.Sprintf("%s changed at %s from %s to %s (%s)", b.measure, f.Time.In(b.Zone).Format("15:04"), b.measure.format(f.Usual), b.measure.format(f.Value), odds(chance))
	return f, true
}

// ranksOf gives ties the mean of their ranks.
func ranksOf(values []float64) []float64 {
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(values[a], values[b]) })
	out := make([]float64, len(values))
	for i := 0; i < len(order); {
		j := i
		for j < len(order) && values[order[j]] == values[order[i]] {
			j++
		}
		for k := i; k < j; k++ {
			out[order[k]] = float64(i+j+1) / 2
		}
		i = j
	}
	return out
}
