// Package forecast says what a rate will be in some steps, from what it was: additive
// Holt-Winters smoothing with a damped trend (Hyndman & Athanasopoulos, Forecasting:
// Principles and Practice, 8.2-8.3), which needs a few numbers of memory, learns with each
// observation and is explained in a sentence: level + trend + season.
//
// It is pure: steps are counted, no clock is read. Models that must be trained (ARIMA,
// networks) lost: a decision must be explained to a person, and must be good from the
// first minute on.
package forecast

import "math"

// Smoothing says how fast each part follows what is observed, from 0 (never) to 1 (at
// once).
type Smoothing struct {
	Level, Trend, Season float64
	// Damp shrinks the trend with each step ahead, so that a ramp is not followed for
	// ever; 1 for a straight line.
	Damp float64
}

// DefaultSmoothing is for one observation a second of requests a second.
func DefaultSmoothing() Smoothing {
	return Smoothing{Level: 0.4, Trend: 0.15, Season: 0.2, Damp: 0.98}
}

// Model is what was learned of one series. The zero value is not ready: see [New].
type Model struct {
	s        Smoothing
	level    float64
	trend    float64
	season   []float64 // by step; empty where there is none
	at       int       // index into season of the next observation
	first    []float64 // the first two periods, of which the season is made
	seen     int
	variance float64 // of the errors one step ahead
}

// New learns a series whose pattern repeats every period steps; 0 for no season. A
// season counts once it was seen twice.
func New(s Smoothing, period int) *Model {
	return &Model{s: s, season: make([]float64, max(period, 0))}
}

// Observe takes the next value. What is not a number, or below zero, is passed over as
// if it had been as expected, and counts as missing.
func (m *Model) Observe(y float64) {
	if math.IsNaN(y) || math.IsInf(y, 0) || y < 0 {
		m.Miss()
		return
	}
	if !m.seasoned() && len(m.season) > 0 {
		m.first = append(m.first, y)
	}
	if m.seen == 0 {
		m.level = y
		m.next()
		return
	}
	season := m.seasonal(0)
	expected := m.level + m.s.Damp*m.trend + season
	miss := y - expected
	m.variance = 0.9*m.variance + 0.1*miss*miss
	before := m.level
	seasoned := m.seasoned()
	m.level = m.s.Level*(y-season) + (1-m.s.Level)*(m.level+m.s.Damp*m.trend)
	m.trend = m.s.Trend*(m.level-before) + (1-m.s.Trend)*m.s.Damp*m.trend
	if seasoned {
		m.season[m.at] = m.s.Season*(y-m.level) + (1-m.s.Season)*m.season[m.at]
	}
	m.next()
}

// Miss is a step nothing is known of.
func (m *Model) Miss() {
	if m.seen == 0 {
		return
	}
	m.level += m.s.Damp * m.trend
	m.trend *= m.s.Damp
	if !m.seasoned() && len(m.season) > 0 {
		m.first = append(m.first, m.level)
	}
	m.next()
}

func (m *Model) next() {
	m.seen++
	n := len(m.season)
	if n == 0 {
		return
	}
	m.at = (m.at + 1) % n
	if len(m.first) == 2*n {
		m.begin()
	}
}

// begin makes the season of the first two periods: what each step was above the line
// through the means of both.
func (m *Model) begin() {
	n := len(m.season)
	first, second := mean(m.first[:n]), mean(m.first[n:])
	slope, middle := (second-first)/float64(n), float64(n-1)/2
	for i := range n {
		at := float64(i) - middle
		m.season[i] = (m.first[i] - first - slope*at + m.first[n+i] - second - slope*at) / 2
	}
	m.level, m.trend, m.variance = second+slope*middle, slope, 0
	m.first = nil
}

func mean(values []float64) (sum float64) {
	for _, v := range values {
		sum += v / float64(len(values))
	}
	return sum
}

func (m *Model) seasoned() bool { return len(m.season) > 0 && m.seen >= 2*len(m.season) }

// seasonal is the season's part some steps after the next observation.
func (m *Model) seasonal(ahead int) float64 {
	if !m.seasoned() {
		return 0
	}
	return m.season[(m.at+ahead)%len(m.season)]
}

// Ahead is what is expected h steps from the last observation, never below zero. upper
// is passed in one of about forty cases, if errors are as they were.
func (m *Model) Ahead(h int) (mean, upper float64) {
	h = max(h, 1)
	trend, damp := 0.0, 1.0
	for range h {
		damp *= m.s.Damp
		trend += damp
	}
	mean = max(0, m.level+trend*m.trend+m.seasonal(h-1))
	// Variance h steps ahead of simple smoothing: 1 + (h-1) level².
	deviation := math.Sqrt(m.variance * (1 + float64(h-1)*m.s.Level*m.s.Level))
	return mean, mean + 2*deviation
}

// Ready says whether enough was seen to say anything: ten steps.
func (m *Model) Ready() bool { return m.seen >= 10 }
