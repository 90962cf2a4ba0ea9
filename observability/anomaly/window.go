package anomaly

import (
	"slices"
	"time"
)

// lengths are how many minutes are looked at together.
func lengths() []time.Duration {
	return []time.Duration{time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute, time.Hour}
}

// sure is how many requests a P95 of a minute must be of to be taken as it is. The median of
// fewer than five less sure ones is of the same width where latencies have long tails.
const sure = 1000

// length is the shortest in which a usual window of a series has enough requests.
func (s Settings) length(m Measure, points []Point) time.Duration {
	if len(points) == 0 {
		return time.Minute
	}
	total := 0.0
	for _, p := range points {
		total += p.Of
	}
	// Minutes without a request have no point, so it is not the points that are counted.
	each := total / (points[len(points)-1].Time.Sub(points[0].Time).Minutes() + 1)
	all := lengths()
	for _, l := range all {
		if m == Latency && s.Requests > 0 && each < sure && l < 5*time.Minute {
			continue
		}
		if each*l.Minutes() >= s.Requests {
			return l
		}
	}
	return all[len(all)-1]
}

// join makes windows of minutes, of which the last ends with the last minute: an incomplete
// one would be a quiet one. Rates and shares add up; of P95s the median is taken, which is
// steadier than each, and compared with its like only.
func (m Measure) join(points []Point, length time.Duration) []Point {
	if length <= time.Minute || len(points) == 0 {
		return points
	}
	end := points[len(points)-1].Time.Add(time.Minute)
	place := func(p Point) time.Duration { return (end.Sub(p.Time) - 1) / length }
	var out []Point
	for len(points) > 0 {
		n := slices.IndexFunc(points, func(p Point) bool { return place(p) != place(points[0]) })
		if n < 0 {
			n = len(points)
		}
		out = append(out, m.sum(points[:n], end.Add(-length*(place(points[0])+1)), length))
		points = points[n:]
	}
	return out
}

func (m Measure) sum(points []Point, at time.Time, length time.Duration) Point {
	w, values := Point{Time: at}, make([]float64, len(points))
	for i, p := range points {
		w.Of += p.Of
		values[i] = p.Value
		if m == Errors {
			values[i] *= p.Of
		}
		w.Value += values[i]
	}
	switch m {
	case Requests:
		w.Value /= length.Minutes() // minutes without a point had none
	case Errors:
		w.Value /= max(1, w.Of)
	default:
		w.Value = median(values)
	}
	return w
}
