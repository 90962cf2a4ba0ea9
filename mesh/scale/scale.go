// Package scale decides how many instances a pool should have, from its rate: the same for
// pods, where the operator asks it, and for processes of one machine.
//
// It is pure: time is an argument. More come at once, before they are needed where a
// forecast says so; fewer only when fewer have been enough for a while, as Kubernetes'
// autoscaler does, so that a dip does not cost everybody's connections.
package scale

import (
	"math"
	"time"

	"github.com/tracegate/tracegate/mesh/forecast"
)

// Step is how often a model observes; it counts in it.
const Step = time.Second

// Target is what a pool should be like.
type Target struct {
	PerInstance float64 // requests a second that one serves well
	Min, Max    int
	MaxStep     int           // instances added at one time at most; 0: any number
	Lead        time.Duration // how far ahead is looked; 0: at the present only
}

// Expected is the rate, or what is forecast of it where that is more.
func (t Target) Expected(model *forecast.Model, rate float64) float64 {
	if t.Lead <= 0 || !model.Ready() {
		return rate
	}
	mean, _ := model.Ahead(int(t.Lead / Step))
	return max(rate, mean)
}

// Need is how many instances the rate needs, within bounds and at most MaxStep above has.
func (t Target) Need(model *forecast.Model, rate float64, has int) int {
	need := int(min(math.Ceil(t.Expected(model, rate)/t.PerInstance), float64(t.Max)))
	if t.MaxStep > 0 {
		need = min(need, max(has, t.Min)+t.MaxStep)
	}
	return min(max(need, t.Min), t.Max)
}

// Scaler decides for one pool, look by look.
type Scaler struct {
	Target
	ScaleIn time.Duration // for which fewer must have been enough

	model    *forecast.Model
	observed time.Time
	needs    []need // of the last ScaleIn, each higher than those after it
}

type need struct {
	at time.Time
	n  int
}

// New has learned nothing yet.
func New(t Target, scaleIn time.Duration) *Scaler {
	return &Scaler{Target: t, ScaleIn: scaleIn, model: forecast.New(forecast.DefaultSmoothing(), 0)}
}

// Next is how many there should be, of has. Where the rate is not known it stays as it is.
func (s *Scaler) Next(rate float64, known bool, has int, now time.Time) int {
	if now.Sub(s.observed) >= Step*9/10 {
		s.observed = now
		if known {
			s.model.Observe(rate)
		} else {
			s.model.Miss()
		}
	}
	if !known {
		return min(max(has, s.Min), s.Max)
	}
	n := s.Need(s.model, rate, has)
	for len(s.needs) > 0 && s.needs[len(s.needs)-1].n <= n {
		s.needs = s.needs[:len(s.needs)-1]
	}
	s.needs = append(s.needs, need{now, n})
	for len(s.needs) > 1 && now.Sub(s.needs[0].at) > s.ScaleIn {
		s.needs = s.needs[1:]
	}
	return max(n, min(has, s.needs[0].n))
}
