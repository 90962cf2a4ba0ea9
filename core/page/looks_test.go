package page_test

import (
	"slices"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"github.com/tracegate/tracegate/mesh/webpage/browsertest"
)

// waitFor polls a condition of the server side.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(browsertest.Patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", browsertest.Patience, what)
		}
		<-tick.C
	}
}

// TestLooks walks through the page at both sizes and in both themes, audits each
// view and keeps pictures where TRACEGATE_SCREENSHOTS says.
func TestLooks(t *testing.T) {
	f := newFakeCore(t)
	for _, name := range []string{"bob", "mia-from-payments", "zoe"} {
		f.set(func(f *fakeCore) { f.users[name] = password })
	}
	b := browsertest.Start(t)
	for _, size := range []browsertest.Size{browsertest.Desktop(), browsertest.Phone()} {
		t.Run(size.Name, func(t *testing.T) {
			name := "ada-" + size.Name
			tab := b.Tab(t, size)
			tab.Allow("status of 401")
			both := func(view string) {
				t.Helper()
				for theme, dark := range map[string]bool{"light": false, "dark": true} {
					tab.Dark(dark)
					tab.Screenshot("chat-" + view + "-" + size.Name + "-" + theme)
					tab.Accessible(view + " " + size.Name + " " + theme)
				}
			}
			tab.Open(f.URL + "/")
			tab.Until(`!document.getElementById("welcome").hidden`)
			both("login")
			tab.Click("#switch-mode")
			tab.Type("#name", name)
			tab.Type("#password", password)
			tab.Press(kb.Enter)
			tab.UntilText("#no-conversations", "No conversations")
			both("empty")
			for _, dialog := range []string{"people", "account"} {
				tab.Click("#open-" + dialog)
				tab.Until(`document.getElementById("` + dialog + `").open`)
				both(dialog)
				tab.Press(kb.Escape)
				tab.Until(`!document.getElementById("` + dialog + `").open`)
			}
			for _, with := range []string{"zoe", "mia-from-payments", "bob"} {
				tab.Type("#with", with)
				tab.Press(kb.Enter)
				tab.UntilText("#peer", with)
				if size.Phone {
					tab.Click("#back")
				}
			}
			id := f.last()
			f.post("bob", id, "Morning. The canary took 5% at nine, nothing unusual so far.")
			f.post(name, id, "Good. P95?")
			f.post("bob", id, "41 ms against 39 ms at baseline.\nErrors are at zero.")
			f.post(name, id, "Then let it run another hour, and send me the trace if one of the slow ones shows up again: the last time it was a single tenant that had its own idea of pagination.")
			f.post("zoe", f.conversationOf(name, "zoe"), "Lunch?")
			tab.Click("#conversations li:has(+ li) button, #conversations button")
			if size.Phone {
				tab.Click("#back")
				both("list")
			}
			tab.Eval(`[...document.querySelectorAll("#conversations button")].find((b) => b.textContent.includes("bob")).click()`, nil)
			untilCount(tab, 4)
			both("talk")
			if !size.Phone {
				order := tab.FocusOrder(40)
				want := []string{"Skip to the message field", "open-people", "open-account", "logout", "with", "Start"}
				if len(order) < 12 || !slices.Equal(order[:len(want)], want) {
					t.Errorf("Tab goes through %v", order)
				}
			}
		})
	}
}

// last is the conversation made last.
func (f *fakeCore) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conversations[len(f.conversations)-1].id
}

func (f *fakeCore) conversationOf(a, b string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conversations {
		if c.has(a) && c.has(b) {
			return c.id
		}
	}
	return ""
}
