package core_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/search"
)

// startSearch runs a search process beside the world's core processes.
func (w *world) startSearch(dir, listen string) (addr string, stop func()) {
	w.t.Helper()
	cfg := search.DefaultConfig()
	cfg.Listen, cfg.Dir, cfg.Token = listen, dir, token
	cfg.Store.URL, cfg.Queue = w.config("x").Store.URL, w.config("x").Queue
	ready, failed := make(chan string, 1), make(chan error, 1)
	stop = background(w.t, func(ctx context.Context) error {
		err := search.Run(ctx, cfg, prometheus.NewRegistry(), func(a string) { ready <- a }, quiet())
		failed <- err
		return err
	})
	select {
	case addr = <-ready:
	case err := <-failed:
		w.t.Fatal(err)
	}
	return addr, stop
}

func (n *node) find(bearer, query string) (protocol.FoundPage, error) {
	n.t.Helper()
	var page protocol.FoundPage
	return page, n.call("GET", "/v1/search?"+query, bearer, nil, &page)
}

// untilFound searches until so many are found, and returns their texts.
func (n *node) untilFound(bearer, query string, want ...string) {
	n.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		page, err := n.find(bearer, query)
		got := []string{}
		for _, r := range page.Results {
			got = append(got, r.Message.Text)
		}
		diff := cmp.Diff(append([]string{}, want...), got)
		if err == nil && diff == "" {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("search %s: %v %s", query, err, diff)
		}
		time.Sleep(250 * time.Millisecond) // searches are limited
	}
}

func TestSearchFollowsTheLog(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(w.dir, "search")
	addr, stop := w.startSearch(dir, "127.0.0.1:0")
	cfg := w.config("baseline")
	cfg.Search = search.ClientConfig{Addrs: []string{addr}, Token: token}
	n := w.start(cfg)
	ann, bob, eve := n.person("ann"), n.person("bob"), n.person("eve")
	id := n.direct(ann, "bob")
	say := func(clientID, text string) {
		must(t, n.call("POST", "/v1/conversations/"+id+"/messages", ann, map[string]string{"client_id": clientID, "text": text}, nil))
	}
	say("1", "Dinner at the harbour?")
	say("2", "晩ごはんは東京駅で")
	n.untilFound(bob, "q=harbour", "Dinner at the harbour?")
	n.untilFound(bob, "q="+url.QueryEscape("東京"), "晩ごはんは東京駅で")
	n.untilFound(eve, "q=harbour")
	page, err := n.find(bob, "q=HARBOUR&sender=ann&conversation="+id)
	must(t, err)
	want := []protocol.Piece{{Text: "Dinner at the "}, {Text: "harbour", Match: true}, {Text: "?"}}
	if len(page.Results) != 1 || cmp.Diff(want, page.Results[0].Snippet) != "" {
		t.Errorf("got %+v", page)
	}
	must(t, n.call("PATCH", "/v1/conversations/"+id+"/messages/1", ann, map[string]string{"client_id": "3", "text": "Dinner at home"}, nil))
	must(t, n.call("DELETE", "/v1/conversations/"+id+"/messages/2", ann, nil, nil))
	n.untilFound(bob, "q=home", "Dinner at home")
	n.untilFound(bob, "q=harbour")
	n.untilFound(bob, "q="+url.QueryEscape("東京"))

	// A file is found by its name.
	f, err := n.upload(ann, "file", "harbour-map.png", somePNG())
	must(t, err)
	must(t, n.call("POST", "/v1/conversations/"+id+"/messages", ann, map[string]string{"client_id": "f", "file": f.ID}, nil))
	n.untilFound(bob, "q=harbour", "")

	// While no search process is there, searching fails and nothing else does.
	stop()
	_, err = n.find(bob, "q=home")
	if pe, ok := errors.AsType[*protocol.Error](err); !ok || pe.Code != protocol.CodeUnavailable {
		t.Errorf("search is down: %v", err)
	}
	say("4", "Breakfast at home")
	_, _ = w.startSearch(dir, addr)
	n.untilFound(bob, "q=home", "Breakfast at home", "Dinner at home")
}

// TestSearchIsMadeAnewFromTheDatabase: a second copy, begun later, has all of it.
func TestSearchIsMadeAnewFromTheDatabase(t *testing.T) {
	w := newWorld(t)
	cfg := w.config("baseline")
	// Nobody listens at the first address: the other one is asked.
	cfg.Search = search.ClientConfig{Addrs: []string{"127.0.0.1:1", ""}, Token: token}
	n := w.start(w.config("canary"))
	ann := n.person("ann")
	n.person("bob")
	id := n.direct(ann, "bob")
	for _, text := range []string{"one kiwi", "two kiwis", "three kiwi"} {
		must(t, n.call("POST", "/v1/conversations/"+id+"/messages", ann, map[string]string{"client_id": text[:3], "text": text}, nil))
	}
	for len(n.history(ann, id)) < 3 {
		time.Sleep(10 * time.Millisecond)
	}
	cfg.Search.Addrs[1], _ = w.startSearch(filepath.Join(w.dir, "search"), "127.0.0.1:0")
	n = w.start(cfg)
	n.untilFound(ann, "q=kiwi", "three kiwi", "one kiwi")
	n.untilFound(ann, "q=kiwi&limit=1", "three kiwi")
	page, err := n.find(ann, "q=kiwi&limit=1")
	must(t, err)
	n.untilFound(ann, "q=kiwi&limit=1&cursor="+page.Next, "one kiwi")
}

func TestBadSearchesAreOfTheClosedList(t *testing.T) {
	w := newWorld(t)
	addr, _ := w.startSearch(filepath.Join(w.dir, "search"), "127.0.0.1:0")
	cfg := w.config("baseline")
	cfg.Search = search.ClientConfig{Addrs: []string{addr}, Token: token}
	cfg.API.Search.Burst = 1000
	n := w.start(cfg)
	ann := n.person("ann")
	for _, c := range []struct {
		query string
		code  protocol.Code
		field string
	}{
		{"", protocol.CodeInvalidArgument, "q"},
		{"q=", protocol.CodeInvalidArgument, "q"},
		{"q=%20", protocol.CodeInvalidArgument, "q"},
		{"q=-x", protocol.CodeInvalidArgument, "q"},
		{"q=x%ff", protocol.CodeInvalidArgument, "q"},
		{"q=" + strings.Repeat("x", 257), protocol.CodeTooLarge, "q"},
		{"q=x&limit=0", protocol.CodeInvalidArgument, "limit"},
		{"q=x&limit=y", protocol.CodeInvalidArgument, "limit"},
		{"q=x&cursor=y", protocol.CodeInvalidArgument, "cursor"},
		{"q=x&sender=Y", protocol.CodeInvalidArgument, "sender"},
		{"q=x&conversation=a/b", protocol.CodeInvalidArgument, "conversation"},
		{"q=x&conversation=none", protocol.CodeNotFound, "conversation"},
		{"q=x&after=yesterday", protocol.CodeInvalidArgument, "after"},
		{"q=x&before=2026-13-01T00:00:00Z", protocol.CodeInvalidArgument, "before"},
		{"q=x&after=2026-01-02T00:00:00Z&before=2026-01-01T00:00:00Z", protocol.CodeInvalidArgument, "before"},
	} {
		_, err := n.find(ann, c.query)
		pe, ok := errors.AsType[*protocol.Error](err)
		if !ok || pe.Code != c.code || pe.Field != c.field {
			t.Errorf("%.40s: got %v, want %s of %q", c.query, err, c.code, c.field)
		}
	}
	if status, _, _ := n.get("/v1/search?q=x", ""); status != http.StatusUnauthorized {
		t.Errorf("without a login: %d", status)
	}
	r, err := http.Post("http://"+addr+"/v1/search", "application/json", strings.NewReader(`{"user_id":"u","text":"x","limit":1}`))
	must(t, err)
	defer r.Body.Close()
	if r.StatusCode != http.StatusUnauthorized {
		t.Errorf("search process without its token: %d", r.StatusCode)
	}
}
