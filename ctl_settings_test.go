package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/client"
	"github.com/tracegate/tracegate/observability/semconv"
)

// people are users who come in by an address. A limit must be seen, so nothing is tried again.
type people struct {
	t *testing.T
	*client.Client
}

func newPeople(t *testing.T, address string, header http.Header) people {
	t.Helper()
	cfg := client.DefaultConfig()
	cfg.Address, cfg.Header, cfg.Retry.Attempts, cfg.Timeout = "http://"+address, header, 1, 30*time.Second
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return people{t: t, Client: c}
}

const password = "correct horse"

func (p people) join(names ...string) {
	p.t.Helper()
	for _, name := range names {
		if _, _, err := p.Register(p.t.Context(), name, password); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p people) login(name string) *client.User {
	p.t.Helper()
	u, _, err := p.Login(p.t.Context(), name, password)
	if err != nil {
		p.t.Fatal(err)
	}
	return u
}

// TestCtlSettings hands settings to the pool canary of a running product, and sees them
// in what core does: there, and not in the other pools.
func TestCtlSettings(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the whole product")
	}
	const key = "core/gray/pool=" + semconv.PoolCanary
	p := newProduct(t)
	p.up(t)
	file := func(text string) string {
		t.Helper()
		name := filepath.Join(t.TempDir(), "settings.yaml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	settings := func(args ...string) string {
		t.Helper()
		out, err := p.ctl(t, append([]string{"settings"}, args...)...)
		if err != nil {
			t.Fatalf("ctl settings %v: %v\n%s", args, err, out)
		}
		return out
	}
	says := func(out string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("does not say %q:\n%s", w, out)
			}
		}
	}
	everyone := newPeople(t, p.cfg.Edge.Listen, nil)
	everyone.join("ann", "bob", "cid", "dan", "eve", "flo")
	canary := newPeople(t, p.cfg.Edge.Listen, http.Header{"Cookie": {"env=canary"}}).login("ann")
	open := func(by *client.User, pool, with string) error {
		t.Helper()
		_, served, err := by.Open(t.Context(), with)
		if served.Pool != pool {
			t.Fatalf("pool %s served instead of %s: %v", served.Pool, pool, err)
		}
		return err
	}
	may := func(with string) {
		t.Helper()
		if err := open(canary, semconv.PoolCanary, with); err != nil {
			t.Errorf("a conversation with %s: %v", with, err)
		}
	}
	mayNot := func(with string) {
		t.Helper()
		if _, ok := errors.AsType[*protocol.Error](open(canary, semconv.PoolCanary, with)); !ok {
			t.Errorf("a conversation with %s is not refused", with)
		}
	}

	says(settings("put", key, file("limits: {conversations: 1}\n"), "--reason", "one is enough"), "in_force", "one is enough")
	may("bob")
	mayNot("cid")
	if err := open(everyone.login("ann"), semconv.PoolBaseline, "cid"); err != nil {
		t.Errorf("the other pools are limited too: %v", err)
	}
	says(settings(), key, "one is enough", "core baseline-", "what it started with")

	out, err := p.ctl(t, "settings", "put", key, file("lgo: {level: debug}\n"))
	if err == nil {
		t.Error("a document with an unknown key is taken")
	}
	says(out, `lgo: unknown key, did you mean "log"?`)
	if history := settings("history", key); strings.Contains(history, "invalid") {
		t.Errorf("what ctl refuses has a revision:\n%s", history)
	}
	// Somebody writes it into the folder all the same.
	direct := filepath.Join(p.cfg.Data, "settings", "core", "gray", "pool="+semconv.PoolCanary+".yaml")
	if err := os.WriteFile(direct, []byte("limits:\n  conversatons: 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the revision to be invalid", func() bool { return strings.Contains(settings("history", key), "invalid") })
	says(settings("history", key), "limits.conversatons: unknown key", "line 2")
	mayNot("dan")

	says(settings("put", key, file("limits: {conversations: 3}\n"), "--reason", "three are better"), "in_force")
	may("dan")
	mayNot("eve")
	says(settings("diff", key, "1"), "-limits: {conversations: 3}", "+limits: {conversations: 1}")
	says(settings("rollback", key, "1"), "in_force")
	says(settings("show", key), "conversations: 1")
	mayNot("eve")
	says(settings("history", key), "one is enough", "three are better", "invalid", "in_force", "superseded")
	says(settings("remove", key), "in_force")
	may("eve")
}

// TestCoreWithoutAControlPlane: a core process alone, with nothing but its file, takes what
// that says and serves.
func TestCoreWithoutAControlPlane(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the binary")
	}
	p := newProduct(t, func(c *Config) { c.Core.EditWithin, c.Log.Level = time.Nanosecond, "warn" })
	u := newUp(p.cfg, &options{}, io.Discard, io.Discard)
	u.log = slog.New(slog.DiscardHandler)
	if err := u.prepare(); err != nil {
		t.Fatal(err)
	}
	stop, err := u.startEmbedded(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	var logs output
	cmd := p.command(context.Background(), "core", "--pool", semconv.PoolBaseline)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = blockingInput(t), &logs, &logs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil || t.Failed() {
			t.Errorf("core ended with %v:\n%s", err, &logs)
		}
	})
	pool := p.cfg.Core.Pools[0]
	waitUntil(t, "core to be ready", func() bool {
		status, _, err := head(t.Context(), http.DefaultClient, "http://"+pool.Admin+"/readyz")
		return err == nil && status == http.StatusOK
	})
	people := newPeople(t, pool.Listen, nil)
	people.join("ann", "bob")
	ann := people.login("ann")
	with, _, err := ann.Open(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ann.Send(t.Context(), protocol.Send{Conversation: with.ID, ClientID: "m1", Text: "hello"}); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the message to be there", func() bool {
		page, _, err := ann.History(t.Context(), with.ID, 0, 10)
		return err == nil && len(page.Messages) == 1
	})
	_, _, err = ann.Edit(t.Context(), protocol.Edit{Conversation: with.ID, ClientID: "e1", Seq: 1, Text: "hullo"})
	if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodePermissionDenied {
		t.Errorf("an edit that the file forbids: %v", err)
	}
	resp, err := http.Get("http://" + pool.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(metrics), "\ncore_settings_revision 0\n") {
		t.Errorf("metrics, %v:\n%s", err, fmt.Sprintf("%.2000s", metrics))
	}
}

// waitUntil asks every 50 ms.
func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
