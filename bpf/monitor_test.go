package bpf

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tracegate/tracegate/bpf/hist"
	"github.com/tracegate/tracegate/bpf/probe"
)

// fakeProbe is a probe whose counts and costs a test sets.
type fakeProbe struct {
	reading  probe.Reading
	cost     probe.Cost
	err      error
	shift    uint
	detached bool
	forgot   []uint32
	slow     chan probe.Exemplar
}

func (f *fakeProbe) Read() (probe.Reading, error) { return f.reading, f.err }
func (f *fakeProbe) Forget(slot uint32) error     { f.forgot = append(f.forgot, slot); return nil }
func (f *fakeProbe) Cost() (probe.Cost, error)    { return f.cost, nil }
func (f *fakeProbe) Sample(shift uint) error      { f.shift = shift; return nil }
func (f *fakeProbe) Detach() error                { f.detached = true; return nil }
func (f *fakeProbe) Exemplars(ctx context.Context, use func(probe.Exemplar)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-f.slow:
			if !ok {
				return errors.New("the ring is gone")
			}
			use(e)
		}
	}
}

type fakeKernel struct{ watched map[uint32]uint32 }

func (f *fakeKernel) Watch(p map[uint32]uint32) error { f.watched = p; return nil }
func (f *fakeKernel) Close() error                    { return nil }

type processes []Process

func (p processes) Processes(context.Context) ([]Process, error) { return p, nil }

func newTestMonitor(t *testing.T, f *fakeProbe) (*monitor, *fakeKernel) {
	t.Helper()
	k := &fakeKernel{}
	cfg := DefaultConfig()
	cfg.Targets = map[string]string{"127.0.0.1:9092": "kafka"}
	l := loaded{status: probe.Status{Probe: "tcpconnect", State: probe.On, Source: "test"}, running: f, throttle: f}
	off := loaded{status: probe.Status{Probe: "gcpause", State: probe.Off, Why: "no uprobes"}}
	return newMonitor(cfg, newOwners(), processes{{PID: 42, Owner: canary}}, k, []loaded{l, off}, slog.New(slog.DiscardHandler)), k
}

func TestReadingBecomesAlertCauseAndMetrics(t *testing.T) {
	f := &fakeProbe{}
	m, k := newTestMonitor(t, f)
	m.read(t.Context(), start)
	if k.watched[42] == 0 {
		t.Errorf("watched = %v", k.watched)
	}
	var h hist.Histogram
	h.RecordN(400*time.Millisecond, 12)
	f.reading = probe.Reading{
		Series: []probe.Series{
			{Probe: "tcpconnect", Kind: "connect", Owner: canary, Cgroup: 1, Target: "127.0.0.1:9092", Hist: h},
			{Probe: "tcpconnect", Kind: "connect", Owner: canary, Cgroup: 2, Target: "127.0.0.1:9092", Hist: h},
		},
		Counts: []probe.Count{{Probe: "tcpconnect", Kind: "connect_failed", Owner: canary, Target: "127.0.0.1:9092", Reason: "refused", N: 3}},
		Queues: []probe.Queue{{Owner: canary, Listen: "127.0.0.1:9102", Length: 1, Limit: 128, Drops: 2}},
		Lost:   []probe.Lost{{Reason: probe.LostRing, N: 5}},
	}
	f.cost = probe.Cost{Events: 1000, Runtime: time.Millisecond}
	m.read(t.Context(), start.Add(2*time.Second))
	s, ok := m.Snapshot()
	if !ok || len(s.Alerts) != 1 || len(s.CausesOf("core", "canary")) == 0 || !strings.Contains(s.Causes[0].Text, "kafka") {
		t.Fatalf("snapshot = %+v", s)
	}
	p := s.Probes[0]
	if p.Rate != 500 || p.EventCost != time.Microsecond || p.Share < 0.00049 || p.Share > 0.00051 || p.Lost[probe.LostRing] != 5 {
		t.Errorf("probe state = %+v", p)
	}

	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(newCollector(m))
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %+v", err, problems)
	}
	want := `
# HELP tracegate_probe_events_total What a probe counts without a duration: failures, retransmissions, drops.
# TYPE tracegate_probe_events_total counter
tracegate_probe_events_total{kind="connect_failed",name="core-canary",pool="canary",probe="tcpconnect",reason="refused",service="core",target="127.0.0.1:9092"} 3
# HELP tracegate_probe_state 1 for the state a probe is in: on, degraded, off.
# TYPE tracegate_probe_state gauge
tracegate_probe_state{probe="gcpause",state="degraded"} 0
tracegate_probe_state{probe="gcpause",state="off"} 1
tracegate_probe_state{probe="gcpause",state="on"} 0
tracegate_probe_state{probe="tcpconnect",state="degraded"} 0
tracegate_probe_state{probe="tcpconnect",state="off"} 0
tracegate_probe_state{probe="tcpconnect",state="on"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "tracegate_probe_events_total", "tracegate_probe_state"); err != nil {
		t.Error(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "tracegate_probe_seconds" {
			if n := f.GetMetric()[0].GetHistogram().GetSampleCount(); n != 24 || len(f.GetMetric()) != 1 {
				t.Errorf("%d connects in %d series, want 24 of both cgroups in one", n, len(f.GetMetric()))
			}
		}
	}
}

// TestLossReasonsAreMetrics: every reason of the closed list has its counter.
func TestLossReasonsAreMetrics(t *testing.T) {
	f := &fakeProbe{}
	for i, r := range probe.Reasons() {
		f.reading.Lost = append(f.reading.Lost, probe.Lost{Reason: r, N: uint64(i + 1)})
	}
	m, _ := newTestMonitor(t, f)
	m.read(t.Context(), start)
	reg := prometheus.NewRegistry()
	reg.MustRegister(newCollector(m))
	if n, err := testutil.GatherAndCount(reg, "tracegate_probe_lost_total"); err != nil || n != len(probe.Reasons()) {
		t.Errorf("%d loss counters, %v; want %d", n, err, len(probe.Reasons()))
	}
}

func TestTooDearAProbeSamplesAndEnds(t *testing.T) {
	f := &fakeProbe{}
	m, _ := newTestMonitor(t, f)
	at := start
	m.read(t.Context(), at)
	for range 3 {
		at = at.Add(time.Second)
		f.cost.Events += 1000
		f.cost.Runtime += 50 * time.Millisecond
		m.read(t.Context(), at)
	}
	s, _ := m.Snapshot()
	if p := s.Probes[0]; f.shift != 1 || p.Sampling != 2 || p.State != probe.Degraded || !strings.Contains(p.Why, "one event in 2") {
		t.Fatalf("shift %d, state %+v", f.shift, p)
	}
	for range 30 {
		at = at.Add(time.Second)
		f.cost.Events += 1000
		f.cost.Runtime += 50 * time.Millisecond
		m.read(t.Context(), at)
	}
	s, _ = m.Snapshot()
	if p := s.Probes[0]; !f.detached || p.State != probe.Off || !strings.HasPrefix(p.Why, "switched off: 5.00% of a core") {
		t.Errorf("detached %v, state %+v", f.detached, p)
	}
}

func TestAFailingProbeDoesNotHoldUpTheOthers(t *testing.T) {
	f := &fakeProbe{err: errors.New("read map: bad file")}
	m, _ := newTestMonitor(t, f)
	m.processes = processes{{PID: 42, Owner: canary, Metrics: "http://127.0.0.1:1/metrics"}}
	m.read(t.Context(), start)
	s, ok := m.Snapshot()
	if !ok || len(s.Problems) != 2 || s.Problems[0] != "read map: bad file" || !strings.Contains(s.Problems[1], "core-canary") {
		t.Errorf("problems = %q", s.Problems)
	}
}

func TestSlowEventsAreBoundedAndAReaderMayEnd(t *testing.T) {
	f := &fakeProbe{slow: make(chan probe.Exemplar)}
	m, _ := newTestMonitor(t, f)
	m.cfg.Interval = 10 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.run(ctx) }()
	for i := range 3 * maxSlow {
		f.slow <- probe.Exemplar{Probe: "tcpconnect", PID: uint32(i), At: start.Add(time.Duration(i))}
	}
	close(f.slow)
	deadline := time.Now().Add(5 * time.Second)
	for {
		s, ok := m.Snapshot()
		if ok && s.Probes[0].State == probe.Degraded && len(s.Slow) == maxSlow && s.Slow[0].PID == 3*maxSlow-1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d slow events, states %+v", len(s.Slow), s.Probes)
		}
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
