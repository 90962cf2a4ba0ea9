package bpf

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/bpf/hist"
	"github.com/tracegate/tracegate/bpf/probe"
)

var (
	canary   = probe.Owner{Service: "core", Pool: "canary", Name: "core-canary"}
	baseline = probe.Owner{Service: "core", Pool: "baseline", Name: "core-baseline"}
	start    = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("default configuration: %v", err)
	}
	for key, change := range map[string]func(*Config){
		"admin":                func(c *Config) { c.Admin = "0.0.0.0:9221" },
		"interval":             func(c *Config) { c.Interval = time.Millisecond },
		"window":               func(c *Config) { c.Window = 3 * time.Second },
		"budget":               func(c *Config) { c.Budget = 0 },
		"off":                  func(c *Config) { c.Off = []string{"tcpconect"} },
		"thresholds.scheduler": func(c *Config) { c.Thresholds.Scheduler = 0 },
		"targets":              func(c *Config) { c.Targets = map[string]string{"kafka": "127.0.0.1:9092"} },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+":") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestBudget(t *testing.T) {
	b := budget{share: 0.01, patience: 3, maxShift: 2}
	var s spending
	var notices []string
	feed := func(n int, share float64) {
		for range n {
			var notice string
			if s, notice = b.next(s, share); notice != "" {
				notices = append(notices, notice)
			}
		}
	}
	feed(2, 0.05) // a short burst
	feed(1, 0.005)
	feed(2, 0.05)
	if s.Shift != 0 || len(notices) != 0 {
		t.Fatalf("two readings in a row over budget: %+v, %v", s, notices)
	}
	feed(1, 0.05)
	feed(15, 0.001) // cheap again
	feed(9, 0.05)
	feed(50, 0.001) // off is off
	want := []string{
		"samples one event in 2: 5.00% of a core, budget 1.00%",
		"samples one event in 1 again: 0.10% of a core, budget 1.00%",
		"samples one event in 2: 5.00% of a core, budget 1.00%",
		"samples one event in 4: 5.00% of a core, budget 1.00%",
		"switched off: 5.00% of a core, budget 1.00%, even at one event in 4",
	}
	if d := cmp.Diff(want, notices); d != "" {
		t.Error(d)
	}
	if !s.Off {
		t.Errorf("%+v, want off", s)
	}
}

func TestOwnersKeepTheirSlots(t *testing.T) {
	o := newOwners()
	watch, _, _ := o.assign([]Process{{PID: 10, Owner: canary}, {PID: 11, Owner: baseline}, {PID: 12, Owner: canary}}, start)
	if watch[10] != watch[12] || watch[10] == watch[11] || watch[10] == 0 {
		t.Errorf("slots = %v", watch)
	}
	again, taken, refused := o.assign([]Process{{PID: 20, Owner: canary}}, start.Add(time.Hour))
	if again[20] != watch[10] || len(again) != 1 || len(taken) != 0 || refused != 0 {
		t.Errorf("after a restart: %v, %v taken, %d refused; want slot %d", again, taken, refused, watch[10])
	}
	if got := o.Owner(watch[10]); got != canary {
		t.Errorf("owner of %d = %+v", watch[10], got)
	}
	if _, _, refused := o.assign([]Process{{PID: 1}, {PID: -4, Owner: canary}}, start); refused != 2 {
		t.Errorf("%d refused, want those without owner or with no process id", refused)
	}
	if got := o.Owner(1 << 20); got != (probe.Owner{}) {
		t.Errorf("owner of a slot that does not exist: %+v", got)
	}
}

func TestOwnersTakeTheSlotThatWasLeftFirst(t *testing.T) {
	o := newOwners()
	pods := func(from, n int) (out []Process) {
		for i := range n {
			out = append(out, Process{PID: 100 + i, Owner: probe.Owner{Service: "core", Name: fmt.Sprintf("pod-%d", from+i)}})
		}
		return out
	}
	all := pods(0, maxOwners)
	if _, _, refused := o.assign(all, start); refused != 0 {
		t.Fatalf("%d refused", refused)
	}
	more := pods(1000, 1)
	if _, taken, refused := o.assign(append(all[1:], more...), start.Add(time.Minute)); refused != 1 || len(taken) != 0 {
		t.Errorf("a slot was taken a minute after its owner went: %v", taken)
	}
	first := o.slots[all[0].Owner]
	watch, taken, refused := o.assign(append(all[1:], more...), start.Add(time.Hour))
	if refused != 0 || !cmp.Equal(taken, []uint32{first}) || o.Owner(first) != more[0].Owner || len(watch) != maxOwners {
		t.Errorf("taken %v, %d refused, owner %+v; want slot %d for the new one", taken, refused, o.Owner(first), first)
	}
	if _, ok := o.slots[all[0].Owner]; ok {
		t.Error("the owner that went still has a slot")
	}
}

func connects(n uint64, d time.Duration) hist.Histogram {
	var h hist.Histogram
	h.RecordN(d, n)
	return h
}

func TestWindowForgets(t *testing.T) {
	w := windows{keep: 2}
	k := seriesKey{Probe: "tcpconnect", Kind: "connect", Owner: canary, Target: "10.0.0.1:9092"}
	var total hist.Histogram
	for i := range 4 {
		if i == 1 {
			slow := connects(5, 400*time.Millisecond)
			total.Add(&slow)
		}
		fast := connects(1, time.Millisecond)
		total.Add(&fast)
		w.add(reading{at: start.Add(time.Duration(i) * time.Second), series: map[seriesKey]hist.Histogram{k: total}})
		got := w.latencies(DefaultConfig().Thresholds)
		switch i {
		case 0:
			if got != nil {
				t.Errorf("one reading has no window: %+v", got)
			}
		case 2:
			if l := got[0]; l.Count != 7 || l.P95 < 350*time.Millisecond || l.Total != 8 || w.span() != 2*time.Second {
				t.Errorf("window with slow connects: %+v over %v", l, w.span())
			}
		case 3:
			if l := got[0]; l.Count != 2 || l.P95 > 2*time.Millisecond || l.Total != 9 {
				t.Errorf("window after slow connects: %+v", l)
			}
		}
	}
}

func TestAlertsAndCauses(t *testing.T) {
	names := map[string]string{"127.0.0.1:9092": "kafka"}
	slow := Latency{Kind: "connect", Owner: canary, Target: "127.0.0.1:9092", Count: 12, P95: 403 * time.Millisecond, Threshold: 200 * time.Millisecond}
	few := slow
	few.Count = 2
	fine := Latency{Kind: "wakeup", Owner: baseline, Count: 1000, P95: 3 * time.Millisecond, Threshold: 10 * time.Millisecond}
	late := Latency{Kind: "wakeup", Owner: canary, Count: 1000, P95: 30 * time.Millisecond, Threshold: 10 * time.Millisecond}

	if got := alerts(nil, []Latency{few, fine}, names, start); got != nil {
		t.Errorf("alerts = %+v, want none", got)
	}
	first := alerts(nil, []Latency{slow, fine}, names, start)
	want := []Alert{{Kind: "connect", Owner: canary, Target: "127.0.0.1:9092", Since: start, Text: "connects to kafka (127.0.0.1:9092) take 400ms (P95 of 12, threshold 200ms)"}}
	if d := cmp.Diff(want, first); d != "" {
		t.Error(d)
	}
	second := alerts(first, []Latency{slow, late}, names, start.Add(time.Second))
	if second[0].Since != start || second[1].Since != start.Add(time.Second) {
		t.Errorf("alerts = %+v: an alert keeps its beginning", second)
	}
	fired, resolved := changes(first, second)
	if len(fired) != 1 || fired[0].Kind != "wakeup" || len(resolved) != 0 {
		t.Errorf("fired %+v, resolved %+v", fired, resolved)
	}
	if _, resolved := changes(second, nil); len(resolved) != 2 {
		t.Errorf("resolved %+v, want both", resolved)
	}

	s := Snapshot{Causes: causes([]Latency{late, slow, fine},
		[]Counter{
			{Kind: "connect_failed", Owner: canary, Target: "127.0.0.1:9092", Reason: "refused", Count: 8},
			{Kind: "connect_failed", Owner: baseline, Target: "127.0.0.1:9092", Reason: "refused", Count: 2},
		},
		[]probe.Queue{{Owner: canary, Listen: "127.0.0.1:9102", Length: 129, Limit: 128, Drops: 7}, {Owner: baseline, Listen: "127.0.0.1:9101", Length: 3, Limit: 128}},
		names, 10*time.Second)}
	var texts []string
	for _, c := range s.CausesOf("core", "canary") {
		texts = append(texts, c.Text)
	}
	if d := cmp.Diff([]string{
		"the accept queue of 127.0.0.1:9102 is full (129 of 128, 7 dropped so far)",
		"8 of 20 connects to kafka (127.0.0.1:9092) failed in 10s: refused",
		"threads wait for a CPU after waking for 30ms (P95 of 1000, threshold 10ms)",
		"connects to kafka (127.0.0.1:9092) take 400ms (P95 of 12, threshold 200ms)",
	}, texts); d != "" {
		t.Error(d)
	}
	if got := s.CausesOf("core", "baseline"); got != nil {
		t.Errorf("baseline: %+v", got)
	}
}

func TestSnapshotSurvivesTheWire(t *testing.T) {
	want := Snapshot{
		At: start, Window: 10 * time.Second, Watched: 3,
		Probes: []ProbeState{{
			Status: probe.Status{Probe: "tcpconnect", State: probe.Degraded, Why: "x", Source: "y"}, Share: 0.002, Rate: 12, EventCost: 250, Sampling: 2,
			Lost: map[probe.Reason]uint64{probe.LostRing: 4},
		}},
		Latencies: []Latency{{Probe: "tcpconnect", Kind: "connect", Owner: canary, Target: "a", Count: 1, Total: 2, Threshold: time.Second, Mean: 1, P50: 2, P95: 3 * time.Millisecond, P99: 4}},
		Counters:  []Counter{{Probe: "tcpretransmit", Kind: "drop", Reason: "tcp_csum", Count: 1, Total: 9}},
		Queues:    []probe.Queue{{Owner: canary, Listen: "127.0.0.1:1", Length: 1, Limit: 2}},
		Slow:      []probe.Exemplar{{Probe: "tcpconnect", Kind: "connect", At: start, Latency: time.Second, Owner: canary, PID: 7, TID: 8, Command: "core"}},
		Alerts:    []Alert{{Kind: "connect", Owner: canary, Since: start, Text: "t"}},
		Causes:    []Cause{{Owner: canary, Text: "t", Weight: 2}},
		Problems:  []string{"p"},
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"p95_seconds":0.003`, `"window_seconds":10`, `"seconds":1`, `"event_cost_seconds":2.5e-7`} {
		if !strings.Contains(string(b), part) {
			t.Errorf("%s misses %s", b, part)
		}
	}
	var got Snapshot
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
