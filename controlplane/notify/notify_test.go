package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/secret"
	"github.com/tracegate/tracegate/mesh/webhook"
)

const testSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" // of Standard Webhooks' own example

func TestHookValidate(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://hooks.example.org/x": true, "http://127.0.0.1:99/x": true, "http://localhost/": true, "http://[::1]:1/": true,
		"http://hooks.example.org/": false, "ftp://localhost/": false, "/x": false, "": false, "https://": false, "http://localhost.evil.org/": false,
	} {
		if err := (Hook{URL: url}).Validate(); (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
	}
	if err := (Hook{URL: "https://x", Format: "teams"}).Validate(); err == nil {
		t.Error("an unknown format is taken")
	}
}

func TestBodies(t *testing.T) {
	d := decide.Decision{
		ID: "1", Action: decide.Isolate, Group: "78fdd2", Env: "canary", Tenant: "payment", Service: "core", FromPool: "canary", ToPool: "isolated",
		By: decide.ByPolicy, Reason: "P95 1s > 500ms", Causes: []string{"connects to <db> take 1s"}, Undo: "tracegate ctl release 78fdd2",
	}
	m, ok := messageOf(d, "http://127.0.0.1:8090")
	if !ok {
		t.Fatal("an isolation is no message")
	}
	slack, err := m.body(FormatSlack)
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Text string }
	if err := json.Unmarshal(slack, &got); err != nil {
		t.Fatal(err)
	}
	want := "*Group 78fdd2 (canary+payment) of core was isolated: canary -&gt; isolated, by policy*\nP95 1s &gt; 500ms\nperhaps because connects to &lt;db&gt; take 1s\n" +
		"Undo: `tracegate ctl release 78fdd2`\n<http://127.0.0.1:8090|Console>"
	if got.Text != want {
		t.Errorf("slack:\n%s\nwant\n%s", got.Text, want)
	}
	plain, err := m.body("")
	if err != nil || !strings.Contains(string(plain), `"type":"group.isolated"`) || !strings.Contains(string(plain), `"undo":"tracegate ctl release 78fdd2"`) {
		t.Errorf("json: %s, %v", plain, err)
	}
	hold := d
	hold.Action, hold.Undo = decide.Hold, ""
	if _, ok := messageOf(hold, ""); ok {
		t.Error("a hold is a message")
	}
	d.Revision = &decide.RevisionChange{From: 2, To: 1}
	for a, want := range map[decide.Action]string{decide.Isolate: "group.isolation_recommended", decide.Shed: "group.limit_recommended", decide.RollBack: "policy.rollback_recommended"} {
		hold.Advice, hold.Revision = a, d.Revision
		if m, ok := messageOf(hold, ""); !ok || m.Type != want || m.Data.Do != "tracegate ctl confirm 1" || m.Data.Undo != "" || m.Data.Text == "" {
			t.Errorf("advice to %s: %+v", a, m)
		}
	}
	for _, tc := range []struct {
		action decide.Action
		share  uint32
		want   string
	}{
		{decide.Pin, 0, "group.pinned"}, {decide.Shed, 0, "group.limited"}, {decide.Lift, 0, "group.limit_lifted"}, {decide.RollBack, 0, "policy.rolled_back"},
		{decide.Release, 0, "group.released"}, {decide.Release, 100, "group.released"},
		{decide.Release, 1, ""}, {decide.PreWarm, 0, ""}, // moves nobody, or not all
	} {
		d.Action, d.Share = tc.action, tc.share
		if m, ok := messageOf(d, ""); ok != (tc.want != "") || m.Type != tc.want {
			t.Errorf("%s, %d%%: %v, %+v", tc.action, tc.share, ok, m)
		}
	}
}

// receiver is a notifier with quick retries.
func receiver(t *testing.T, cfg Config, past ...decide.Decision) *Notifier {
	t.Helper()
	cfg.Secret = secret.Text(testSecret)
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	n, err := New(cfg, past, time.Now(), prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range n.hooks {
		k.retry = backoff{time.Millisecond, time.Millisecond}
	}
	return n
}

func isolation(i int) decide.Decision {
	return decide.Decision{ID: fmt.Sprintf("%06d", i), Time: time.Now(), Action: decide.Isolate, Group: "78fdd2"}
}

func run(t *testing.T, n *Notifier) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestDelivery: in order, each once, over trouble and over a restart; a receiver that
// refuses for good loses that message only.
func TestDelivery(t *testing.T) {
	var trouble atomic.Int32
	got := make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		id, at := r.Header.Get("Webhook-Id"), r.Header.Get("Webhook-Timestamp")
		var unix int64
		_, _ = fmt.Sscan(at, &unix)
		switch {
		case trouble.Add(-1) >= 0:
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case id == "000003":
			w.WriteHeader(http.StatusBadRequest)
		case r.Header.Get("Webhook-Signature") != webhook.Sign(mustKey(t), id, time.Unix(unix, 0), body):
			t.Errorf("message %s is not signed", id)
		}
		got <- id
	}))
	defer s.Close()
	expect := func(want ...string) {
		t.Helper()
		for _, w := range want {
			select {
			case id := <-got:
				if id != w {
					t.Fatalf("got %s, want %s", id, w)
				}
			case <-time.After(time.Minute):
				t.Fatalf("%s does not come", w)
			}
		}
	}
	cfg := Config{Hooks: []Hook{{URL: s.URL}}, Dir: t.TempDir()}
	trouble.Store(3)
	n := receiver(t, cfg)
	before := isolation(0)
	before.Time = before.Time.Add(-time.Hour) // from before there was a hook
	n.Add(before)
	stop := run(t, n)
	for i := 1; i <= 4; i++ {
		n.Add(isolation(i))
	}
	expect("000001", "000002", "000003", "000004")
	n.hooks[0].settle(t)
	stop()
	k := n.hooks[0]
	for result, want := range map[string]float64{"sent": 3, "refused": 1, "retried": 3} {
		if got := testutil.ToFloat64(k.metrics.sent.WithLabelValues(k.name, result)); got != want {
			t.Errorf("%s: %v, want %v", result, got, want)
		}
	}

	old := isolation(5)
	old.Time = old.Time.Add(-25 * time.Hour)
	n = receiver(t, cfg, isolation(1), isolation(4), old, isolation(6), isolation(7))
	stop = run(t, n)
	n.Add(isolation(8))
	expect("000006", "000007", "000008")
	stop()
}

// settle waits until the answer to the last message was noted.
func (k *hook) settle(t *testing.T) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for _, ok := k.first(); ok; _, ok = k.first() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("a message stays in the queue")
		}
	}
}

func mustKey(t *testing.T) []byte {
	t.Helper()
	return receiver(t, Config{Hooks: []Hook{{URL: "http://localhost/"}}}).hooks[0].key
}

func TestQueueIsBounded(t *testing.T) {
	n := receiver(t, Config{Hooks: []Hook{{URL: "http://localhost/"}}})
	for i := range maxQueued + 3 {
		n.Add(isolation(i))
	}
	k := n.hooks[0]
	if d, _ := k.first(); len(k.queue) != maxQueued || d.ID != "000003" || testutil.ToFloat64(k.metrics.sent.WithLabelValues(k.name, "dropped_queue_full")) != 3 {
		t.Errorf("%d wait, the first is %s", len(k.queue), d.ID)
	}
}

func TestNoHooksNeedNothing(t *testing.T) {
	n, err := New(Config{}, nil, time.Now(), prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	n.Add(isolation(1))
	if err := n.Run(t.Context()); err != nil {
		t.Error(err)
	}
}
