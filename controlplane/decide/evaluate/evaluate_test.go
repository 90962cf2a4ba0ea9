package evaluate

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/observability/semconv"
)

// sampled is what one group's requests came to in a part of a run.
type sampled struct {
	n, failed, lost int
	latencies       []float64
}

func (s sampled) p95() float64 {
	slices.Sort(s.latencies)
	return s.latencies[rank(len(s.latencies), 0.95)-1]
}

func (s sampled) errors() float64 { return float64(s.failed) / float64(s.n) }

// collect gives what each group got while healthy(at) and otherwise.
func collect(t Traffic, seed uint64, in func(time.Duration) bool) []sampled {
	rnd := rand.New(rand.NewPCG(seed, 0))
	out := make([]sampled, len(t.Groups))
	for now := time.Duration(0); now < t.Length; now += Tick {
		if !in(now) {
			continue
		}
		for g := range t.Groups {
			t.requests(rnd, g, now, func(r request) {
				s := &out[g]
				s.n++
				s.latencies = append(s.latencies, r.latency)
				if r.failed {
					s.failed++
				}
				if r.lost {
					s.lost++
				}
			})
		}
	}
	return out
}

// TestLabelsAreTheTruth holds every event's labels against the samples: the groups that
// are named suffer while it is said, and nobody else does at any time.
func TestLabelsAreTheTruth(t *testing.T) {
	t.Parallel()
	for _, event := range []Event{Step, Gradual, Outage, Regression, Neighbour, Everywhere} {
		for seed := range uint64(5) {
			s := step(50, 5, 0.2)
			s.Event = event
			tr := s.Traffic(seed)
			f := tr.Faults[0]
			// The ramp of a gradual fault is over after 20 s.
			during := collect(tr, seed, func(at time.Duration) bool { return at >= f.From+f.Ramp && at+Tick < f.To })
			before := collect(tr, seed, func(at time.Duration) bool { return at+Tick < f.From })
			for g := range tr.Groups {
				suffers := slices.Contains(f.Groups, g)
				slower, errors := during[g].p95()/before[g].p95(), during[g].errors()
				if suffers && (slower < 3.5 || errors < 0.15) || !suffers && (slower > 1.5 || errors > 0.02) {
					t.Errorf("%s, seed %d, group %d, suffers %v: %.1f times as slow, %.1f%% errors", event, seed, g, suffers, slower, 100*errors)
				}
				if before[g].errors() > 0.02 {
					t.Errorf("%s, seed %d, group %d: %.1f%% errors before", event, seed, g, 100*before[g].errors())
				}
				if lost := during[g].lost > 0; lost != (suffers && event == Outage) {
					t.Errorf("%s, seed %d, group %d: %d requests without upstream", event, seed, g, during[g].lost)
				}
			}
			if right := event != Neighbour && event != Everywhere; f.Isolate != right {
				t.Errorf("%s: isolating is right: %v", event, f.Isolate)
			}
		}
	}
}

// TestShapes holds what each shape says of itself.
func TestShapes(t *testing.T) {
	t.Parallel()
	for _, shape := range shapes {
		tr := calmSpec(shape, 20*time.Minute).Traffic(1)
		if len(tr.Faults) > 0 {
			t.Errorf("%s has faults", shape)
		}
		if (shape == Bursts) != (len(tr.Bursts) > 0) || (shape == Pauses) != (len(tr.Pauses) > 0) || (shape == Delayed) != (len(tr.Pipeline.Gaps) > 0) {
			t.Errorf("%s: %d bursts, %d pauses, %d gaps", shape, len(tr.Bursts), len(tr.Pauses), len(tr.Pipeline.Gaps))
		}
		for g, s := range collect(tr, 1, func(time.Duration) bool { return true }) {
			rate, want := float64(s.n)/tr.Length.Seconds(), tr.Groups[g].Rate
			if shape != Bursts && math.Abs(rate-want) > 0.1*want || shape == Low && (rate < 1.8 || rate > 5.2) {
				t.Errorf("%s, group %d: %.1f req/s, want %.1f", shape, g, rate, want)
			}
			if s.errors() > 0.01 || s.p95() > 0.5 {
				t.Errorf("%s, group %d is not well: %.1f%% errors, P95 %.0f ms", shape, g, 100*s.errors(), 1000*s.p95())
			}
		}
	}
}

func TestPipelineDelaysAndGaps(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 1))
	p := Pipeline{Delay: time.Second, Jitter: 500 * time.Millisecond, Gaps: []Gap{{From: 10 * time.Second, To: 15 * time.Second}, {From: 20 * time.Second, To: 21 * time.Second, Lose: true}}}
	for range 1000 {
		if at, ok := p.visible(rnd, 3); !ok || at < 4 || at >= 4.5 {
			t.Fatalf("ends at 3, visible at %v, %v", at, ok)
		}
		if at, ok := p.visible(rnd, 9.2); !ok || at != 15 {
			t.Fatalf("ends before a gap, visible at %v, %v", at, ok)
		}
		if _, ok := p.visible(rnd, 19.2); ok {
			t.Fatal("a lost span is visible")
		}
	}
}

// TestBoardCountsWindows plays requests into a board and counts them again by hand.
func TestBoardCountsWindows(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(2, 2))
	groups := Spec{Rate: 5}.Traffic(1).Groups
	b := newBoard(groups, 500*time.Millisecond, time.Second, 2*time.Second, 30*time.Second)
	var all []arrived
	for now := time.Duration(0); now < 50*time.Second; now += Tick {
		b.advance(now)
		b.scrape(now)
		for range rnd.IntN(20) {
			start := max(0, now.Seconds()-rnd.ExpFloat64()*2)
			bucket := bucketOf(0.06 * math.Exp(rnd.NormFloat64()))
			a := arrived{group: rnd.IntN(len(groups)), second: int(start), start: start, sample: sample{
				bucket: bucket, failed: rnd.IntN(9) == 0, slow: int(bucket) >= b.objective,
			}}
			a.lost = a.failed && rnd.IntN(2) == 0
			b.add(&a)
			all = append(all, a)
		}
		for _, w := range []*window{&b.quick, &b.short, &b.long} {
			stats := b.stats(w, now, epoch)
			from := int(max(0, now-w.length) / time.Second)
			for g := range groups {
				var latencies []time.Duration
				errors, lost := 0, 0
				for _, a := range all {
					switch {
					case a.group != g || a.second < from:
					case a.lost:
						lost++
					default:
						latencies = append(latencies, bucketValue(int(a.bucket)))
						if a.failed {
							errors++
						}
					}
				}
				slices.Sort(latencies)
				for _, st := range stats {
					if st.Group != groups[g].ID() {
						continue
					}
					if st.Pool == "" {
						if st.Requests != uint64(lost) || st.Errors != uint64(lost) {
							t.Fatalf("at %s: %d lost, want %d", now, st.Requests, lost)
						}
						lost = 0
						continue
					}
					if st.Requests != uint64(len(latencies)) || st.Errors != uint64(errors) ||
						st.P50 != quantile(latencies, 0.5) || st.P95 != quantile(latencies, 0.95) || st.P99 != quantile(latencies, 0.99) {
						t.Fatalf("at %s, group %d: %+v, want %d requests, %d errors, %s %s %s", now, g, st, len(latencies), errors,
							quantile(latencies, 0.5), quantile(latencies, 0.95), quantile(latencies, 0.99))
					}
					latencies = nil
				}
				if len(latencies) > 0 || lost > 0 {
					t.Fatalf("at %s: group %d is not there", now, g)
				}
			}
		}
	}
}

// TestReplayIsDeterministic wants the same outcomes of the same seeds from one worker
// and from several.
func TestReplayIsDeterministic(t *testing.T) {
	t.Parallel()
	s := step(20, 5, 0.1)
	s.Shape = Delayed
	one := Replay(s, Seeds{Tuning, 12}, Methods(), 1)
	if diff := cmp.Diff(one, Replay(s, Seeds{Tuning, 12}, Methods(), 5)); diff != "" {
		t.Errorf("one worker and five differ:\n%s", diff)
	}
	if diff := cmp.Diff(one, Replay(s, Seeds{Reporting, 12}, Methods(), 2)); diff == "" {
		t.Error("other seeds give the same")
	}
}

// TestShortcutChangesNothing plays runs with Decide called every time and with it
// called only where it could decide something.
func TestShortcutChangesNothing(t *testing.T) {
	t.Parallel()
	for _, p := range []decide.Policy{decide.DefaultPolicy(), Before()} {
		m := Engine("", p)
		whole := Method{New: func(g []Group) Detector {
			e := m.New(g).(*engine)
			e.whole = true
			return e
		}}
		for _, s := range []Spec{step(10, 5, 0), step(50, 1, 0.1), {Shape: Bursts, Length: 2 * time.Minute, Pipeline: ProductPipeline()}} {
			for i, out := range Replay(s, Seeds{Tuning, 6}, []Method{m, whole}, 2) {
				if out[0] != out[1] {
					t.Errorf("%+v, seed %d: %+v with the shortcut, %+v without", s, i, out[0], out[1])
				}
			}
		}
	}
}

// TestRegression plays 200 seeds and holds counts, not times: no fault of the size that
// the targets name is missed, none is found late, and nobody else is isolated.
func TestRegression(t *testing.T) {
	t.Parallel()
	ours := []Method{Engine("ours", decide.DefaultPolicy())}
	for _, c := range []struct {
		name     string
		spec     Spec
		n        int
		late     int // of n, may take longer than the target for P95
		wrong    int
		missable bool
	}{
		{name: "latency", spec: step(50, 5, 0), n: 40, late: 2},
		{name: "errors", spec: step(50, 1, 0.2), n: 40, late: 2},
		{name: "regression", spec: Spec{Rate: 50, Event: Regression, Latency: 5, Errors: 0.05, Pipeline: ProductPipeline()}, n: 20, late: 1},
		{name: "neighbour", spec: Spec{Rate: 50, Event: Neighbour, Latency: 5, Pipeline: ProductPipeline()}, n: 20, missable: true, wrong: 2},
		{name: "everywhere", spec: Spec{Rate: 50, Event: Everywhere, Errors: 0.2, Pipeline: ProductPipeline()}, n: 20, missable: true, wrong: 3},
		{name: "tails", spec: Spec{Shape: Tails, Length: 3 * time.Minute, Pipeline: ProductPipeline()}, n: 30, missable: true},
		{name: "bursts", spec: Spec{Shape: Bursts, Length: 2 * time.Minute, Pipeline: ProductPipeline()}, n: 30, missable: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			late, missed, wrong := 0, 0, 0
			for _, out := range Replay(c.spec, Seeds{Tuning, c.n}, ours, 2) {
				wrong += out[0].Wrong
				if out[0].Delay == Missed {
					missed++
				} else if out[0].Delay > TargetP95 {
					late++
				}
			}
			if late > c.late || missed > 0 && !c.missable || wrong > c.wrong {
				t.Errorf("of %d faults %d were missed and %d found after %s, %d isolations were wrong", c.n, missed, late, TargetP95, wrong)
			}
		})
	}
}

// TestPausesAreNoFaults plays runs in which the quick window alone took a pause of a pool for
// a fault of one group.
func TestPausesAreNoFaults(t *testing.T) {
	t.Parallel()
	ours := []Method{Engine("ours", decide.DefaultPolicy())}
	pauses := Spec{Shape: Pauses, Length: 20 * time.Minute, Pipeline: ProductPipeline()}
	for _, seed := range []uint64{247, 280, 458, 495, 951, 1437, 1552, 1674, 2255, 2656, 3410, 3883} {
		if out := Replay(pauses, Seeds{Tuning + seed, 1}, ours, 1); out[0][0].Wrong > 0 {
			t.Errorf("seed %d: %d isolations without a fault", seed, out[0][0].Wrong)
		}
	}
}

func TestUpTo(t *testing.T) {
	t.Parallel()
	for count, want := range map[int]float64{0: 2.996, 1: 4.744, 10: 16.962, 1000: 1054} {
		if got := UpTo(count); math.Abs(got-want) > 0.01*want {
			t.Errorf("up to %v for %d, want %v", got, count, want)
		}
	}
}

// TestPeers plays what stand-ins were made for.
func TestPeers(t *testing.T) {
	t.Parallel()
	tuned := []Method{Tuned.QuietCanary.Method("canary"), Tuned.QuickBurn.Method("burn rate")}
	for i, out := range Replay(step(50, 10, 0.5), Seeds{Tuning, 5}, tuned, 2) {
		for k, o := range out {
			if o.Delay == Missed {
				t.Errorf("seed %d: %s does not see half of the requests fail", i, tuned[k].Name)
			}
		}
	}
	if got := (BurnRate{Shorten: 1. / 3600, Target: 0.99}).pairs(); got[0].long != time.Second || got[2].short != 6*time.Second {
		t.Errorf("pairs: %+v", got)
	}
}

// TestReportIsWhole renders a small report.
func TestReportIsWhole(t *testing.T) {
	t.Parallel()
	r := Evaluate(Plan{First: Tuning, Runs: 1, Days: 0.01, Length: time.Minute, Workers: 2}, Cells()[:3], Methods())
	if len(r.Calm) != len(shapes) || len(r.Cells) != 3 || r.Markdown() == "" || r.Figures() == "" {
		t.Errorf("report: %d shapes, %d cells", len(r.Calm), len(r.Cells))
	}
	if pool := Cells()[0].Spec.Traffic(0).Groups[5].Pool; pool != semconv.PoolCanary {
		t.Errorf("the last group is in pool %s", pool)
	}
}
