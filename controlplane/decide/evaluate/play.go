package evaluate

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
)

// Missed is the delay of a fault that was not found.
const Missed = time.Duration(math.MaxInt64)

// Outcome is what one method made of one run.
type Outcome struct {
	// Delay is from the onset of the fault to the decision to isolate one of the groups
	// whose isolation is right; [Missed] where there was none.
	Delay time.Duration
	// Wrong counts isolations that were not right: of groups that are well, or that
	// suffer from what is not theirs.
	Wrong int
}

// Play runs traffic past every method at once: all see the same requests at the same
// moments. It ends with the run, or when every method has found the fault. What is
// decided does not change the traffic, so that the methods stay comparable.
func Play(t Traffic, seed uint64, methods []Method) []Outcome {
	rnd := rand.New(rand.NewPCG(seed, 0x7265717565737473))
	policy := decide.DefaultPolicy()
	b := newBoard(t.Groups, policy.MaxP95, policy.QuickWindow, policy.ShortWindow, policy.LongWindow)
	due := newCalendar()
	out := make([]Outcome, len(methods))
	detectors := make([]Detector, len(methods))
	for i, m := range methods {
		out[i].Delay, detectors[i] = Missed, m.New(t.Groups)
	}
	for now := time.Duration(0); now <= t.Length; now += Tick {
		b.advance(now)
		due.take(now, b.add)
		b.scrape(now)
		for i, d := range detectors {
			for _, g := range d.Look(now, b) {
				out[i].isolate(&t, g, now)
			}
		}
		if t.over(out) {
			break
		}
		for g := range t.Groups {
			t.requests(rnd, g, now, func(r request) {
				if at, ok := t.Pipeline.visible(rnd, r.start+r.latency); ok {
					bucket := bucketOf(r.latency)
					due.put(at, arrived{group: r.group, second: int(r.start), start: r.start, sample: sample{
						bucket: bucket, failed: r.failed, lost: r.lost, slow: int(bucket) >= b.objective && !r.lost,
					}})
				}
			})
		}
	}
	return out
}

func (o *Outcome) isolate(t *Traffic, g int, now time.Duration) {
	for i := range t.Faults {
		// A decision of the moments after a fault's end is still about it.
		if f := &t.Faults[i]; f.Isolate && now >= f.From && now < f.To+5*time.Second && slices.Contains(f.Groups, g) {
			o.Delay = min(o.Delay, now-f.From)
			return
		}
	}
	if o.Delay == Missed {
		o.Wrong++
	}
}

// over says whether there is nothing left to find.
func (t *Traffic) over(out []Outcome) bool {
	if !slices.ContainsFunc(t.Faults, func(f Fault) bool { return f.Isolate }) {
		return false
	}
	return !slices.ContainsFunc(out, func(o Outcome) bool { return o.Delay == Missed })
}

// calendar holds requests until they can be counted.
type calendar struct {
	slots [512][]arrived // by tick
	tick  int
}

func newCalendar() *calendar { return &calendar{} }

// put files a request under the first tick at which it can be seen.
func (c *calendar) put(at float64, a arrived) {
	tick := max(c.tick+1, int(math.Ceil(at/Tick.Seconds())))
	tick = min(tick, c.tick+len(c.slots)-1) // two minutes: beyond every latency and delay
	c.slots[tick%len(c.slots)] = append(c.slots[tick%len(c.slots)], a)
}

// take hands over what can be seen at a tick.
func (c *calendar) take(now time.Duration, add func(*arrived)) {
	c.tick = int(now / Tick)
	slot := c.slots[c.tick%len(c.slots)]
	for i := range slot {
		add(&slot[i])
	}
	c.slots[c.tick%len(c.slots)] = slot[:0]
}

// Seeds are a range, [First, First+N).
type Seeds struct {
	First uint64
	N     int
}

// Tuning and Reporting seeds never meet.
const (
	Tuning    uint64 = 0
	Reporting uint64 = 1 << 32
)

// Replay plays a spec under every seed, on a number of workers, and gives the outcomes
// in the order of the seeds, however many workers there are.
func Replay(s Spec, seeds Seeds, methods []Method, workers int) [][]Outcome {
	out := make([][]Outcome, seeds.N)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range max(1, workers) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < seeds.N; i = int(next.Add(1)) - 1 {
				seed := seeds.First + uint64(i)
				out[i] = Play(s.Traffic(seed), seed, methods)
			}
		})
	}
	wg.Wait()
	return out
}
