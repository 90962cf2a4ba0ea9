package core_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tracegate/tracegate/core"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/settings"
)

// documents is a source that a test feeds; put returns what the process answered.
type documents struct {
	of      chan settings.Instance
	next    chan settings.Document
	answers chan error
}

func newDocuments() *documents {
	return &documents{of: make(chan settings.Instance, 1), next: make(chan settings.Document), answers: make(chan error)}
}

func (d *documents) WatchSettings(ctx context.Context, of settings.Instance, each func(settings.Document) error) error {
	d.of <- of
	for {
		select {
		case doc := <-d.next:
			d.answers <- each(doc)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *documents) put(revision int, text string) error {
	d.next <- settings.Document{Key: "core", Revision: revision, Text: text}
	return <-d.answers
}

// logged is what a process has logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// TestSettingsChangeWhileItRuns: every live setting takes effect on a process with open
// connections, none of which is lost; a document that cannot be used names its key and
// changes nothing; without one it is as it began.
func TestSettingsChangeWhileItRuns(t *testing.T) {
	w, from, log := newWorld(t), newDocuments(), new(logged)
	cfg, deps := w.config("canary"), w.deps()
	cfg.Labels, cfg.Version = []string{"env=staging"}, "v2"
	deps.Settings = from
	n := w.startWith(cfg, deps, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if of := <-from.of; fmt.Sprint(of.Keys()) != "[core/version/v2 core/gray/env=staging core/gray/pool=canary core]" || of.Node != "canary-1" {
		t.Errorf("it asks as %+v", of)
	}
	ann, bob := n.person("ann"), n.person("bob")
	with := n.direct(ann, "bob")
	seen := newSeen()
	first, _ := n.connect(ann, seen)
	limited := func(what string, err error) {
		t.Helper()
		if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodeRateLimited && e.Code != protocol.CodeUnavailable {
			t.Errorf("%s: %v", what, err)
		}
	}

	pings := n.pings(bob)
	pinged := func() {
		t.Helper()
		for range 2 {
			select {
			case <-pings:
			case <-time.After(time.Minute):
				t.Fatal("nobody pings")
			}
		}
	}

	must(t, from.put(1, "sockets: {max: 2}\n"))
	_, err := n.tryOpen(bob, newSeen(), nil)
	limited("a third connection of two", err)
	must(t, from.put(2, "sockets: {maxPerUser: 1, acceptBurst: 1, acceptsPerSecond: 0.0001}\n"))
	_, err = n.tryOpen(ann, newSeen(), nil)
	limited("a second connection of one user", err)
	cid, eve := n.person("cid"), n.person("eve")
	second, _ := n.connect(cid, newSeen())
	_, err = n.tryOpen(eve, newSeen(), nil)
	limited("connections above the rate", err)
	must(t, from.put(3, "limits: {user: {perSecond: 0.0001, burst: 1}, loginName: {perSecond: 0.0001, burst: 1}}\n"))
	for range 2 { // the first may have a token left
		err = n.call("GET", "/v1/conversations", cid, nil, nil)
	}
	limited("a user's requests", err)
	for range 2 {
		err = n.call("POST", "/v1/sessions", "", map[string]string{"name": "dora", "password": password}, nil)
	}
	limited("log-ins with one name", err)
	must(t, from.put(4, "limits: {conversations: 1}\nmessages: {editWithin: 1ns}\n"))
	if err := n.call("POST", "/v1/conversations", ann, map[string]string{"with": "cid"}, nil); err == nil {
		t.Error("a second conversation of one")
	}
	must(t, n.send(ann, with, "m1"))
	seen.wait(t, with, 1)
	edit := map[string]string{"client_id": "e1", "text": "x"}
	err = n.call("PATCH", "/v1/conversations/"+with+"/messages/1", ann, edit, nil)
	if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodePermissionDenied {
		t.Errorf("a late edit: %v", err)
	}
	must(t, from.put(5, "sockets: {commandBurst: 1, commandsPerSecond: 0.0001}\n"))
	for range 2 {
		_, err = first.do(protocol.Command{Ping: &protocol.Ping{}})
	}
	limited("commands of a connection", err)
	if log.has("settings are in force") {
		t.Error("logged below its level")
	}
	must(t, from.put(6, "log: {level: debug}\nsockets: {pingEvery: 50ms, staleAfter: 1m, queueFrames: 8}\n"))
	if !log.has("settings are in force") {
		t.Error("the level does not count")
	}
	pinged()

	for text, want := range map[string]string{
		"sockets: {pingEvery: 1h}\n":               "sockets.staleAfter: must be longer than pingEvery",
		"sockets:\n  max: 0\n":                     "line 2: sockets.max: must be above 0",
		"limits: {user: {perSecond: 0}}\n":         "limits.user.perSecond",
		"limits: {user: {perSecond: .inf}}\n":      "limits.user.perSecond",
		"log: {level: loud}\n":                     `log.level: "loud" is none of`,
		"lgo: {level: debug}\n":                    `line 1: lgo: unknown key, did you mean "log"?`,
		"messages: {editWithin: -1s}\n":            "messages.editWithin",
		"sockets: {queueFrames: 1, queueBytes: 9}": "sockets.queueFrames",
		"limits: [1]\n":                            "limits: expected keys",
		"\n":                                       "empty",
	} {
		if err := from.put(7, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
		if err := core.CheckSettings([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("check of %q: %v, want %s", text, err, want)
		}
	}
	pinged() // what was in force is

	if err := from.put(0, ""); err != nil {
		t.Errorf("without a document: %v", err)
	}
	var third *socket
	eventually(t, "connections are taken again", func() (ok bool) {
		third, err = n.tryOpen(eve, newSeen(), nil)
		return err == nil
	})
	eventually(t, "requests are taken again", func() bool { return n.call("GET", "/v1/conversations", cid, nil, nil) == nil })
	for name, c := range map[string]*socket{"first": first, "second": second, "third": third} {
		eventually(t, name+" connection answers", func() bool {
			_, err := c.do(protocol.Command{Ping: &protocol.Ping{}})
			if errors.Is(err, errGone) {
				t.Fatalf("%s connection has ended", name)
			}
			return err == nil
		})
	}
	want := "# HELP core_settings_total settings documents that came, by what became of them\n# TYPE core_settings_total counter\n" +
		"core_settings_total{result=\"in_force\"} 7\ncore_settings_total{result=\"refused\"} 10\n"
	if err := testutil.GatherAndCompare(n.registry, strings.NewReader(want), "core_settings_total"); err != nil {
		t.Error(err)
	}
}

// pings opens a connection and says when it is pinged. It must not end before the test.
func (n *node) pings(bearer string) <-chan struct{} {
	n.t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(n.url, "http")+"/v1/ws", http.Header{"Authorization": {"Bearer " + bearer}})
	must(n.t, err)
	out, done := make(chan struct{}, 1), make(chan struct{})
	answer := ws.PingHandler()
	ws.SetPingHandler(func(data string) error {
		select {
		case out <- struct{}{}:
		default:
		}
		return answer(data)
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(done)
		for {
			if _, _, err := ws.ReadMessage(); err != nil {
				if ctx.Err() == nil {
					n.t.Errorf("a connection ended: %v", err)
				}
				return
			}
		}
	}()
	n.t.Cleanup(func() {
		cancel()
		_ = ws.Close()
		<-done
	})
	return out
}
