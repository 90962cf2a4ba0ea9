package scale_test

import (
	"testing"
	"time"

	"github.com/tracegate/tracegate/mesh/scale"
)

// look is what is seen at one moment, and what should be decided.
type look struct {
	at      time.Duration
	rate    float64
	unknown bool
	want    int
}

func TestNext(t *testing.T) {
	target := scale.Target{PerInstance: 100, Min: 1, Max: 5}
	stepwise := target
	stepwise.MaxStep = 1
	for name, c := range map[string]struct {
		target scale.Target
		looks  []look
	}{
		"grows at once":       {target, []look{{0, 50, false, 1}, {time.Second, 350, false, 4}, {2 * time.Second, 900, false, 5}}},
		"a dip costs nothing": {target, []look{{0, 350, false, 4}, {time.Second, 50, false, 4}, {9 * time.Second, 50, false, 4}, {10 * time.Second, 350, false, 4}}},
		"shrinks when fewer were enough for a while": {target, []look{
			{0, 350, false, 4}, {5 * time.Second, 150, false, 4}, {10 * time.Second, 50, false, 4}, {11 * time.Second, 50, false, 2}, {16 * time.Second, 50, false, 1},
		}},
		"nobody knows":  {target, []look{{0, 350, false, 4}, {20 * time.Second, 0, true, 4}, {40 * time.Second, 0, true, 4}, {60 * time.Second, 0, false, 1}}},
		"one at a time": {stepwise, []look{{0, 450, false, 2}, {time.Second, 450, false, 3}, {2 * time.Second, 450, false, 4}, {3 * time.Second, 450, false, 5}}},
	} {
		t.Run(name, func(t *testing.T) {
			s, has, begin := scale.New(c.target, 10*time.Second), 1, time.Unix(1_800_000_000, 0)
			for _, l := range c.looks {
				if has = s.Next(l.rate, !l.unknown, has, begin.Add(l.at)); has != l.want {
					t.Fatalf("%v: %d instances at %v requests a second, want %d", l.at, has, l.rate, l.want)
				}
			}
		})
	}
}

// TestForecast has instances ready for what a ramp will bring.
func TestForecast(t *testing.T) {
	ahead := scale.New(scale.Target{PerInstance: 100, Min: 1, Max: 50, Lead: 10 * time.Second}, time.Minute)
	plain := scale.New(scale.Target{PerInstance: 100, Min: 1, Max: 50}, time.Minute)
	begin, a, p := time.Unix(1_800_000_000, 0), 1, 1
	for i := range 60 {
		now, rate := begin.Add(time.Duration(i)*time.Second), 50*float64(i)
		a, p = ahead.Next(rate, true, a, now), plain.Next(rate, true, p, now)
	}
	if p != 30 || a < 33 || a > 36 { // 5 more in 10 s, less what the trend is damped by
		t.Errorf("%d instances now, %d for 10 s later", p, a)
	}
}
