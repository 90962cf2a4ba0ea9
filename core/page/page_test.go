package page_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/webpage/browsertest"
)

const password = "correct horse"

// enter registers name in a new tab.
func enter(t *testing.T, b *browsertest.Browser, address, name string, size browsertest.Size) *browsertest.Tab {
	t.Helper()
	tab := b.Tab(t, size)
	tab.Dark(false)
	tab.Allow("status of 401") // the first look at /v1/me
	tab.Open(address + "/")
	tab.Click("#switch-mode")
	tab.Type("#name", name)
	tab.Type("#password", password)
	tab.Click("#login-submit")
	tab.UntilText("#me", name)
	tab.UntilText("#status", "Live")
	return tab
}

func send(tab *browsertest.Tab, text string) {
	tab.Type("#text", text)
	tab.Press(kb.Enter)
}

// texts are the messages on screen, in order.
func texts(tab *browsertest.Tab) []string {
	var got []string
	tab.Eval(`[...document.querySelectorAll(".message .bubble")].map((e) => e.textContent)`, &got)
	return got
}

func untilCount(tab *browsertest.Tab, n int) {
	tab.Until(fmt.Sprintf(`document.querySelectorAll(".message[data-state=delivered]").length >= %d`, n))
}

// pair is two users in a conversation that both have open.
func pair(t *testing.T) (f *fakeCore, ada, bob *browsertest.Tab) {
	t.Helper()
	f = newFakeCore(t)
	b := browsertest.Start(t)
	bob = enter(t, b, f.URL, "bob", browsertest.Desktop())
	ada = enter(t, b, f.URL, "ada", browsertest.Desktop())
	ada.Type("#with", "bob")
	ada.Press(kb.Enter)
	ada.UntilText("#peer", "bob")
	send(ada, "hello bob")
	bob.UntilText("#conversations", "ada")
	bob.Click("#conversations button")
	untilCount(bob, 1)
	untilCount(ada, 1)
	return f, ada, bob
}

func TestTwoUsersTalk(t *testing.T) {
	f, ada, bob := pair(t)
	send(bob, "hello ada")
	untilCount(ada, 2)
	send(ada, "how are you? <b>& well</b>")
	untilCount(bob, 3)
	untilCount(ada, 3)
	want := []string{"hello bob", "hello ada", "how are you? <b>& well</b>"}
	for name, tab := range map[string]*browsertest.Tab{"ada": ada, "bob": bob} {
		if diff := cmp.Diff(want, texts(tab)); diff != "" {
			t.Errorf("%s sees (-want +got):\n%s", name, diff)
		}
	}
	if got := ada.Text(".own .sent"); got != "Delivered #1" {
		t.Errorf("the state of the first message is %q", got)
	}
	ada.UntilText("#served-pool", "baseline")
	ada.UntilText("#served-node", "core-baseline-1")
	ada.UntilText("#served-group", string(group.Group{Env: "prod", Tenant: "public"}.ID()))
	ada.Click(".own .trace")
	ada.UntilText("#toast", "race id")
	if n := f.count(func(f *fakeCore) int { return f.sends }); n != 3 {
		t.Errorf("3 messages took %d sends", n)
	}
}

func TestReconnectMissesNothing(t *testing.T) {
	tests := []struct {
		name string
		code int
	}{
		{"without a word", 0},
		{"drained", protocol.CloseShutdown},
		{"too slow", protocol.CloseSlow},
		{"moved away", protocol.CloseMoved},
	}
	f, ada, bob := pair(t)
	for _, tab := range []*browsertest.Tab{ada, bob} {
		tab.Allow("WebSocket connection")
		tab.Allow("status of 503")
	}
	want := []string{"hello bob"}
	for _, tt := range tests {
		f.set(func(f *fakeCore) { f.down = true })
		f.cut(tt.code)
		bob.UntilText("#status", "retry")
		var missed []string
		for i := range 5 {
			missed = append(missed, fmt.Sprintf("%s %d", tt.name, i))
		}
		f.post("ada", "c1", missed...)
		send(bob, "sent while "+tt.name)
		f.set(func(f *fakeCore) { f.down = false })
		want = append(append(want, missed...), "sent while "+tt.name)
		bob.UntilText("#status", "Live")
		untilCount(bob, len(want))
		untilCount(ada, len(want))
		if diff := cmp.Diff(want, texts(bob)); diff != "" {
			t.Fatalf("%s: bob sees (-want +got):\n%s", tt.name, diff)
		}
		if diff := cmp.Diff(want, texts(ada)); diff != "" {
			t.Fatalf("%s: ada sees (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestMoveIsMakeBeforeBreak(t *testing.T) {
	f, ada, bob := pair(t)
	prod := group.Group{Env: "prod", Tenant: "public"}.ID()
	before := f.count(func(f *fakeCore) int { return f.opened })
	// Offline would show for an instant if the old socket were closed first.
	bob.Eval(`(() => { window.states = []; new MutationObserver(() => window.states.push(document.getElementById("status").dataset.state))
		.observe(document.getElementById("status"), {attributes: true}); })()`, nil)
	f.move(prod, "isolated")
	for i := range 20 {
		f.post("ada", "c1", fmt.Sprintf("moving %d", i))
	}
	bob.UntilText("#served-pool", "isolated")
	ada.UntilText("#served-pool", "isolated")
	untilCount(bob, 21)
	if got := texts(bob); len(got) != 21 || got[20] != "moving 19" {
		t.Errorf("bob sees %d messages: %v", len(got), got)
	}
	bob.UntilText("#status", "Live")
	var states []string
	bob.Eval("window.states", &states)
	if strings.Contains(strings.Join(states, " "), "waiting") || strings.Contains(strings.Join(states, " "), "connecting") {
		t.Errorf("the move went through %v", states)
	}
	waitFor(t, "the old sockets are closed", func() bool { return f.count(func(f *fakeCore) int { return len(f.sockets) }) == 2 })
	if n := f.count(func(f *fakeCore) int { return f.opened }) - before; n != 2 {
		t.Errorf("two moves opened %d sockets", n)
	}
}

// A connection is asked to move once, which may be while it still catches up.
func TestMoveDuringResume(t *testing.T) {
	f, ada, bob := pair(t)
	ada.Allow("WebSocket connection")
	bob.Allow("WebSocket connection")
	opened := f.count(func(f *fakeCore) int { return f.opened })
	prod := group.Group{Env: "prod", Tenant: "public"}.ID()
	f.set(func(f *fakeCore) {
		f.resuming = func(s *socket) {
			if s.user == "bob" && f.moved[string(prod)] == "" {
				f.moved[string(prod)] = "isolated"
				s.ask("group moved to isolated")
			}
		}
	})
	f.cut(protocol.CloseShutdown)
	bob.UntilText("#served-pool", "isolated")
	send(bob, "from elsewhere")
	untilCount(ada, 2)
	waitFor(t, "ada has come back, and bob twice", func() bool {
		return f.count(func(f *fakeCore) int { return f.opened - opened }) == 3 && f.count(func(f *fakeCore) int { return len(f.sockets) }) == 2
	})
}

func TestSendIsRepeatedUnderOneClientID(t *testing.T) {
	f, ada, bob := pair(t)
	ada.Allow("WebSocket connection")
	f.set(func(f *fakeCore) { f.refuse, f.ignore, f.swallow = 2, 1, 1 })
	send(ada, "first")
	send(ada, "second")
	untilCount(bob, 3)
	untilCount(ada, 3)
	if diff := cmp.Diff([]string{"hello bob", "first", "second"}, texts(bob)); diff != "" {
		t.Errorf("bob sees (-want +got):\n%s", diff)
	}
	// 1 from pair, 2 refused, 1 lost, 1 stored without an answer (which the resume then
	// brings, so that it need not be repeated), and "second".
	if n := f.count(func(f *fakeCore) int { return f.sends }); n != 6 {
		t.Errorf("%d sends, want 6", n)
	}
}

func TestRefusedMessageCanBeRetriedOrDiscarded(t *testing.T) {
	_, ada, _ := pair(t)
	send(ada, "refuse me")
	ada.UntilText(".message[data-state=failed] .sent", "text is too long")
	ada.Screenshot("chat-failed")
	ada.Click(".message[data-state=failed] .retry")
	ada.UntilText(".message[data-state=failed] .sent", "text is too long")
	ada.Click(".message[data-state=failed] .discard")
	ada.Until(`!document.querySelector(".message[data-state=failed]")`)
}

func TestLostPushIsReadFromTheHistory(t *testing.T) {
	f, ada, bob := pair(t)
	f.set(func(f *fakeCore) { f.lose = 1 })
	f.post("ada", "c1", "lost by the fan-out", "and the one after")
	untilCount(bob, 3)
	f.set(func(f *fakeCore) { f.lose = 1 })
	send(ada, "my own is lost")
	untilCount(ada, 4)
	want := []string{"hello bob", "lost by the fan-out", "and the one after", "my own is lost"}
	if diff := cmp.Diff(want, texts(ada)); diff != "" {
		t.Errorf("ada sees (-want +got):\n%s", diff)
	}
}

func TestReloadKeepsPositionsAndUnsent(t *testing.T) {
	f, ada, bob := pair(t)
	ada.Allow("WebSocket connection")
	ada.Allow("status of 503")
	bob.Allow("WebSocket connection")
	bob.Allow("status of 503")
	f.set(func(f *fakeCore) { f.down = true })
	f.cut(0)
	ada.UntilText("#status", "retry")
	send(ada, "written offline")
	ada.UntilText(".message[data-state=waiting] .bubble", "written offline")
	f.post("bob", "c1", "while you were away")
	f.set(func(f *fakeCore) { f.down = false })
	ada.Open(f.URL + "/")
	ada.UntilText("#status", "Live")
	ada.UntilText("#conversations .unread", "1")
	ada.Click("#conversations button")
	untilCount(ada, 3)
	if diff := cmp.Diff([]string{"hello bob", "while you were away", "written offline"}, texts(ada)); diff != "" {
		t.Errorf("ada sees (-want +got):\n%s", diff)
	}
}

func TestNewEpochReloadsTheHistory(t *testing.T) {
	f, _, bob := pair(t)
	bob.Allow("WebSocket connection")
	f.set(func(f *fakeCore) {
		f.epoch = "epoch-2"
		f.conversations[0].messages = nil
	})
	f.post("ada", "c1", "a new beginning")
	f.cut(0)
	bob.Until(`document.querySelector(".message .bubble")?.textContent === "a new beginning"`)
	if got := texts(bob); len(got) != 1 {
		t.Errorf("bob sees %v", got)
	}
}

// TestAccessTokenIsRenewed: a token that has ended costs a request and nobody sees it, in
// two tabs of one address as well: each refresh token is used once.
func TestAccessTokenIsRenewed(t *testing.T) {
	f, ada, bob := pair(t)
	for _, tab := range []*browsertest.Tab{ada, bob} {
		tab.Allow("status of 401")
		tab.Allow("WebSocket connection")
	}
	f.set(func(f *fakeCore) { clear(f.tokens); f.refreshes = 0 })
	f.cut(0) // the handshake is refused now
	for _, tab := range []*browsertest.Tab{ada, bob} {
		tab.UntilText("#status", "Live")
	}
	send(ada, "after")
	bob.UntilText("#messages", "after")
	if n := f.count(func(f *fakeCore) int { return f.refreshes }); n != 2 {
		t.Errorf("%d refreshes of two logins", n)
	}
	f.set(func(f *fakeCore) { clear(f.tokens) })
	f.cut(protocol.CloseExpired) // of a login that has been prolonged since
	send(bob, "and again")
	ada.UntilText("#messages", "and again")
}

func TestTerminalCodes(t *testing.T) {
	f, ada, bob := pair(t)
	for _, tab := range []*browsertest.Tab{ada, bob} {
		tab.Allow("status of 401")
		tab.Allow("WebSocket connection")
	}
	f.set(func(f *fakeCore) { clear(f.tokens); clear(f.refresh) })
	f.cut(protocol.CloseExpired)
	ada.UntilText("#welcome-text", "session has ended")
	// Without the code the page finds out by asking.
	bob.UntilText("#welcome-text", "session has ended")
	opened := f.count(func(f *fakeCore) int { return f.opened })
	ada.Type("#name", "ada")
	ada.Type("#password", password)
	ada.Click("#login-submit")
	ada.UntilText("#status", "Live")
	ada.UntilText("#conversations", "bob")
	if n := f.count(func(f *fakeCore) int { return f.opened }); n != opened+1 {
		t.Errorf("%d sockets were opened after the end", n-opened)
	}
	f.cut(protocol.CloseProtocol)
	ada.UntilText("#status", "Disconnected")
}

func TestAnotherTabLogsInAsSomebodyElse(t *testing.T) {
	_, ada, bob := pair(t)
	other := ada.Sibling(browsertest.Desktop())
	other.Allow("status of 401")
	other.Open(ada.Location())
	other.UntilText("#me", "ada") // the same cookie
	other.Click("#logout")
	other.Type("#name", "bob")
	other.Type("#password", password)
	other.Click("#login-submit")
	other.UntilText("#me", "bob")
	ada.UntilText("#welcome-text", "somebody else")
	bob.UntilText("#status", "Live") // another person's browser
	var twin string
	ada.Eval(`document.getElementById("twin-link").href`, &twin)
	if want := strings.Replace(ada.Location(), "127.0.0.1", "localhost", 1); twin != want {
		t.Errorf("the other address is %q, want %q", twin, want)
	}
}

func TestCohortSwitchChangesTheRoute(t *testing.T) {
	_, ada, _ := pair(t)
	ada.UntilText("#served-pool", "baseline")
	ada.Click("#cohort")
	ada.UntilText("#served-pool", "canary")
	ada.UntilText("#served-group", string(group.Group{Color: group.ColorOf("canary"), Env: "canary", Tenant: "public"}.ID()))
	ada.Until(`document.getElementById("cohort").ariaChecked === "true"`)
	ada.Click("#served")
	ada.UntilText("#r-color", group.ColorOf("canary").String())
	ada.Screenshot("chat-details")
	ada.Accessible("details")
	ada.Press(kb.Escape)
	ada.Click("#cohort")
	ada.UntilText("#served-pool", "baseline")
}

func TestLoginErrors(t *testing.T) {
	f := newFakeCore(t)
	tab := browsertest.Start(t).Tab(t, browsertest.Desktop())
	tab.Allow("status of 40") // 400, 401, 409: provoked
	tab.Open(f.URL + "/")
	tab.Click("#login-submit")
	tab.UntilText("#login-error", "Enter a user name")
	tab.Type("#name", "ada")
	tab.Type("#password", "wrong")
	tab.Click("#login-submit")
	tab.UntilText("#login-error", "Name or password is wrong")
	tab.Click("#switch-mode")
	tab.Click("#login-submit")
	tab.UntilText("#login-error", "at least 8 characters")
	tab.Until(`document.activeElement.id === "password"`)
	f.set(func(f *fakeCore) { f.users["ada"] = password })
	tab.Type("#password", password)
	tab.Click("#login-submit")
	tab.UntilText("#login-error", "taken")
}

func TestLongHistoryIsReadBackwards(t *testing.T) {
	f, ada, bob := pair(t)
	var many []string
	for i := range 180 {
		many = append(many, fmt.Sprintf("message %d", i+2))
	}
	f.post("ada", "c1", many...)
	untilCount(bob, 181)
	late := ada // a new tab of ada starts at the end
	late.Eval("sessionStorage.clear()", nil)
	late.Eval(`window.addEventListener("pagehide", () => sessionStorage.clear())`, nil)
	late.Open(f.URL + "/")
	late.UntilText("#conversations", "message 181")
	late.Click("#conversations button")
	untilCount(late, 50)
	if got := texts(late); got[len(got)-1] != "message 181" || len(got) != 50 {
		t.Errorf("the tab begins with %d messages up to %q", len(got), got[len(got)-1])
	}
	for range 3 {
		late.Eval(`document.getElementById("log").scrollTop = 0`, nil)
		n := len(texts(late))
		late.Click("#load-older")
		late.Until(fmt.Sprintf(`document.querySelectorAll(".message").length > %d`, n))
	}
	late.Until(`document.getElementById("older").hidden`)
	if got := texts(late); len(got) != 181 || got[0] != "hello bob" {
		t.Errorf("%d messages from %q", len(got), got[0])
	}
}
