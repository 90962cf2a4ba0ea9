package evaluate

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// Shape is what traffic is like apart from faults.
type Shape string

// The shapes.
const (
	Steady  Shape = "steady"
	Daily   Shape = "diurnal"  // rates swing by 80%
	Bursts  Shape = "bursts"   // five times the rate for some seconds, and slower
	Tails   Shape = "tails"    // the slowest twentieth is Pareto, exponent 2 to 3
	Pauses  Shape = "pauses"   // each pool stands still for 0.1 to 0.4 s twice a minute
	Delayed Shape = "delayed"  // telemetry has gaps, and a tenth of the spans comes late
	Low     Shape = "low rate" // 2 to 5 requests a second
)

// Event is what goes wrong.
type Event string

// The events. In all but the last two isolation is right.
const (
	Nothing    Event = ""
	Step       Event = "step"       // one group, at once
	Gradual    Event = "gradual"    // one group, growing over 20 s
	Outage     Event = "outage"     // one group; half of its errors have no upstream
	Regression Event = "regression" // a deployment: all groups of the canary pool, any of which may move
	Neighbour  Event = "neighbour"  // all groups of the baseline pool: moving one is wrong
	Everywhere Event = "everywhere" // all groups: moving one is wrong
)

// Spec says what traffic a seed becomes.
type Spec struct {
	Shape   Shape
	Rate    float64 // requests a second of each group; 0: each has its own, 2 to 100
	Event   Event
	Latency float64 // factor of the event; 0 stands for 1
	Errors  float64 // share of requests that the event fails
	Length  time.Duration
	// Pipeline delays telemetry; with Delayed it has gaps besides.
	Pipeline Pipeline
}

const (
	// Warmup comes before an event: it fills the long window.
	Warmup = 40 * time.Second
	// Suffering is how long an event lasts; later it counts as missed.
	Suffering = 60 * time.Second
)

// LatePipeline is that of others: a span can be counted one second after its request has
// ended.
func LatePipeline() Pipeline { return Pipeline{Delay: time.Second} }

// ProductPipeline is the product's: 0 to 0.2 s in the exporter's batch, 0 to 0.2 s in
// the receiver's, 0.1 s to insert and to query.
func ProductPipeline() Pipeline {
	return Pipeline{Delay: 100 * time.Millisecond, Jitter: 400 * time.Millisecond}
}

// Traffic draws a run: four tenants in the baseline pool, two of them in the canary
// pool too. A seed gives the same run wherever it is drawn.
func (s Spec) Traffic(seed uint64) Traffic {
	rnd := rand.New(rand.NewPCG(seed, 0x7261666669637472))
	t := Traffic{Length: s.Length, Pipeline: s.Pipeline}
	if t.Length == 0 {
		t.Length = Warmup + time.Second + Suffering
	}
	service := between(rnd, 50, 70)
	for i, id := range []group.Group{
		{Env: "prod", Tenant: "a"}, {Env: "prod", Tenant: "b"}, {Env: "prod", Tenant: "c"}, {Env: "prod", Tenant: "d"},
		{Color: canary, Env: "canary", Tenant: "a"}, {Color: canary, Env: "canary", Tenant: "b"},
	} {
		g := Group{Group: id, Pool: semconv.PoolBaseline, Rate: s.Rate}
		if i >= 4 {
			g.Pool = semconv.PoolCanary
		}
		switch {
		case s.Rate == 0 && s.Shape == Low:
			g.Rate = between(rnd, 2, 5)
		case s.Rate == 0:
			g.Rate = 2 * math.Exp(rnd.Float64()*math.Log(50))
		}
		g.Median = time.Duration(service * math.Exp(between(rnd, -0.2, 0.2)) * float64(time.Millisecond))
		g.Sigma = between(rnd, 0.6, 0.75)
		g.Errors = between(rnd, 0, 0.004)
		t.Groups = append(t.Groups, g)
	}
	s.shape(rnd, &t)
	s.event(rnd, &t)
	return t
}

func (s Spec) shape(rnd *rand.Rand, t *Traffic) {
	switch s.Shape {
	case Daily:
		// A run is shorter than a day; its period is what a fast morning looks like.
		for i := range t.Groups {
			t.Groups[i].Diurnal = Diurnal{Swing: 0.8, Period: 20 * time.Minute, Phase: rnd.Float64()}
		}
	case Bursts:
		for i := range t.Groups {
			for at := pause(rnd, 60); at < t.Length; at += pause(rnd, 60) {
				b := Burst{Group: i, From: at, To: at + seconds(between(rnd, 5, 20)), Rate: 5, Latency: 1.4}
				t.Bursts = append(t.Bursts, b)
				at = b.To
			}
		}
	case Tails:
		for i := range t.Groups {
			t.Groups[i].Tail = between(rnd, 2, 3)
		}
	case Pauses:
		for _, pool := range []string{semconv.PoolBaseline, semconv.PoolCanary} {
			for at := pause(rnd, 30); at < t.Length; at += pause(rnd, 30) {
				t.Pauses = append(t.Pauses, Pause{Pool: pool, From: at, To: at + seconds(between(rnd, 0.1, 0.4))})
			}
		}
	case Delayed:
		t.Pipeline.Late, t.Pipeline.LateBy = 0.1, 5*time.Second
		for at := pause(rnd, 60); at < t.Length; at += pause(rnd, 60) {
			g := Gap{From: at, To: at + seconds(between(rnd, 2, 8)), Lose: rnd.IntN(2) == 0}
			t.Pipeline.Gaps = append(t.Pipeline.Gaps, g)
			at = g.To
		}
	}
}

func (s Spec) event(rnd *rand.Rand, t *Traffic) {
	if s.Event == Nothing {
		return
	}
	from := Warmup + seconds(rnd.Float64()) // at any point of a second
	f := Fault{From: from, To: from + Suffering, Latency: max(1, s.Latency), Errors: s.Errors, Isolate: true}
	f.Groups = []int{rnd.IntN(len(t.Groups))}
	switch s.Event {
	case Gradual:
		f.Ramp = 20 * time.Second
	case Outage:
		f.Lost = 0.5
	case Regression:
		f.Groups = []int{4, 5}
	case Neighbour:
		f.Groups, f.Isolate = []int{0, 1, 2, 3}, false
	case Everywhere:
		f.Groups, f.Isolate = []int{0, 1, 2, 3, 4, 5}, false
	}
	t.Faults = append(t.Faults, f)
}

func between(rnd *rand.Rand, low, high float64) float64 { return low + (high-low)*rnd.Float64() }

// pause is exponential with a mean in seconds, and at least one second.
func pause(rnd *rand.Rand, mean float64) time.Duration {
	return time.Second + seconds(rnd.ExpFloat64()*mean)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
