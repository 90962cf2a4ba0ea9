package forecast_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/tracegate/tracegate/mesh/forecast"
)

// TestAhead learns two minutes of a series and compares with what comes.
func TestAhead(t *testing.T) {
	noise := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name   string
		period int
		at     func(i int) float64
		h      int
		within float64 // of what comes, relative
	}{
		{"constant", 0, func(int) float64 { return 100 }, 60, 0.001},
		{"noise", 0, func(int) float64 { return 100 + 10*noise.NormFloat64() }, 30, 0.2},
		{"ramp", 0, func(i int) float64 { return 10 * float64(i) }, 10, 0.1},
		{"season", 30, func(i int) float64 { return 200 + 100*math.Sin(2*math.Pi*float64(i)/30) }, 15, 0.15},
	} {
		m := forecast.New(forecast.DefaultSmoothing(), c.period)
		const learned = 240
		for i := range learned {
			m.Observe(c.at(i))
		}
		mean, upper := m.Ahead(c.h)
		want := c.at(learned - 1 + c.h)
		if math.Abs(mean-want) > c.within*want {
			t.Errorf("%s: %.1f expected in %d steps, it becomes %.1f", c.name, mean, c.h, want)
		}
		if upper < mean {
			t.Errorf("%s: upper %.1f below %.1f", c.name, upper, mean)
		}
	}
}

// TestSeasonBeatsNoSeason is why there is one.
func TestSeasonBeatsNoSeason(t *testing.T) {
	at := func(i int) float64 { return 200 + 100*math.Sin(2*math.Pi*float64(i)/60) }
	miss := func(period int) (sum float64) {
		m := forecast.New(forecast.DefaultSmoothing(), period)
		for i := range 600 {
			m.Observe(at(i))
			if i > 300 {
				mean, _ := m.Ahead(20)
				sum += math.Abs(mean - at(i+20))
			}
		}
		return sum
	}
	with, without := miss(60), miss(0)
	if with > without/2 {
		t.Errorf("errors %.0f with the season, %.0f without", with, without)
	}
}

func TestUpperHoldsMostOfTheTime(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	m := forecast.New(forecast.DefaultSmoothing(), 0)
	above, n := 0, 0
	for i := range 3000 {
		y := max(0, 500+50*r.NormFloat64())
		if i > 100 {
			n++
			if _, upper := m.Ahead(1); y > upper {
				above++
			}
		}
		m.Observe(y)
	}
	if share := float64(above) / float64(n); share > 0.06 {
		t.Errorf("%.1f %% of values are above upper", 100*share)
	}
}

func TestBadInput(t *testing.T) {
	m := forecast.New(forecast.DefaultSmoothing(), -1)
	if mean, upper := m.Ahead(10); mean != 0 || upper != 0 || m.Ready() {
		t.Error("something is expected of nothing")
	}
	for i := range 100 {
		m.Observe(50)
		m.Observe([]float64{math.NaN(), math.Inf(1), -1}[i%3])
	}
	if mean, _ := m.Ahead(0); math.Abs(mean-50) > 1 || !m.Ready() {
		t.Errorf("%.2f, want 50", mean)
	}
	m = forecast.New(forecast.DefaultSmoothing(), 0)
	for i := range 20 {
		m.Observe(float64(100 - 5*i))
	}
	if mean, _ := m.Ahead(900); mean < 0 {
		t.Errorf("%.2f is below zero", mean)
	}
}
