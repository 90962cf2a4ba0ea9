package page_test

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"github.com/tracegate/tracegate/edge/client"
	"github.com/tracegate/tracegate/mesh/webpage/browsertest"
)

// people are the names in one of the lists of friends.
func untilPeople(tab *browsertest.Tab, list, names string) {
	tab.Until(fmt.Sprintf(`[...document.querySelectorAll("#%s-list .name")].map((e) => e.textContent).join(" ") === %q`, list, names))
}

func press(tab *browsertest.Tab, label string) {
	tab.Click(fmt.Sprintf(`[aria-label=%q]`, label))
}

// TestFriendsOnThePage: two people ask, accept, withdraw, decline, remove and block, and
// each sees what the other one does as it happens.
func TestFriendsOnThePage(t *testing.T) {
	b := browsertest.Start(t) // skips before anything is started
	c := newCircle(t, "baseline")
	bob := enter(t, b, c.URL, "bob", browsertest.Phone())
	ada := enter(t, b, c.URL, "ada", browsertest.Desktop())
	ada.Allow("status of 404")
	ada.Click("#open-people")
	ask := func(name string) {
		ada.Type("#friend-name", name)
		ada.Press(kb.Enter)
	}
	ask("nobody")
	ada.UntilText("#friend-error", "There is no user nobody.")
	ada.Eval(`document.getElementById("friend-name").value = ""`, nil)
	ask("bob")
	untilPeople(ada, "outgoing", "bob")
	bob.UntilText("#requests", "1")
	bob.Click("#open-people")
	untilPeople(bob, "incoming", "ada")
	bob.Accessible("friends phone")
	bob.Screenshot("chat-friends-phone")
	press(bob, "Accept ada")
	untilPeople(bob, "friend", "ada")
	untilPeople(ada, "friend", "bob")
	bob.Until(`document.getElementById("requests").hidden`)

	press(ada, "Remove bob")
	untilPeople(bob, "friend", "")
	ask("bob")
	untilPeople(bob, "incoming", "ada")
	press(bob, "Decline ada")
	untilPeople(ada, "outgoing", "")
	ask("bob")
	untilPeople(bob, "incoming", "ada")
	press(ada, "Withdraw bob")
	untilPeople(bob, "incoming", "")

	ask("bob")
	untilPeople(bob, "incoming", "ada")
	press(bob, "Accept ada")
	untilPeople(ada, "friend", "bob")
	ada.Dark(true)
	ada.Accessible("friends dark")
	ada.Screenshot("chat-friends-dark")
	ada.Dark(false)
	press(ada, "Message bob")
	ada.UntilText("#peer", "bob")
	ada.Click("#open-people")
	press(ada, "Block bob")
	untilPeople(ada, "blocked", "bob")
	untilPeople(bob, "friend", "")
	ada.Screenshot("chat-friends-blocked")
	bob.Click("#people .bar button")
	bob.Allow("status of 403")
	bob.Type("#with", "ada")
	bob.Press(kb.Enter)
	bob.UntilText("#peer", "ada")
	send(bob, "are you there?")
	bob.UntilText(".message", "Not sent: the other one has blocked you")
	press(ada, "Unblock bob")
	untilPeople(ada, "blocked", "")
	bob.Click(".retry")
	untilCount(bob, 1)
	ada.Press(kb.Escape)
	ada.Until(`!document.getElementById("people").open`)
	untilCount(ada, 1)
}

// TestAccountOnThePage: profile, password, and devices that are logged out, one and all.
func TestAccountOnThePage(t *testing.T) {
	b := browsertest.Start(t) // skips before anything is started
	c := newCircle(t, "baseline")
	ada := enter(t, b, c.URL, "ada", browsertest.Desktop())
	for _, expected := range []string{"status of 400", "status of 401", "status of 403", "WebSocket connection"} {
		ada.Allow(expected)
	}
	cfg := client.DefaultConfig()
	cfg.Address, cfg.Device = c.URL, "Phone"
	sdk, err := client.New(cfg)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(err)
	defer sdk.Close()
	login := func(password string) *client.User {
		t.Helper()
		u, _, err := sdk.Login(t.Context(), "ada", password)
		must(err)
		return u
	}
	phone := login(password)

	ada.Click("#open-account")
	ada.UntilText("#devices", "Phone")
	ada.Until(`document.querySelectorAll("#devices li").length === 2`)
	ada.Accessible("account")
	ada.Screenshot("chat-account")
	ada.Dark(true)
	ada.Screenshot("chat-account-dark")
	ada.Dark(false)
	ada.Type("#display-name", "Ada L.")
	ada.Type("#about", "Writes <b>engines</b>")
	ada.Click("#profile .primary")
	ada.UntilText("#toast", "Profile saved")
	p, _, err := phone.Lookup(t.Context(), "ada")
	must(err)
	if p.DisplayName != "Ada L." || p.About != "Writes <b>engines</b>" {
		t.Errorf("profile %+v", p)
	}

	press(ada, "Log out Phone")
	ada.Until(`document.querySelectorAll("#devices li").length === 1`)
	waitFor(t, "the phone is logged out", func() bool { _, _, err := phone.Me(t.Context()); return err != nil })

	phone = login(password)
	change := func(old, fresh string) {
		ada.Eval(`document.getElementById("change-password").reset()`, nil)
		ada.Type("#old-password", old)
		ada.Type("#new-password", fresh)
		ada.Press(kb.Enter)
	}
	change("wrong password", "new password")
	ada.UntilText("#password-error", "The present password is wrong.")
	change(password, "short")
	ada.UntilText("#password-error", "ew must have")
	change(password, "new password")
	ada.UntilText("#toast", "Password changed")
	ada.Until(`document.getElementById("password-error").textContent === ""`)
	waitFor(t, "the phone is logged out by the new password", func() bool { _, _, err := phone.Me(t.Context()); return err != nil })

	phone = login("new password")
	ada.Click("#account .bar button")
	ada.Click("#open-account")
	ada.Until(`document.getElementById("display-name").value === "Ada L."`)
	ada.Click("#logout-all")
	ada.Until(`!document.getElementById("welcome").hidden && !document.getElementById("account").open`)
	waitFor(t, "the phone is logged out with all", func() bool { _, _, err := phone.Me(t.Context()); return err != nil })
}

// TestReactionsOnThePage: one reacts by keyboard, the other one by a tap; both see the
// same, also after a reload, and a recall takes all.
func TestReactionsOnThePage(t *testing.T) {
	b := browsertest.Start(t) // skips before anything is started
	c := newCircle(t, "baseline")
	bob := enter(t, b, c.URL, "bob", browsertest.Desktop())
	ada := enter(t, b, c.URL, "ada", browsertest.Phone())
	ada.Type("#with", "bob")
	ada.Press(kb.Enter)
	ada.UntilText("#peer", "bob")
	send(ada, "The canary is out")
	bob.UntilText("#conversations", "ada")
	bob.Click("#conversations button")
	untilCount(bob, 1)
	shows := func(want string) {
		t.Helper()
		for _, tab := range []*browsertest.Tab{ada, bob} {
			tab.Until(fmt.Sprintf(`[...document.querySelectorAll(".reaction")].map((e) => e.textContent).join(" ") === %q`, want))
		}
	}
	mine := func(tab *browsertest.Tab, n int) {
		t.Helper()
		tab.Until(fmt.Sprintf(`document.querySelectorAll('.reaction[aria-pressed="true"]').length === %d`, n))
	}
	bob.Click(".react")
	bob.Until(`document.activeElement.dataset.emoji === "👍"`)
	bob.Accessible("picker")
	bob.Screenshot("chat-reactions-picker")
	bob.Press(kb.ArrowRight)
	bob.Press(kb.Enter)
	shows("❤️1")
	mine(bob, 1)
	mine(ada, 0)
	ada.Click(".reaction")
	shows("❤️2")
	mine(ada, 1)
	ada.Click(".react")
	ada.Screenshot("chat-reactions-picker-phone")
	ada.Click(`#picker [data-emoji="🎉"]`)
	shows("❤️2 🎉1")
	ada.Accessible("reactions")
	ada.Screenshot("chat-reactions-phone")
	bob.Screenshot("chat-reactions")
	bob.Dark(true)
	bob.Screenshot("chat-reactions-dark")
	bob.Dark(false)
	bob.Click(".reaction") // takes the own one back
	shows("❤️1 🎉1")
	bob.Open(c.URL + "/")
	bob.UntilText("#conversations", "ada")
	bob.Click("#conversations button")
	shows("❤️1 🎉1")
	mine(bob, 0)
	if got := texts(bob); len(got) != 1 || got[0] != "The canary is out" {
		t.Errorf("texts %q", got)
	}
	ada.Eval(fmt.Sprintf(`fetch("/v1/conversations").then((r) => r.json()).then(({ conversations: [c] }) => fetch("/v1/conversations/" + c.id + "/messages/%d", { method: "DELETE" })).then((r) => r.status)`, 1), nil)
	shows("")
	ada.Until(`document.querySelector(".react").hidden`)
}
