package anomaly

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

// days are minutes of a service that is busy at noon, slower then, and fails now and then.
func days(rnd *rand.Rand, n int, m Measure) []Point {
	out := make([]Point, 0, n*24*60)
	for i := range n * 24 * 60 {
		at := start.Add(time.Duration(i) * time.Minute)
		day := 1 + math.Sin(2*math.Pi*(float64(at.Hour()*60+at.Minute())/1440-0.25)) // 0 at midnight, 2 at noon
		rate := 2 + 40*day
		p := Point{Time: at, Of: math.Round(rate * 60)}
		switch m {
		case Requests:
			n := rate * 60
			p.Value = (n + math.Sqrt(n)*rnd.NormFloat64()) / 60
		case Errors:
			errors := 0
			for mean := 0.002 * p.Of; ; errors++ { // arrivals until the minute is over
				if mean -= rnd.ExpFloat64(); mean < 0 {
					break
				}
			}
			p.Value = float64(errors) / p.Of
		default:
			p.Value = (80 + 40*day) * math.Exp(0.08*rnd.NormFloat64())
		}
		out = append(out, p)
	}
	return out
}

// TestOrdinaryDays: on a day like those before next to nothing is found.
func TestOrdinaryDays(t *testing.T) {
	t.Parallel()
	s := DefaultSettings()
	for _, m := range []Measure{Requests, Errors, Latency} {
		found := 0
		for seed := range uint64(10) {
			found += len(Find(s, m, days(rand.New(rand.NewPCG(seed, 1)), 8, m), start.Add(7*24*time.Hour)))
		}
		if found > 1 {
			t.Errorf("%s: %d findings in ten ordinary days", m, found)
		}
	}
}

// TestSeason: what is ordinary at noon is unusual at night.
func TestSeason(t *testing.T) {
	t.Parallel()
	s := DefaultSettings()
	for m, value := range map[Measure]float64{Requests: 80, Latency: 400, Errors: 0.2} {
		points := days(rand.New(rand.NewPCG(3, 1)), 8, m)
		last := start.Add(7 * 24 * time.Hour)
		night := 7*24*60 + 30
		points[night].Value = value
		fs := Find(s, m, points, last)
		if len(fs) == 0 || fs[0].Kind != "unusual" || !fs[0].Time.Equal(points[night].Time) || !strings.Contains(fs[0].Words, "between 00:00 and 01:00") {
			t.Errorf("%s: %+v", m, fs)
		}
		if m == Requests {
			points = days(rand.New(rand.NewPCG(3, 1)), 8, m)
			points[7*24*60+12*60].Value = value
			if fs := Find(s, m, points, last); len(fs) != 0 {
				t.Errorf("80 requests a second at noon: %+v", fs)
			}
		}
	}
}

// TestOneBadDayIsForgiven: a baseline with a day of faults in it still finds the next one.
func TestOneBadDayIsForgiven(t *testing.T) {
	t.Parallel()
	points := days(rand.New(rand.NewPCG(5, 1)), 8, Latency)
	for i := 2 * 24 * 60; i < 3*24*60; i++ {
		points[i].Value *= 10
	}
	at := 7*24*60 + 600
	points[at].Value *= 10
	fs := Find(DefaultSettings(), Latency, points, start.Add(7*24*time.Hour))
	if len(fs) != 1 || !fs[0].Time.Equal(points[at].Time) {
		t.Errorf("%+v", fs)
	}
}

// TestChangePoint is found where it is, by minutes that are each not unusual.
func TestChangePoint(t *testing.T) {
	t.Parallel()
	s := DefaultSettings()
	s.Deviations = 100 // this test is about the change
	for seed := range uint64(20) {
		points := days(rand.New(rand.NewPCG(seed, 2)), 8, Latency)
		since := start.Add(7*24*time.Hour + 12*time.Hour)
		i, _ := index(points, since.Add(20*time.Minute))
		for k := i; k < i+40; k++ {
			points[k].Value *= 1.8
		}
		fs := Find(s, Latency, points[:i+40], since)
		if len(fs) != 1 || fs[0].Kind != "change" || fs[0].Time.Sub(points[i].Time).Abs() > 10*time.Minute || !strings.Contains(fs[0].Words, "changed at 12:") || fs[0].Value < 1.4*fs[0].Usual {
			t.Errorf("seed %d: %+v, want a change at %s", seed, fs, points[i].Time)
		}
	}
}

func index(points []Point, t time.Time) (int, bool) {
	for i, p := range points {
		if p.Time.Equal(t) {
			return i, true
		}
	}
	return 0, false
}

// TestLittleIsKnown: without a past nothing is unusual, and what got better is no finding.
func TestLittleIsKnown(t *testing.T) {
	t.Parallel()
	s := DefaultSettings()
	if fs := Find(s, Latency, []Point{{Time: start, Value: 100}, {Time: start.Add(time.Minute), Value: 10_000}}, start); len(fs) != 0 {
		t.Errorf("without a past: %+v", fs)
	}
	if fs := Find(s, Latency, nil, start); len(fs) != 0 {
		t.Errorf("of nothing: %+v", fs)
	}
	points := days(rand.New(rand.NewPCG(1, 1)), 8, Latency)
	points[7*24*60+700].Value = 1
	if fs := Find(s, Latency, points, start.Add(7*24*time.Hour)); len(fs) != 0 {
		t.Errorf("quicker than ever: %+v", fs)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	if err := DefaultSettings().Validate(); err != nil {
		t.Error(err)
	}
	for field, change := range map[string]func(*Settings){
		"deviations": func(s *Settings) { s.Deviations = math.NaN() },
		"chance":     func(s *Settings) { s.Chance = 0 },
		"days":       func(s *Settings) { s.Days = 1 },
		"requests":   func(s *Settings) { s.Requests = -1 },
		"factor":     func(s *Settings) { s.Factor = 0.5 },
		"zone":       func(s *Settings) { s.Zone = nil },
	} {
		s := DefaultSettings()
		change(&s)
		if err := s.Validate(); err == nil || !strings.HasPrefix(err.Error(), field+":") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// FuzzFind: whatever comes, what is found is finite, in the time asked for, and said.
func FuzzFind(f *testing.F) {
	f.Add(uint64(1), uint16(500))
	f.Fuzz(func(t *testing.T, seed uint64, n uint16) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		var points []Point
		at := start
		for range n % 3000 {
			at = at.Add(time.Duration(1+rnd.IntN(90)) * time.Minute)
			points = append(points, Point{Time: at, Value: math.Exp(rnd.NormFloat64() * 5), Of: float64(rnd.IntN(1000))})
		}
		since := at.Add(-time.Duration(rnd.IntN(48)) * time.Hour)
		for _, m := range []Measure{Requests, Errors, Latency} {
			for _, x := range Find(DefaultSettings(), m, points, since) {
				if !x.Time.Add(x.Length).After(since) || x.Words == "" || math.IsNaN(x.Score) || math.IsInf(x.Value, 0) {
					t.Fatalf("%+v", x)
				}
			}
		}
	})
}
