package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/observability/console"
)

func owner(pool string) console.KernelOwner {
	return console.KernelOwner{Service: "core", Pool: pool, Name: "core-" + pool}
}

func TestKernelReportReadsWhatTheProbesWrite(t *testing.T) {
	r := kernelReport()
	if !r.At.Equal(noon) || r.Window != 10 || r.Watched != 7 || len(r.Counters) != 4 || len(r.Queues) != 3 || len(r.Problems) != 1 {
		t.Errorf("report %+v", r)
	}
	want := console.KernelProbe{
		Probe: "schedlatency", State: "degraded", Why: "samples one event in 8: 1.4% of a core is over the budget of 1%", Share: .0071, Rate: 48210, EventCost: 147e-9,
		Sampling: 8, Lost: map[string]uint64{"exemplar_limit": 1204, "recursion": 3},
	}
	if diff := cmp.Diff(want, r.Probes[1]); diff != "" {
		t.Errorf("probe (-want +got):\n%s", diff)
	}
	slow := console.KernelLatency{Kind: "connect", Owner: owner("canary"), Target: "127.0.0.1:9092", Count: 37, Threshold: .2, P50: .12, P95: .412, P99: .63}
	if diff := cmp.Diff(slow, r.Latencies[9]); diff != "" {
		t.Errorf("latency (-want +got):\n%s", diff)
	}
	if a := r.Alerts[1]; a.Owner != owner("canary") || !a.Since.Equal(noon.Add(-72*time.Second)) || a.Text == "" {
		t.Errorf("alert %+v", a)
	}
}

func TestKernelIsWorstFirst(t *testing.T) {
	k := console.NewKernel(kernelReport())
	if k.State != console.KernelRunning || k.Why != "" {
		t.Errorf("the probes are %s: %s", k.State, k.Why)
	}
	var got []string
	for _, l := range k.Latencies.Rows {
		got = append(got, strings.TrimSpace(l.Kind+" "+l.Owner.Pool+" "+l.Target))
	}
	want := []string{
		"connect canary 127.0.0.1:9092", "preempted canary", // twice their threshold
		"goroutine_wait canary", "wakeup canary", // half of it, and a third
		"goroutine_wait baseline", "stopped baseline", "stopped canary", "wakeup baseline", "wakeup",
		"connect  [fd00:5bb8:aaaa:2::118a]:8082", "connect  127.0.0.1:8081", "marking baseline",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("latencies (-want +got):\n%s", diff)
	}
	if q := k.Queues.Rows; q[0].Drops != 1204 || q[1].Listen != "0.0.0.0:8080" {
		t.Errorf("queues %+v", q)
	}
	if c := k.Counters.Rows; len(c) != 3 || c[0].Count != 61 || c[2].Count != 2 {
		t.Errorf("counters %+v", c)
	}
}

func TestKernelShowsAnAlertAndItsCauseOnce(t *testing.T) {
	k := console.NewKernel(console.KernelReport{
		Alerts: []console.KernelAlert{{Owner: owner("canary"), Text: "slow", Since: noon}, {Owner: owner("baseline"), Text: "alone", Since: noon}},
		Causes: []console.KernelCause{{Owner: owner("canary"), Text: "slow", Weight: 2}, {Owner: owner("baseline"), Text: "slow", Weight: 3}, {Owner: owner("canary"), Text: "full", Weight: 5}},
	})
	want := []console.KernelFinding{
		{Owner: owner("baseline"), Text: "alone", Since: noon}, {Owner: owner("canary"), Text: "full"}, {Owner: owner("baseline"), Text: "slow"}, {Owner: owner("canary"), Text: "slow", Since: noon},
	}
	if diff := cmp.Diff(want, k.Findings.Rows); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

func TestKernelIsBounded(t *testing.T) {
	long := strings.Repeat("ü", 4000)
	r := console.KernelReport{Probes: []console.KernelProbe{{State: "on", Why: long}}}
	for i := range 1000 {
		r.Latencies = append(r.Latencies, console.KernelLatency{Kind: "connect", Target: fmt.Sprint(i), Count: uint64(i % 10), Threshold: 1, P95: float64(i)})
		r.Counters = append(r.Counters, console.KernelCount{Kind: "drop", Count: uint64(i)})
		r.Queues = append(r.Queues, console.KernelQueue{Length: uint32(i)})
		r.Alerts = append(r.Alerts, console.KernelAlert{Text: fmt.Sprint(i)})
		r.Causes = append(r.Causes, console.KernelCause{Text: long, Weight: float64(i)})
		r.Problems = append(r.Problems, long)
		r.Probes = append(r.Probes, console.KernelProbe{Probe: fmt.Sprint(i)})
	}
	k := console.NewKernel(r)
	got := map[string][2]int{
		"latencies": {len(k.Latencies.Rows), k.Latencies.LeftOut}, "counters": {len(k.Counters.Rows), k.Counters.LeftOut}, "queues": {len(k.Queues.Rows), k.Queues.LeftOut},
		"findings": {len(k.Findings.Rows), k.Findings.LeftOut}, "problems": {len(k.Problems.Rows), k.Problems.LeftOut}, "probes": {len(k.Probes.Rows), k.Probes.LeftOut},
	}
	want := map[string][2]int{"latencies": {100, 800}, "counters": {20, 979}, "queues": {20, 980}, "findings": {20, 1980}, "problems": {20, 980}, "probes": {20, 981}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows and left out (-want +got):\n%s", diff)
	}
	if k.Latencies.Rows[0].P95 < 512 {
		t.Errorf("the first of 1000 series is %+v", k.Latencies.Rows[0])
	}
	if body, err := json.Marshal(k); err != nil || len(body) > 100_000 {
		t.Errorf("%d bytes, error %v", len(body), err)
	}
}

func TestKernelOff(t *testing.T) {
	off := func(why ...string) (out []console.KernelProbe) {
		for _, w := range why {
			out = append(out, console.KernelProbe{State: "off", Why: w})
		}
		return out
	}
	tests := []struct {
		name       string
		probes     []console.KernelProbe
		state, why string
	}{
		{"one reason for all", off("needs CAP_BPF", "needs CAP_BPF"), console.KernelOff, "needs CAP_BPF"},
		{"several reasons", off("needs CAP_BPF", "switched off"), console.KernelOff, "every probe is off"},
		{"no reason", off("", ""), console.KernelOff, "every probe is off"},
		{"no probes", nil, console.KernelOff, "no probe is loaded"},
		{"one works", append(off("switched off"), console.KernelProbe{State: "degraded"}), console.KernelRunning, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := console.NewKernel(console.KernelReport{Probes: tt.probes})
			if k.State != tt.state || k.Why != tt.why || !k.Since.IsZero() {
				t.Errorf("got %s: %s", k.State, k.Why)
			}
		})
	}
}

func TestNoKernel(t *testing.T) {
	refused := fmt.Errorf("ask the probes: %w", syscall.ECONNREFUSED)
	for err, want := range map[error]string{refused: console.KernelOff, context.DeadlineExceeded: console.KernelSilent} {
		k := console.NoKernel(err, noon)
		if k.State != want || k.Why != err.Error() || !k.Since.Equal(noon) {
			t.Errorf("%v gives %+v", err, k)
		}
		if body, err := json.Marshal(k); err != nil || strings.Contains(string(body), "null") {
			t.Errorf("%s, error %v", body, err)
		}
	}
}

// FuzzKernel: whatever the probes write, the panel is bounded and can be sent.
func FuzzKernel(f *testing.F) {
	f.Add(probes)
	f.Add([]byte(`{"latencies": [{"count": 1, "threshold_seconds": 5e-324, "p95_seconds": 1e308}], "queues": [{"length": 4294967295}]}`))
	f.Add([]byte(`{"latencies": [{"count": 1, "threshold_seconds": -1, "p95_seconds": -1}], "probes": [{"state": "off", "lost": {"": 1}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r console.KernelReport
		if json.Unmarshal(b, &r) != nil {
			return
		}
		k := console.NewKernel(r)
		if len(k.Latencies.Rows) > 100 || len(k.Findings.Rows)+k.Findings.LeftOut > len(r.Causes)+len(r.Alerts) {
			t.Errorf("%d latencies, %d findings and %d left out", len(k.Latencies.Rows), len(k.Findings.Rows), k.Findings.LeftOut)
		}
		if _, err := json.Marshal(k); err != nil {
			t.Error(err)
		}
	})
}

// kernelEvents gives the kernel sections of a stream.
func kernelEvents(t *testing.T, events <-chan string, ok func(console.Kernel) bool) console.Kernel {
	t.Helper()
	for {
		var k console.Kernel
		if err := json.Unmarshal([]byte(strings.TrimPrefix(until(t, events, "kernel "), "kernel ")), &k); err != nil {
			t.Fatal(err)
		}
		if ok(k) {
			return k
		}
	}
}

func TestProbesGoAwayAndHeal(t *testing.T) {
	s := serve(t, func(c *console.Config) { c.Timeout = 200 * time.Millisecond })
	c := s.caller(t)
	c.login()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, _ := c.stream(ctx)
	is := func(state string) func(console.Kernel) bool {
		return func(k console.Kernel) bool { return k.State == state }
	}
	kernelEvents(t, events, is(console.KernelRunning))

	s.do(func() { s.probesErr = errAway })
	away := kernelEvents(t, events, is(console.KernelSilent))
	if away.Why != errAway.Error() || away.Since.IsZero() || len(away.Latencies.Rows) != 0 {
		t.Errorf("away %+v", away)
	}
	s.do(func() { s.probesErr = fmt.Errorf("503 Service Unavailable: %w", io.ErrUnexpectedEOF) })
	other := kernelEvents(t, events, func(k console.Kernel) bool { return k.Why != errAway.Error() })
	if !other.Since.Equal(away.Since) {
		t.Errorf("another error moved the begin from %s to %s", away.Since, other.Since)
	}
	s.do(func() { s.probesErr, s.probesHang = nil, make(chan struct{}) })
	kernelEvents(t, events, func(k console.Kernel) bool { return strings.Contains(k.Why, context.DeadlineExceeded.Error()) })
	until(t, events, "groups") // the others go on
	until(t, events, "groups")
	s.do(func() { close(s.probesHang); s.probesHang = nil })
	if k := kernelEvents(t, events, is(console.KernelRunning)); len(k.Latencies.Rows) != 12 || !k.Since.IsZero() {
		t.Errorf("healed %+v", k)
	}
	s.do(func() { s.skew = 3 * time.Minute }) // a probe process that hangs, and serves what it has
	if k := kernelEvents(t, events, is(console.KernelSilent)); !strings.Contains(k.Why, "old") {
		t.Errorf("an old reading: %s", k.Why)
	}
	if failed := polls(t, s, "kernel", "failed"); failed < 4 {
		t.Errorf("%v failures were counted", failed)
	}
}

func polls(t *testing.T, s *served, source, outcome string) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if l := m.GetLabel(); f.GetName() == "tracegate_console_polls_total" && l[0].GetValue() == outcome && l[1].GetValue() == source {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestProbesAreAskedWhileSomebodyWatches(t *testing.T) {
	s := serve(t, nil)
	c := s.caller(t)
	c.login()
	asked := func() (n int) {
		s.do(func() { n = s.probed })
		return n
	}
	if n := asked(); n != 0 {
		t.Errorf("nobody watches, and the probes were asked %d times", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	begin := time.Now()
	one, _ := c.stream(ctx)
	two, _ := c.stream(ctx)
	for range 8 {
		until(t, one, "kernel")
		until(t, two, "kernel")
	}
	// One a tick, and some for the first viewer and ticks that came late; not one a viewer.
	if n, most := asked(), int(time.Since(begin)/s.cfg.Poll)+5; n > most {
		t.Errorf("%d questions for 2 viewers in %s, at most %d expected", n, time.Since(begin), most)
	}
	cancel()
	waitFor(t, "viewers are gone", func() bool { return gauge(t, s, "tracegate_console_viewers") == 0 })
	before := asked()
	tick := time.NewTicker(3 * s.cfg.Poll)
	defer tick.Stop()
	<-tick.C
	if n := asked(); n > before+1 {
		t.Errorf("%d questions after the last viewer left", n-before)
	}
}

func TestWithoutProbesNothingIsSaidOfThem(t *testing.T) {
	s := serveDeps(t, nil, func(d *console.Deps) { d.Probes = nil })
	c := s.caller(t)
	c.login()
	events, resp := c.stream(t.Context())
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	for range 12 {
		if e := until(t, events, ""); strings.HasPrefix(e, "kernel") {
			t.Fatal(e)
		}
	}
}

func TestEntriesHaveTheWorstCauses(t *testing.T) {
	d := newFakes().decided[0]
	if got := console.Entries([]decide.Decision{d})[0]; len(got.Causes) != 2 || got.MoreCauses != 0 {
		t.Errorf("causes %v and %d more", got.Causes, got.MoreCauses)
	}
	for i := range 10 {
		d.Causes = append(d.Causes, fmt.Sprint(i))
	}
	got := console.Entries([]decide.Decision{d})[0]
	if len(got.Causes) != 5 || got.Causes[4] != "2" || got.MoreCauses != 7 {
		t.Errorf("causes %v and %d more", got.Causes, got.MoreCauses)
	}
}
