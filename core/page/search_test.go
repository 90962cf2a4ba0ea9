package page_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/core"
	"github.com/tracegate/tracegate/core/search"
	"github.com/tracegate/tracegate/mesh/runtest"
	"github.com/tracegate/tracegate/mesh/webpage/browsertest"
)

// withSearch runs a search process beside the circle's core processes.
func withSearch(t *testing.T, cfg *core.Config) {
	t.Helper()
	c := search.DefaultConfig()
	c.Listen, c.Dir, c.Token, c.Store, c.Queue = "127.0.0.1:0", t.TempDir(), password+password, cfg.Store, cfg.Queue
	ready, failed := make(chan string, 1), make(chan error, 1)
	runtest.Background(t, func(ctx context.Context) error {
		err := search.Run(ctx, c, prometheus.NewRegistry(), func(addr string) { ready <- addr }, quiet())
		failed <- err
		return err
	})
	select {
	case addr := <-ready:
		cfg.Search = search.ClientConfig{Addrs: []string{addr}, Token: c.Token}
	case err := <-failed:
		t.Fatal(err)
	}
}

// TestSearchOnThePage: a message far back is found by its words, in Latin and Chinese
// script, and shown where it stands.
func TestSearchOnThePage(t *testing.T) {
	b := browsertest.Start(t) // skips before anything is started
	c := newCircleWith(t, withSearch, "baseline")
	bob := enter(t, b, c.URL, "bob", browsertest.Desktop())
	ada := enter(t, b, c.URL, "ada", browsertest.Phone())
	ada.Type("#with", "bob")
	ada.Press("\r")
	ada.UntilText("#peer", "bob")
	send(ada, "The key is under the third flower pot, the green one")
	send(ada, "明天在东京车站见")
	untilCount(ada, 2)
	for i := range 70 {
		ada.Eval(fmt.Sprintf(`fetch("/v1/conversations").then((r) => r.json()).then(({ conversations }) => fetch("/v1/conversations/" + conversations[0].id + "/messages",
			{ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ client_id: "n%[1]d", text: "line %[1]d of many" }) })).then((r) => r.status)`, i), nil)
	}
	untilCount(ada, 72)
	bob.Open(c.URL + "/")
	bob.UntilText("#conversations", "line 69")
	bob.Type("#query", "flower")
	bob.UntilText("#results", "third flower pot")
	bob.UntilText("#found-state", "1 found.")
	bob.Accessible("search")
	bob.Click("#results button")
	bob.Until(`document.querySelector('.message[data-found]')?.innerText.includes("flower pot")`)
	bob.Until(`(() => { const r = document.querySelector(".message")?.getBoundingClientRect(); return r && r.top >= 0 && r.bottom <= innerHeight; })()`)
	bob.Screenshot("chat-search")
	bob.Type("#query", "东京")
	bob.Until(`document.querySelector("#results mark")?.innerText === "东京"`)
	bob.Type("#query", "many")
	bob.UntilText("#found-state", "20 or more found.")
	bob.Click("#more-found")
	bob.UntilText("#found-state", "40 or more found.")
	bob.Type("#query", "nowhere")
	bob.UntilText("#found-state", "Nothing found.")
	bob.Press("\u001b")
	bob.Until(`!document.getElementById("conversations").hidden && document.getElementById("found").hidden`)
}
