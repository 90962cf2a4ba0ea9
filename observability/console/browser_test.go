package console_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/webpage/browsertest"
	"github.com/tracegate/tracegate/observability/console"
	"github.com/tracegate/tracegate/observability/store"
)

// open logs in as ada in a new tab.
func open(t *testing.T, b *browsertest.Browser, s *served, size browsertest.Size) *browsertest.Tab {
	t.Helper()
	tab := b.Tab(t, size)
	tab.Dark(false)
	tab.Allow("status of 401") // the first look at the session
	tab.Open(s.url + "/")
	tab.Type("#name", "ada")
	tab.Type("#password", password)
	tab.Press(kb.Enter)
	tab.UntilText("#live", "Live")
	tab.UntilText("#groups", string(canary.ID()))
	return tab
}

// row is the selector of a cell in a group's row.
func row(id, cell string) string {
	return fmt.Sprintf(`#groups tr[data-key="%s"] %s`, id, cell)
}

func TestLogin(t *testing.T) {
	s := serve(t, nil)
	tab := browsertest.Start(t).Tab(t, browsertest.Desktop())
	tab.Allow("status of 4") // 401, 429: provoked
	tab.Open(s.url + "/")
	tab.Click("#login-submit")
	tab.UntilText("#login-error", "Enter your name")
	tab.Type("#name", "ada")
	tab.Type("#password", "guess")
	tab.Click("#login-submit")
	tab.UntilText("#login-error", "The password is wrong")
	tab.Type("#password", password)
	tab.Click("#login-submit")
	tab.UntilText("#who", "ada")
	tab.UntilText("#live", "Live")
	var visible string
	tab.Eval("document.cookie", &visible)
	if visible != "" {
		t.Errorf("a script can read %q", visible)
	}
	tab.Open(s.url + "/console/") // a reload is still logged in
	tab.UntilText("#who", "ada")
	tab.Click("#logout")
	tab.Until(`!document.getElementById("welcome").hidden`)
	tab.Open(s.url + "/console/")
	tab.Until(`!document.getElementById("welcome").hidden`)
}

func TestBoardIsLive(t *testing.T) {
	s := serve(t, nil)
	tab := open(t, browsertest.Start(t), s, browsertest.Desktop())
	id := string(search.ID())
	tab.UntilText(row(id, ".pools"), "baseline")
	tab.UntilText(row(id, ".state"), "Home")
	tab.Until(`document.querySelector("` + strings.ReplaceAll(row(id, ".trend svg .line"), `"`, `\"`) + `")`)
	tab.UntilText("#summary", "1 of 1")
	s.do(func() { s.boost = 100 })
	tab.Until(`Number(document.querySelector('` + row(id, ".qps") + `').textContent.replace(",", "")) > 3000`)
	s.do(func() {
		s.groups[1].Pool, s.groups[1].State, s.groups[1].Since = "isolated", ctlapi.StateIsolated, time.Now()
	})
	tab.UntilText(row(string(canary.ID()), ".state"), "Isolated")
	tab.UntilText(row(string(canary.ID()), ".pools"), "isolated")
	tab.Type("#filter", "search")
	tab.Until(`document.querySelectorAll("#groups tr").length === 1`)
	tab.UntilText("#groups-note", "1 of 3")
	tab.UntilText("#decisions", "objective 1%")
	tab.Click("#decisions summary")
	tab.UntilText("#decisions", "Decided")
	tab.Click("#decisions li:last-child summary")
	tab.UntilText("#decisions li:last-child .record", "Its baseline")
	tab.UntilText("#decisions li:last-child .record", "1.4 s before")
	tab.UntilText("#decisions li:last-child .record", "112 ms after")
	tab.UntilText("#edges", "RDS 17")
	tab.UntilText("#telemetry", "1,284,402")
	tab.UntilText("#telemetry", "every record")
	s.do(func() { s.lost = 7 })
	tab.UntilText("#telemetry", "Dropped: rejected")
	tab.UntilText("#storage-note", "68.8 MB of tables, 41.2 GB of 120.0 GB free")
	tab.UntilText(`#storage [data-key="otel_traces"]`, "3 d")
	tab.UntilText(`#storage [data-key="otel_traces"]`, "31 h")
	tab.UntilText(`#storage [data-key="otel_traces"] [data-tone="bad"]`, "66.8 MB of 64.0 MB")
	tab.UntilText(`#storage [data-key="schema_migrations"]`, "for ever")
	s.do(func() { s.statsErr = errAway })
	tab.UntilText("#storage-empty", "ClickHouse does not say")
	tab.Until(`document.querySelectorAll("#storage tr").length === 0`)
}

func TestOrdersReachTheControlPlane(t *testing.T) {
	s := serve(t, nil)
	tab := open(t, browsertest.Start(t), s, browsertest.Desktop())
	id := string(canary.ID())
	tab.Click(row(id, ".order-button"))
	tab.UntilText("#order-title", "Isolate group "+id)
	tab.Click("#order-submit")
	tab.UntilText("#order-error", "Say why")
	tab.Type("#order-reason", "pagination bug")
	tab.Eval(`document.getElementById("order-for").value = "3600000"`, nil)
	tab.Screenshot("console-order")
	tab.Accessible("order")
	tab.Click("#order-submit")
	tab.UntilText(row(id, ".state"), "Moved by hand")
	tab.UntilText("#decisions", "pagination bug")
	tab.UntilText(row(id, ".order-button"), "Release")

	tab.Allow("status of 503")
	s.do(func() {
		s.refuse = &protocol.Error{Code: protocol.CodeUnavailable, Message: "no edge is connected", Temporary: true}
	})
	tab.Click(row(id, ".order-button"))
	tab.Type("#order-reason", "fixed")
	tab.Press(kb.Enter)
	tab.UntilText("#order-error", "No edge is connected")
	s.do(func() { s.refuse = nil })
	tab.Press(kb.Enter)
	tab.UntilText(row(id, ".state"), "Kept home")
	want := []string{"isolate " + id + " by ada for 3600000: pagination bug", "release " + id + " by ada for 0: fixed"}
	s.do(func() {
		if diff := cmp.Diff(want, s.orders); diff != "" {
			t.Errorf("orders (-want +got):\n%s", diff)
		}
	})
}

func TestSourcesGoAwayAndHeal(t *testing.T) {
	s := serve(t, nil)
	tab := open(t, browsertest.Start(t), s, browsertest.Desktop())
	id := string(search.ID())
	tab.Until(`document.querySelector('` + row(id, ".qps") + `').textContent !== "–"`)

	s.do(func() { s.statsErr = errAway })
	tab.UntilText("#banners", "Telemetry unavailable since")
	tab.UntilText("#banners", "connection refused")
	tab.UntilText(row(id, ".qps"), "–") // old figures would look alive
	tab.UntilText(row(id, ".pools"), "baseline")
	tab.Screenshot("console-telemetry-away")
	tab.Accessible("telemetry away")

	s.do(func() { s.ctlErr = errAway })
	tab.UntilText("#banners", "Control plane unavailable since")
	s.do(func() { s.statsErr = nil })
	tab.Until(`!document.getElementById("banners").textContent.includes("Telemetry")`)
	tab.Until(`document.querySelector('` + row(id, ".qps") + `').textContent !== "–"`)
	tab.UntilText(row(id, ".state"), "Unknown")
	tab.Until(`document.querySelector('` + row(id, ".order-button") + `').disabled`)
	tab.UntilText("#decisions", "(as stored)")

	s.do(func() { s.ctlErr = nil })
	tab.Until(`document.getElementById("banners").children.length === 0`)
	tab.UntilText(row(id, ".state"), "Home")
	tab.Until(`!document.querySelector('` + row(id, ".order-button") + `').disabled`)
	tab.Until(`!document.getElementById("decisions").textContent.includes("(as stored)")`)
}

func TestOneSourceThatHangsDoesNotHoldBackTheOther(t *testing.T) {
	s := serve(t, func(c *console.Config) { c.Timeout = time.Second })
	s.do(func() { s.hang = make(chan struct{}) })
	tab := open(t, browsertest.Start(t), s, browsertest.Desktop())
	tab.UntilText(row(string(search.ID()), ".state"), "Home")
	tab.UntilText("#banners", "Telemetry unavailable")
	s.do(func() { close(s.hang); s.hang = nil })
	tab.Until(`document.getElementById("banners").children.length === 0`)
}

func TestSessionsEnd(t *testing.T) {
	s := serve(t, nil)
	b := browsertest.Start(t)
	one := open(t, b, s, browsertest.Desktop())
	// Another window of the same browser logs out: the stream of this one must end.
	one.Eval(`fetch("/console/api/session", {method: "DELETE", headers: {"X-Tracegate-Console": "1"}})`, nil)
	one.UntilText("#welcome-text", "Your session has ended")
}

func TestRefusedConfigurationIsShown(t *testing.T) {
	s := serve(t, nil)
	s.do(func() {
		s.status.Edges[0].InSync = false
		s.status.Edges[0].Nacks = []ctlapi.Nack{{Type: "rds", Resource: "edge", Reason: "Only unique names for routes are permitted: <duplicate>", Version: "18", Time: time.Now(), Count: 3}}
		s.status.Rejected = &ctlapi.Rejection{Version: "18", Edge: "edge-1", Nack: s.status.Edges[0].Nacks[0], Time: time.Now()}
		s.status.Sources["policy"] = ctlapi.Source{File: "/data/policy.yaml", Error: "line 4: unknown key cohort, did you mean cohorts"}
	})
	tab := open(t, browsertest.Start(t), s, browsertest.Desktop())
	tab.UntilText("#edges", "rds edge refused 3 times")
	tab.UntilText("#edges", "Only unique names for routes are permitted: <duplicate>")
	tab.UntilText("#edges", "did you mean cohorts")
	tab.UntilText("#edges", "The last good one is served")
	tab.UntilText("#summary", "0 of 1")
	tab.Screenshot("console-refused")
	tab.Accessible("refused configuration")
}

func TestGroupAndTrace(t *testing.T) {
	s := serve(t, nil)
	b := browsertest.Start(t)
	for _, size := range []browsertest.Size{browsertest.Desktop(), browsertest.Phone()} {
		tab := open(t, b, s, size)
		tab.Click(row(string(canary.ID()), ".id a"))
		tab.UntilText("#group-facts", canary.Color.String())
		tab.Until(`document.querySelectorAll("#group-charts svg").length === 3`)
		tab.UntilText("#group-decisions", "objective 1%")
		tab.UntilText("#traces", "Error 503")
		looks(tab, "group", size)
		tab.Click("#traces-errors")
		tab.Type("#traces-min", "20")
		tab.Press(kb.Enter)
		tab.Until(`performance.getEntriesByType("resource").some((r) => r.name.includes("errors=true&min_ms=20"))`)
		tab.Click("#traces a")
		tab.UntilText("#trace-note", "4 spans of 2 services")
		tab.UntilText("#spans", "process messages")
		tab.Click("#spans .span-name")
		tab.UntilText("#spans", "/v1/conversations/c1/messages")
		looks(tab, "trace", size)
		tab.Do(chromedp.NavigateBack())
		tab.UntilText("#group-id", string(canary.ID()))
	}
	s.do(func() {
		last := s.queries[len(s.queries)-1]
		if last.Group != canary.ID() || last.Limit < 1 {
			t.Errorf("asked for %+v", last)
		}
	})
}

// looks audits what is shown in both themes and keeps pictures of it.
func looks(tab *browsertest.Tab, view string, size browsertest.Size) {
	for theme, dark := range map[string]bool{"light": false, "dark": true} {
		tab.Dark(dark)
		tab.Screenshot("console-" + view + "-" + size.Name + "-" + theme)
		tab.Accessible(view + " " + size.Name + " " + theme)
	}
}

func TestLooks(t *testing.T) {
	s := serve(t, nil)
	b := browsertest.Start(t)
	for _, size := range []browsertest.Size{browsertest.Desktop(), browsertest.Phone()} {
		t.Run(size.Name, func(t *testing.T) {
			tab := b.Tab(t, size)
			tab.Allow("status of 401")
			tab.Open(s.url)
			tab.Until(`!document.getElementById("welcome").hidden`)
			looks(tab, "login", size)
			tab = open(t, b, s, size)
			tab.Until(`document.querySelector("#groups svg")`)
			tab.UntilText("#decisions", "objective")
			looks(tab, "board", size)
			if size.Phone {
				return
			}
			order := tab.FocusOrder(8)
			want := []string{"skip", "Tracegate console", "Policy", "logout", "filter", string(canary.ID())}
			if diff := cmp.Diff(want, order[:len(want)]); diff != "" {
				t.Errorf("Tab goes through (-want +got):\n%s", diff)
			}
		})
	}
}

func TestKernelPanel(t *testing.T) {
	s := serve(t, nil)
	b := browsertest.Start(t)
	for _, size := range []browsertest.Size{browsertest.Desktop(), browsertest.Phone()} {
		tab := open(t, b, s, size)
		tab.UntilText("#kernel-note", "4 of 5 probes · 0.85% of a core · 7 processes · last 10 s · read just now")
		tab.UntilText("#kernel-findings li:nth-child(3)", "preempted threads wait for a CPU for 23ms")
		tab.UntilText("#kernel-findings li:nth-child(3)", "Alert")
		tab.Until(`/^for [0-9]+ (s|min)$/.test(document.querySelector("#kernel-findings li:nth-child(3) time").textContent)`)
		tab.UntilText("#kernel-findings li:first-child", "Cause")
		tab.UntilText("#kernel-latencies tr:first-child", "over 200\u00a0ms")
		tab.UntilText("#kernel-latencies tr:first-child", "412 ms")
		tab.UntilText("#kernel-queues tr:first-child", "1,204")
		tab.UntilText("#kernel-counters", "Segments sent again")
		tab.UntilText("#kernel-probes tr:nth-child(2)", "samples one event in 8")
		tab.UntilText("#kernel-probes tr:nth-child(2)", "1 in 8")
		tab.UntilText("#kernel-probes tr:nth-child(2)", "1,204 exemplar limit, 3 recursion")
		tab.UntilText("#kernel-probes tr:nth-child(2)", "147 ns")
		tab.UntilText("#kernel-probes tr:nth-child(3)", "~0.03%") // estimated
		tab.UntilText("#kernel-probes tr:nth-child(5)", "the kernel has no uprobes")
		tab.UntilText("#kernel-unread", "404 Not Found")
		tab.UntilText("#decisions li:last-child .causes", "connects to kafka")
		for i, id := range []string{"kernel", "kernel-latencies", "kernel-counters-title"} {
			tab.Eval(`document.getElementById("`+id+`").scrollIntoView({block: "start"}), scrollBy(0, -64)`, nil)
			looks(tab, fmt.Sprintf("kernel-%d", i+1), size)
		}

		// By keyboard: the button keeps the focus while the table grows and goes on.
		tab.Eval(`document.querySelector("[aria-controls=kernel-latencies]").focus()`, nil)
		tab.Press(kb.Enter)
		tab.Until(`document.querySelectorAll("#kernel-latencies tr").length === 12`)
		tab.UntilText("[aria-controls=kernel-latencies]", "Show fewer")
		s.do(func() { s.report.Latencies[9].P95 = .977 })
		tab.UntilText("#kernel-latencies tr:first-child", "977 ms")
		tab.Until(`document.activeElement.getAttribute("aria-controls") === "kernel-latencies"`)
		tab.Press(kb.Enter)
		tab.Until(`document.querySelectorAll("#kernel-latencies tr").length === 8`)
		s.do(func() { s.report.Latencies[9].P95 = .412 })
		tab.UntilText("#kernel-latencies tr:first-child", "412 ms")
	}
}

func TestKernelPanelSaysWhatIsMissing(t *testing.T) {
	s := serve(t, nil)
	b := browsertest.Start(t)
	for _, size := range []browsertest.Size{browsertest.Desktop(), browsertest.Phone()} {
		tab := open(t, b, s, size)
		tab.UntilText("#kernel-latencies", "Connecting")
		s.do(func() { s.probesErr = errAway })
		tab.UntilText("#kernel-status", "No answer from the probes since")
		tab.UntilText("#kernel-status", "connection refused")
		tab.Until(`!document.getElementById("kernel-latencies").checkVisibility() && !document.getElementById("kernel-why").checkVisibility()`)
		tab.Until(`document.getElementById("banners").children.length === 0`)
		tab.Eval(`document.getElementById("kernel").scrollIntoView()`, nil)
		looks(tab, "kernel-silent", size)
		s.do(func() { s.probesErr = fmt.Errorf("ask the probes: %w", syscall.ECONNREFUSED) })
		tab.UntilText("#kernel-status", "Probes are not running: no answer since")

		s.do(func() {
			s.probesErr = nil
			for i := range s.report.Probes {
				s.report.Probes[i].State, s.report.Probes[i].Why = "off", "needs the capabilities CAP_BPF and CAP_PERFMON"
			}
			s.report.Alerts, s.report.Causes, s.report.Queues, s.report.Counters, s.report.Problems = nil, nil, nil, nil, nil
		})
		tab.UntilText("#kernel-status", "Probes are not running: needs the capabilities CAP_BPF and CAP_PERFMON.")
		tab.UntilText("#kernel-probes", "Off")
		tab.Until(`!document.getElementById("kernel-why").checkVisibility()`) // off is no all-clear
		looks(tab, "kernel-off", size)

		s.do(func() {
			s.report = kernelReport()
			for i := range 200 {
				s.report.Latencies = append(s.report.Latencies, console.KernelLatency{Kind: "connect", Target: fmt.Sprintf("[fd00:%x::%x]:65535", i, i), Owner: console.KernelOwner{Name: strings.Repeat("kubepods-burstable.slice", 5)}, Count: 3, Threshold: .2, P95: .1})
			}
			s.report.Problems = append(s.report.Problems, s.report.Problems...) // the same twice
			s.report.Alerts, s.report.Causes = nil, nil
		})
		tab.UntilText("#kernel-fine", "Nothing is out of the ordinary")
		tab.Click("[aria-controls=kernel-latencies]")
		tab.Until(`document.querySelectorAll("#kernel-latencies tr").length === 100`)
		tab.UntilText("#kernel .more", "112 more are left out")
		tab.Until(`document.getElementById("kernel-status").hidden && document.querySelectorAll("#kernel-unread li").length === 2`)
		looks(tab, "kernel-many", size)
		s.do(func() { s.report = kernelReport() })
		tab.Until(`document.querySelectorAll("#kernel-latencies tr").length === 12`)
	}
}

func TestNoKernelPanelWithoutProbes(t *testing.T) {
	s := serveDeps(t, nil, func(d *console.Deps) { d.Probes = nil })
	tab := open(t, browsertest.Start(t), s, browsertest.Desktop())
	tab.UntilText("#telemetry", "1,284,402")
	tab.Until(`document.getElementById("kernel").hidden`)
}

func TestEmptyBoard(t *testing.T) {
	s := serve(t, nil)
	s.do(func() {
		s.groups, s.decided = nil, nil
		s.status = ctlapi.Status{Mode: "observe"}
		s.empty = true
	})
	tab := browsertest.Start(t).Tab(t, browsertest.Desktop())
	tab.Allow("status of 401")
	tab.Open(s.url)
	tab.Type("#name", "ada")
	tab.Type("#password", password)
	tab.Press(kb.Enter)
	tab.UntilText("#groups-empty", "No traffic yet")
	tab.UntilText("#decisions-empty", "No decisions yet")
	tab.UntilText("#edges-empty", "No edge has connected yet")
	tab.Dark(true)
	tab.Screenshot("console-empty")
	tab.Accessible("empty")
}

// TestRecommendation: what the policy recommends has a button, the record says what came of
// a decision, and who may only look has no buttons at all.
func TestRecommendation(t *testing.T) {
	s := serve(t, withViewer(t))
	s.do(func() {
		s.status.Mode = "recommend"
		s.status.Trial = &ctlapi.Trial{Revision: 5, Edge: "edge-1", Measured: "0 errors in 70 requests"}
		s.status.RolledBack = &ctlapi.RolledBack{From: 4, To: 3, Time: time.Now(), Why: "errors 50% of 80 requests"}
		d := s.decision("03-advice", decide.Hold, time.Now().Add(-time.Minute), "canary", "canary")
		d.Advice, d.Programmed = decide.Isolate, time.Time{}
		s.decided = append(s.decided, d)
		first := &s.decided[0]
		first.Evidence, first.Undo = &decide.Evidence{Test: "errors", Chance: 3e-10}, "tracegate ctl release "+string(canary.ID())
		first.Thresholds = &decide.Thresholds{MaxErrorRatio: 0.01, MaxP95: 500 * time.Millisecond, P95Factor: 2, Significance: 1e-8, ShortWindow: 2 * time.Second, LongWindow: 30 * time.Second, MinRequests: 10}
		first.For, first.Room = 2*time.Hour, []decide.Load{{Service: "core", Pool: "isolated", Requests: 48}}
		first.Thresholds.Mode = decide.ModeAct
		first.Outcome, first.VersionBefore = &decide.Outcome{Better: true, Words: "P95 24ms, errors 0.0% of 90 requests in 2s"}, "15"
		s.groups[1].State, s.groups[1].Share, s.groups[1].Pool = ctlapi.StateReturning, 10, "isolated"
		s.groups[2].State, s.groups[2].Limit = ctlapi.StateLimited, 40
	})
	b := browsertest.Start(t)
	tab := open(t, b, s, browsertest.Desktop())
	tab.UntilText(row(string(canary.ID()), ".state"), "Coming home, 10%")
	tab.UntilText(row(string(pay.ID()), ".state"), "Limited, 40/s")
	tab.UntilText("#summary", "Asks first")
	tab.UntilText("#edges", "Policy revision 4 was taken back, 3 is in force")
	tab.UntilText("#edges", "Policy revision 5 is tried at edge-1; the other edges have the one before. Measured: 0 errors in 70 requests.")
	tab.Click("#decisions li:last-child summary")
	for _, want := range []string{"errors, once in 10^9 by chance", "16, before 15", "objectives kept: P95 24ms", "tracegate ctl release", "chance 1e-08", "acts", "2 h", "core/isolated 48 a second", " to "} {
		tab.UntilText("#decisions li:last-child .record", want)
	}
	tab.UntilText("#decisions .advice", "Isolate it")
	looks(tab, "recommendation", browsertest.Desktop())
	phone := open(t, b, s, browsertest.Phone())
	phone.UntilText("#decisions .advice", "Isolate it")
	looks(phone, "recommendation", browsertest.Phone())
	tab.Click("#decisions .advice button")
	tab.UntilText("#order-title", "Follow the recommendation for group "+string(canary.ID()))
	tab.Accessible("confirm")
	tab.Type("#order-reason", "I see it too")
	tab.Press(kb.Enter)
	tab.UntilText("#toast", "is done")
	s.do(func() {
		if diff := cmp.Diff([]string{"confirm 03-advice by ada: I see it too"}, s.orders); diff != "" {
			t.Errorf("orders (-want +got):\n%s", diff)
		}
	})

	tab.Click("#logout")
	tab.Until(`!document.getElementById("welcome").hidden`)
	tab.Type("#name", "bob")
	tab.Type("#password", viewerPassword)
	tab.Press(kb.Enter)
	tab.UntilText("#who", "bob (viewer)")
	tab.UntilText("#groups", string(canary.ID()))
	tab.UntilText("#decisions", "Held")
	tab.Until(`[...document.querySelectorAll(".order-button, .advice button")].every((b) => !b.checkVisibility())`)
	looks(tab, "viewer", browsertest.Desktop())
}

// linesBehindParts counts points of lines that a part hides, but for their ends.
const linesBehindParts = `(() => {
  const parts = [...document.querySelectorAll("#map .part")].map((el) => el.getBoundingClientRect());
  const frame = document.getElementById("map-parts").getBoundingClientRect();
  let behind = 0;
  for (const wire of document.querySelectorAll("#map-lines .wire")) {
    const length = wire.getTotalLength();
    for (let at = 2; at < length - 2; at += 2) {
      const p = wire.getPointAtLength(at), x = p.x + frame.x, y = p.y + frame.y;
      if (parts.some((r) => x > r.left + 1 && x < r.right - 1 && y > r.top + 1 && y < r.bottom - 1)) behind++;
    }
  }
  return behind;
})()`

// linesOutside counts points of lines that are out of the drawing.
const linesOutside = `(() => {
  const frame = document.getElementById("map-parts").getBoundingClientRect();
  let outside = 0;
  for (const wire of document.querySelectorAll("#map-lines .wire"))
    for (let at = 0; at < wire.getTotalLength(); at += 2) {
      const p = wire.getPointAtLength(at);
      if (p.x < -15 || p.y < -15 || p.x > frame.width + 15 || p.y > frame.height + 15) outside++;
    }
  return outside;
})()`

// TestLinesGoAroundParts: also those that go back over a layer, and between parts of the
// last one.
func TestLinesGoAroundParts(t *testing.T) {
	s := serve(t, nil)
	s.do(func() {
		back := func(from, to string) store.Call { return call(from, "", "call", "", to, "", 100, 0, time.Millisecond) }
		s.calls = append(exampleCalls(), back("push", "mailer"), back("mailer", "core"), back("push", "core"), back("mailer", "audit"), back("push", "audit"), back("audit", "vault"), back("vault", "core"), back("vault", "push"))
	})
	b := browsertest.Start(t)
	for _, size := range []browsertest.Size{browsertest.Desktop(), browsertest.Phone()} {
		tab := open(t, b, s, size)
		tab.UntilText("#map", "vault")
		tab.Eval(`document.getElementById("map").scrollIntoView({block: "start"}), scrollBy(0, -64)`, nil)
		looks(tab, "map-back", size)
		for what, script := range map[string]string{"behind parts": linesBehindParts, "out of the drawing": linesOutside} {
			var n int
			tab.Eval(script, &n)
			if n > 0 {
				t.Errorf("%s: %d points of lines are %s", size.Name, n, what)
			}
		}
	}
}

// TestServiceMapIsLive: parts and their pools are drawn, a part that is chosen shows its
// calls, the table says all that the drawing does, and all of it goes by keyboard.
func TestServiceMapIsLive(t *testing.T) {
	s := serve(t, nil)
	s.do(func() { s.groups[1].Pool, s.groups[1].State = "isolated", ctlapi.StateIsolated })
	b := browsertest.Start(t)
	for _, size := range []browsertest.Size{browsertest.Desktop(), browsertest.Phone()} {
		tab := open(t, b, s, size)
		part := func(id, inside string) string { return fmt.Sprintf(`#map .part[data-key="%s"] %s`, id, inside) }
		tab.UntilText(part("service:core", `[data-key="pool isolated"]`), "1 isolated")
		tab.UntilText(part("queue:kafka/messages", ""), "kafka")
		tab.Until(`document.querySelectorAll("#map-lines .link").length === 9`)
		tab.Until(`[...document.querySelectorAll("#map-lines .link[data-tone=bad]")].length === 2`)
		tab.Eval(`document.getElementById("map").scrollIntoView({block: "start"}), scrollBy(0, -64)`, nil)
		looks(tab, "map", size)
		var behind int
		tab.Eval(linesBehindParts, &behind)
		if behind > 0 {
			t.Errorf("%s: %d points of lines are behind parts", size.Name, behind)
		}

		tab.Eval(`document.querySelector('`+part("service:push", "")+`').focus()`, nil)
		tab.Press(kb.Enter)
		tab.UntilText("#map-calls-title", "Calls from and to push")
		tab.Until(`document.querySelectorAll("#map-rows tr").length === 2`)
		tab.UntilText("#map-rows", "4.0")
		tab.Until(`document.activeElement.dataset.key === "service:push"`)
		s.do(func() {
			s.calls = append(exampleCalls(), call("push", "", "call", "", "apns.example", "", 300, 30, time.Millisecond))
		})
		tab.Until(`document.querySelectorAll("#map-rows tr").length === 3`) // chosen parts are live too
		tab.UntilText("#map-rows tr:first-child", "10%")
		tab.UntilText(part("outside:apns.example", ""), "Outside")
		tab.Until(`document.activeElement.dataset.key === "service:push"`)
		looks(tab, "map-chosen", size)
		tab.Press(kb.Escape)
		tab.Until(`document.getElementById("map-calls").hidden`)

		tab.Click("#map-as-table")
		tab.Until(`document.getElementById("map-drawing").hidden`)
		tab.UntilText("#map-more", "Show all 13")
		tab.Click("#map-more")
		tab.Until(`document.querySelectorAll("#map-rows tr").length === 13`)
		tab.UntilText("#map-rows", "is processed by")
		looks(tab, "map-table", size)
		s.do(func() { s.calls, s.callsLeftOut = nil, 3 })
		tab.UntilText("#map-empty", "Nothing was called")
		tab.UntilText("#map-note", "3 rarer calls are left out")
		s.do(func() { s.calls, s.callsLeftOut = exampleCalls(), 0 })
	}
}

// TestPolicyDifference: what another policy would change is shown and nothing of it is done,
// to viewers too.
func TestPolicyDifference(t *testing.T) {
	s := serve(t, nil)
	b := browsertest.Start(t)
	for _, size := range []browsertest.Size{browsertest.Desktop(), browsertest.Phone()} {
		tab := open(t, b, s, size)
		tab.Click(`a[href="#/policy"]`)
		tab.UntilText("#policy-note", "revision 4 in force, by file")
		tab.UntilText("#revisions", "errors 50% of 80 requests")
		tab.Click(`#revisions [aria-label="Compare revision 5 with the policy in force"]`)
		tab.UntilText("#policy-difference-title", "What revision 5 would change")
		tab.UntilText("#policy-result", "2 resources at the edge would change")
		tab.UntilText("#policy-changes", "Cluster core/blue added")
		tab.UntilText(`#policy-lines [data-sign="added"]:last-child`, "p95: 100ms")
		looks(tab, "policy", size)

		tab.Eval(`document.getElementById("policy-document").value = "mode: act\nobjectives:\n  p59: 1s\n"`, nil)
		tab.Click(`#policy-form button[type="submit"]`)
		tab.UntilText("#policy-problems", "line 3: objectives.p59: unknown key, did you mean p95")
		tab.Until(`document.getElementById("policy-changes").children.length === 0`)
		tab.Accessible("policy problems " + size.Name)
		tab.Eval(`document.getElementById("policy-document").value = `+"`"+policyInForce+"`", nil)
		tab.Click(`#policy-form button[type="submit"]`)
		tab.UntilText("#policy-result", "It is the policy in force")

		tab.Allow("status of 503")
		s.do(func() { s.ctlErr = errAway })
		tab.Click(`#policy-form button[type="submit"]`)
		tab.UntilText("#policy-error", "does not answer")
		s.do(func() { s.ctlErr = nil })
	}
	s.do(func() {
		if len(s.orders) > 0 {
			t.Errorf("something was done: %v", s.orders)
		}
	})
}

// TestSetByHand: what operators have set is listed with who, why it ends and a way back; a
// group's page can keep it at home and limit it.
func TestSetByHand(t *testing.T) {
	s := serve(t, nil)
	tab := open(t, browsertest.Start(t), s, browsertest.Desktop())
	id := string(canary.ID())
	tab.UntilText("#overrides-empty", "Policy decides for every group")
	tab.Click(row(id, ".id a"))
	tab.UntilText("#group-actions", "Limit")
	tab.Click("#group-actions button:nth-child(3)")
	tab.UntilText("#order-title", "Limit group "+id)
	tab.Type("#order-reason", "it floods the others")
	tab.Press(kb.Enter)
	tab.UntilText("#order-error", "a whole number above 0")
	tab.Type("#order-requests", "40")
	tab.Screenshot("console-limit")
	tab.Accessible("limit")
	tab.Press(kb.Enter)
	tab.UntilText("#toast", "will be limited")
	tab.UntilText("#group-badges", "Kept home by hand, 40/s")
	tab.UntilText("#group-actions button:nth-child(1)", "Release") // a limit lasts until then
	tab.Click("#group-actions button:nth-child(2)")
	tab.UntilText("#order-title", "Keep group "+id+" at home?")
	tab.Type("#order-reason", "a test of mine")
	tab.Press(kb.Enter)
	tab.UntilText("#toast", "will be kept at home")
	s.do(func() {
		s.groups[1].Until = time.Now().Add(30 * time.Minute)
		s.groups[0].State, s.groups[0].Pool, s.groups[0].By, s.groups[0].Since = ctlapi.StateForced, "isolated", "operator:bob", time.Now().Add(-time.Minute)
	})
	tab.Do(chromedp.NavigateBack())
	tab.UntilText(`#overrides [data-key="`+id+`"]`, "by ada")
	tab.UntilText(`#overrides [data-key="`+id+`"]`, "30 min to go")
	tab.UntilText(`#overrides [data-key="`+string(search.ID())+`"]`, "by bob")
	tab.UntilText(`#overrides [data-key="`+string(search.ID())+`"]`, "until it is released")
	tab.UntilText(`#overrides [data-key="`+string(search.ID())+`"] button`, "Release")
	tab.Eval(`document.getElementById("overrides-title").scrollIntoView()`, nil)
	looks(tab, "overrides", browsertest.Desktop())
	want := []string{"limit to 40 " + id + " by ada for 0: it floods the others", "release " + id + " by ada for 0: a test of mine"}
	s.do(func() {
		if diff := cmp.Diff(want, s.orders); diff != "" {
			t.Errorf("orders (-want +got):\n%s", diff)
		}
	})
}

// TestAnomalies: what is out of the ordinary is shown with group, measure, what was seen
// and expected, since when and in words; with a way to the group and its traces by keyboard.
func TestAnomalies(t *testing.T) {
	b := browsertest.Start(t)
	id := string(canary.ID())
	for _, size := range []browsertest.Size{browsertest.Desktop(), browsertest.Phone()} {
		s := serve(t, nil)
		s.do(func() { s.skew = -10 * time.Minute })
		tab := open(t, b, s, size)
		tab.UntilText("#anomalies-empty", "Nothing is out of the ordinary.")
		tab.UntilText("#anomalies-note", "last hour · 3 groups · looked at")
		s.do(func() { s.slowSince, s.skew = time.Now().Add(-9*time.Minute), 0 }) // ten minutes later
		tab.UntilText("#anomalies li:first-child", "P95 412 ms")
		for _, want := range []string{"Now", id, "payment", "expected 38 ms", "since ", "P95 in milliseconds 412, where 38 is usual between"} {
			tab.UntilText("#anomalies li:first-child", want)
		}
		tab.Eval(`document.getElementById("anomalies-panel").scrollIntoView({block: "start"}), scrollBy(0, -64)`, nil)
		looks(tab, "anomalies", size)
		tab.Eval(`document.querySelector("#anomalies a").focus()`, nil)
		tab.Press(kb.Enter)
		tab.UntilText("#group-id", id)
		tab.UntilText("#group-anomalies", "expected 38 ms")
		tab.UntilText("#traces", "Error 503")
		looks(tab, "group-anomalies", size)
		tab.Do(chromedp.NavigateBack())
		s.do(func() { s.statsErr, s.skew = errAway, time.Hour })
		tab.UntilText("#anomalies-empty", "ClickHouse does not answer.")
		tab.Until(`document.querySelectorAll("#anomalies li").length === 0`)
	}
}

// TestAnomaliesWithoutAPast: that nothing was found says nothing where nothing is known.
func TestAnomaliesWithoutAPast(t *testing.T) {
	s := serve(t, nil)
	s.do(func() { s.known, s.slowSince = 30*time.Hour, time.Now().Add(-10*time.Minute) })
	tab := open(t, browsertest.Start(t), s, browsertest.Desktop())
	tab.UntilText("#anomalies-empty", "Reading the last 7 days.")
	tab.UntilText("#anomalies-empty", "Nothing can be said yet: no group has three days with this hour")
	s.do(func() { s.empty, s.skew = true, time.Hour })
	tab.UntilText("#anomalies-empty", "No group had a request")
}

// TestDecisionsAreFound: by group and time, also those that are too old to be live; what was
// found stays while others are taken, until one goes back.
func TestDecisionsAreFound(t *testing.T) {
	s := serve(t, nil)
	s.do(func() {
		for i := range 201 {
			d := s.decision(fmt.Sprintf("00-%03d", i), decide.Isolate, time.Now().Add(-48*time.Hour).Add(time.Duration(i)*time.Second), "canary", "isolated")
			d.Reason = "two days ago"
			s.old = append(s.old, d)
		}
	})
	b := browsertest.Start(t)
	for _, size := range []browsertest.Size{browsertest.Desktop(), browsertest.Phone()} {
		tab := open(t, b, s, size)
		tab.Allow("status of 4") // 400: provoked
		tab.UntilText("#decisions-note", "last ")
		tab.Eval(`document.getElementById("decisions-find").focus()`, nil)
		tab.Press(kb.Enter)
		tab.Type("#decisions-group", "xyz")
		tab.Press(kb.Enter)
		tab.UntilText("#decisions-error", "Group must be six lower-case hex digits.")
		tab.Until(`document.getElementById("decisions-group").matches("[aria-invalid=true]")`)
		tab.Type("#decisions-group", string(canary.ID()))
		tab.Press(kb.Enter)
		tab.UntilText("#decisions-note", "the newest 200 found")
		tab.UntilText("#decisions", "two days ago")
		tab.Until(`document.getElementById("decisions-error").textContent === ""`)
		tab.Eval(`document.getElementById("decisions-title").scrollIntoView({block: "start"}), scrollBy(0, -64)`, nil)
		looks(tab, "found", size)
		s.do(func() {
			s.decided = append(s.decided, s.decision("50-"+size.Name, decide.Hold, time.Now(), "canary", "canary"))
		})
		tab.Eval(`document.getElementById("decisions-from").value = "2001-02-03T04:05", document.getElementById("decisions-to").value = "2001-02-04T04:05"`, nil)
		tab.Click("#decisions-form button[type=submit]")
		tab.UntilText("#decisions-empty", "No decision matches.")
		tab.Click("#decisions-live")
		tab.UntilText("#decisions", "Held")
		tab.UntilText("#decisions-note", "last ")
		tab.Until(`document.activeElement.id === "decisions-group" && document.getElementById("decisions-from").value === ""`)
		tab.Allow("status of 503")
		s.do(func() { s.statsErr = errAway })
		tab.Type("#decisions-group", string(canary.ID()))
		tab.Press(kb.Enter)
		tab.UntilText("#decisions-error", "does not answer")
		s.do(func() { s.statsErr = nil })
	}
}

// TestAnomalyThatLasts keeps its line, and the focus in it, although the hour that is looked
// at goes on.
func TestAnomalyThatLasts(t *testing.T) {
	s := serve(t, nil)
	s.do(func() { s.slowSince = time.Now().Add(-2 * time.Hour) })
	tab := open(t, browsertest.Start(t), s, browsertest.Desktop())
	tab.UntilText("#anomalies time", "for an hour or more")
	tab.Eval(`document.querySelector("#anomalies a").focus()`, nil)
	var since string
	tab.Eval(`document.querySelector("#anomalies time").dateTime`, &since)
	s.do(func() { s.skew = 2 * time.Minute })
	tab.Until(`document.querySelector("#anomalies time").dateTime > ` + fmt.Sprintf("%q", since))
	tab.Until(`document.activeElement === document.querySelector("#anomalies a")`)
}
