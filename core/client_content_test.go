package core_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/search"
	"github.com/tracegate/tracegate/edge/client"
)

// TestClientSendsFilesAndFindsMessages by the Go client.
func TestClientSendsFilesAndFindsMessages(t *testing.T) {
	w := newWorld(t)
	addr, _ := w.startSearch(filepath.Join(w.dir, "search"), "127.0.0.1:0")
	cfg := w.config("baseline")
	cfg.Search = search.ClientConfig{Addrs: []string{addr}, Token: token}
	n := w.start(cfg)
	n.person("bob")
	c := client.DefaultConfig()
	c.Address = n.url
	sdk, err := client.New(c)
	must(t, err)
	defer sdk.Close()
	ctx := t.Context()
	_, _, err = sdk.Register(ctx, "ann", password)
	must(t, err)
	ann, _, err := sdk.Login(ctx, "ann", password)
	must(t, err)
	with, _, err := ann.Open(ctx, "bob")
	must(t, err)
	f, served, err := ann.Upload(ctx, "plan.txt", strings.NewReader("the plan"))
	if err != nil || f.Type != "text/plain" || f.Size != 8 || served.Node != "baseline-1" {
		t.Fatalf("%+v %+v %v", f, served, err)
	}
	if _, _, err := ann.Upload(ctx, "plan.txt", strings.NewReader("<html>")); err == nil || !strings.Contains(err.Error(), "text/html") {
		t.Errorf("HTML: %v", err)
	}
	_, _, err = ann.Send(ctx, protocol.Send{Conversation: with.ID, ClientID: "1", Text: "here is it", File: f.ID})
	must(t, err)
	link, _, err := ann.File(ctx, f.ID)
	must(t, err)
	if status, _, body := n.get(link.URL, ""); status != 200 || body != "the plan" {
		t.Errorf("download: %d %q", status, body)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(250 * time.Millisecond) {
		page, _, err := ann.Search(ctx, client.Search{Text: "plan", Conversation: with.ID, Sender: "ann", After: time.Now().Add(-time.Hour), Before: time.Now().Add(time.Hour), Limit: 5})
		must(t, err)
		if len(page.Results) == 1 && page.Results[0].Message.File.ID == f.ID {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("found %+v", page)
		}
	}
}
