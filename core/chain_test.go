package core_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/tracegate/tracegate/core"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/store/storetest"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/placement"
)

// start0 starts the baseline process.
func (w *world) start0() *node { return w.start(w.config("baseline")) }

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestMessageReachesTheOtherProcess(t *testing.T) {
	w := newWorld(t)
	one, two := w.start(w.config("baseline")), w.start(w.config("canary"))
	ann, bob := one.person("ann"), two.person("bob")
	id := one.direct(ann, "bob")
	atOne, atTwo := newSeen(), newSeen()
	a, _ := one.connect(ann, atOne)
	two.connect(bob, atTwo)
	must(t, a.send(id, "by-socket"))
	must(t, two.send(bob, id, "by-rest"))
	must(t, two.send(bob, id, "by-rest")) // again: accepted, but stored once
	must(t, a.send(id, "last"))
	atOne.wait(t, id, 3) // a sender's own connections get the message with its number as well
	atTwo.wait(t, id, 3)
	if diff := cmp.Diff(atOne.ids, atTwo.ids); diff != "" {
		t.Errorf("the two saw different orders: %s", diff)
	}
	var page struct {
		Messages []protocol.Message
		Epoch    string
	}
	must(t, two.call("GET", "/v1/conversations/"+id+"/messages", bob, nil, &page))
	if len(page.Messages) != 3 || page.Messages[0].Text != "text "+page.Messages[0].ClientID || page.Epoch != a.hello.Epoch {
		t.Errorf("history: %+v", page)
	}
	var list struct {
		Conversations []struct {
			ID      string
			Members []string
			LastSeq int64 `json:"last_seq"`
		}
	}
	must(t, one.call("GET", "/v1/conversations", ann, nil, &list))
	if len(list.Conversations) != 1 || list.Conversations[0].LastSeq != 3 || !cmp.Equal(list.Conversations[0].Members, []string{"ann", "bob"}) {
		t.Errorf("conversations: %+v", list)
	}
	var user struct{ Online *bool }
	eventually(t, "bob is online", func() bool {
		must(t, one.call("GET", "/v1/users/bob", ann, nil, &user))
		return user.Online != nil && *user.Online
	})
}

// TestRedisDownDelaysAndLosesNothing: messages are accepted, stored and shown without
// Redis, and fast again with it.
func TestRedisDownDelaysAndLosesNothing(t *testing.T) {
	w := newWorld(t)
	cfg := w.config("baseline")
	cfg.Fanout.Timeout = 100 * time.Millisecond
	other := w.config("canary")
	other.Fanout.Timeout = cfg.Fanout.Timeout
	one, two := w.start(cfg), w.start(other)
	ann, bob := one.person("ann"), two.person("bob")
	id := one.direct(ann, "bob")
	s := newSeen()
	two.connect(bob, s)
	must(t, one.send(ann, id, "0"))
	s.wait(t, id, 1)
	redis := w.redis
	w.stopRedis()
	for i := 1; i <= 20; i++ {
		must(t, one.send(ann, id, fmt.Sprint(i)))
	}
	s.wait(t, id, 21)
	w.startRedis(redis)
	for i := 21; i <= 30; i++ {
		must(t, one.send(ann, id, fmt.Sprint(i)))
	}
	s.wait(t, id, 31)
	for i, got := range s.ids[id] {
		if got != fmt.Sprint(i) {
			t.Fatalf("order %v", s.ids[id])
		}
	}
}

func TestMovedSocketMissesNothing(t *testing.T) {
	w := newWorld(t)
	one, two := w.start0(), w.start(w.config("isolated"))
	ann, bob := one.person("ann"), one.person("bob")
	id := one.direct(ann, "bob")
	g := group.Group{Color: 7, Env: "prod", Tenant: "search"}
	s := newSeen()
	s.positions[id] = 0
	c, err := one.tryOpen(ann, s, traffic(g))
	must(t, err)
	c.resume()
	if c.hello.Group != string(g.ID()) || c.hello.Pool != "baseline" || c.hello.Node != "baseline-1" {
		t.Errorf("hello %+v", c.hello)
	}
	stop, sent := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				sent <- n
				return
			default:
			}
			if err := one.send(bob, id, fmt.Sprint(n)); err != nil {
				t.Error(err)
			}
			n++
		}
	}()
	s.wait(t, id, 20)
	one.placements.changes <- placement.Placement{Version: 2, Groups: map[group.ID]string{g.ID(): "isolated"}}
	f := <-c.pushes
	if f.Reconnect == nil {
		t.Fatalf("got %+v", f)
	}
	_ = c.ws.Close() // the strict reader must not get messages from two connections at once
	<-c.closed
	moved, err := two.tryOpen(ann, s, traffic(g))
	must(t, err)
	if r := moved.resume(); !r.Recovered {
		t.Error("not recovered")
	}
	s.wait(t, id, s.count(id)+50)
	close(stop)
	s.wait(t, id, <-sent)
}

// TestDrainLosesNothing stops a process in order while it accepts.
func TestDrainLosesNothing(t *testing.T) {
	w := newWorld(t)
	one, two := w.start0(), w.start(w.config("canary"))
	ann, bob := one.person("ann"), one.person("bob")
	id := one.direct(ann, "bob")
	s := newSeen()
	two.connect(bob, s)
	c, _ := one.connect(ann, newSeen())
	accepted := make(chan []string)
	go func() {
		var ids []string
		for i := 0; ; i++ {
			err := c.send(id, fmt.Sprint(i))
			if errors.Is(err, errGone) {
				accepted <- ids
				return
			}
			if err != nil {
				t.Error(err)
			}
			ids = append(ids, fmt.Sprint(i))
		}
	}()
	s.wait(t, id, 20)
	one.stop()
	ids := <-accepted
	s.wait(t, id, len(ids))
	s.mu.Lock()
	defer s.mu.Unlock()
	if diff := cmp.Diff(ids, s.ids[id][:len(ids)]); diff != "" { // one more may have been taken without a reply
		t.Error(diff)
	}
	if resp, err := http.Get(one.url + "/healthz"); err == nil {
		resp.Body.Close()
		t.Error("still listening")
	}
}

func TestTraceOfASendGoesThroughTheLog(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	w := newWorld(t)
	w.spans = sdktrace.NewSimpleSpanProcessor(spans)
	n := w.start0()
	ann := n.person("ann")
	n.person("bob")
	id := n.direct(ann, "bob")
	g := group.Group{Color: 0xabcdef01, Env: "prod", Tenant: "search"}
	var accepted protocol.Accepted
	must(t, n.raw("POST", n.url+"/v1/conversations/"+id+"/messages", ann, strings.NewReader(`{"client_id":"1","text":"x"}`), traffic(g), &accepted))
	if want := g.Color.String() + "0123456789abcdef01234567"; accepted.TraceID != want {
		t.Errorf("trace id %s, want the edge's %s", accepted.TraceID, want)
	}
	want := map[string]string{
		"POST /v1/conversations/{conversation}/messages": "0123456789abcdef", // child of the edge's span
		"tracegate.messages publish":                     "", "tracegate.messages receive": "", "tracegate.messages process": "", "INSERT messages": "",
	}
	eventually(t, "all spans of the trace", func() bool {
		found := 0
		for _, s := range spans.GetSpans() {
			parent, expected := want[s.Name]
			if s.SpanContext.TraceID().String() == accepted.TraceID && expected && (parent == "" || s.Parent.SpanID().String() == parent) {
				found++
			}
		}
		return found == len(want)
	})
	var page struct{ Messages []protocol.Message }
	eventually(t, "stored with its trace", func() bool {
		must(t, n.call("GET", "/v1/conversations/"+id+"/messages", ann, nil, &page))
		return len(page.Messages) == 1 && page.Messages[0].TraceID == accepted.TraceID
	})
}

func TestStopBeforeReady(t *testing.T) {
	w := newWorld(t)
	cfg := w.config("baseline")
	cfg.Queue.Brokers = []string{"127.0.0.1:1"} // nobody is there
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- core.Run(ctx, cfg, w.deps(), quiet()) }()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not stop")
	}
}

func TestConfigNamesTheKey(t *testing.T) {
	for want, edit := range map[string]func(*core.Config){
		"pool":                func(c *core.Config) { c.Pool = "" },
		"node":                func(c *core.Config) { c.Node = "a b" },
		"listen":              func(c *core.Config) { c.Listen = "" },
		"admin":               func(c *core.Config) { c.Admin = "0.0.0.0:9201" },
		"token":               func(c *core.Config) { c.Token = "short" },
		"send_timeout":        func(c *core.Config) { c.SendTimeout = 0 },
		"drain":               func(c *core.Config) { c.LameDuck = -1 },
		"store.url":           func(c *core.Config) { c.Store.URL = "mysql://x" },
		"queue.topic":         func(c *core.Config) { c.Queue.Topic = "" },
		"fanout.addrs":        func(c *core.Config) { c.Fanout.Addrs = nil },
		"signal.every":        func(c *core.Config) { c.Signal.Every = 0 },
		"edit_within":         func(c *core.Config) { c.EditWithin = -1 },
		"session.staleAfter":  func(c *core.Config) { c.Session.StaleAfter = 1 },
		"account.bcrypt_cost": func(c *core.Config) { c.Account.BcryptCost = 31 },
		"api.register.burst":  func(c *core.Config) { c.API.Register.Burst = 0 },
		"api.origins":         func(c *core.Config) { c.API.Origins = []string{"not an origin"} },
	} {
		cfg := core.DefaultConfig()
		cfg.Token = token
		edit(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), want+":") {
			t.Errorf("want %s, got %v", want, err)
		}
	}
}

// TestNothingIsLeftBehind: no goroutine outlives a process.
func TestNothingIsLeftBehind(t *testing.T) {
	w := newWorld(t)
	warm := w.start0() // what is started once for all, as the HTTP client's
	warm.person("ann")
	warm.stop()
	http.DefaultClient.CloseIdleConnections()
	before := runtime.NumGoroutine()
	n := w.start0()
	c, _ := n.connect(n.login("ann"), newSeen())
	n.stop()
	<-c.closed
	http.DefaultClient.CloseIdleConnections()
	eventually(t, "goroutines are gone", func() bool { return runtime.NumGoroutine() <= before })
}

// TestSlowStoreRefusesSenders: what is accepted and not stored is bounded. Beyond it
// senders are refused over each transport, with an error that says to try again, until
// the database stores again; what was accepted before is stored then.
func TestSlowStoreRefusesSenders(t *testing.T) {
	w := newWorld(t)
	cfg := w.config("baseline")
	cfg.Queue.MaxUnstored = 10
	n := w.start(cfg)
	ann, bob := n.person("ann"), n.person("bob")
	id := n.direct(ann, "bob")
	s := newSeen()
	c, _ := n.connect(bob, s)

	unlock := storetest.Lock(t, cfg.Store.URL)
	accepted := 0
	refused := func(err error) bool {
		if err == nil {
			accepted++
			return false
		}
		if e := (*protocol.Error)(nil); !errors.As(err, &e) || e.Code != protocol.CodeRateLimited || !e.Temporary || !strings.Contains(e.Message, "not stored fast enough") {
			t.Fatalf("refused with %v", err)
		}
		return true
	}
	eventually(t, "refused", func() bool { return refused(n.send(ann, id, fmt.Sprint(accepted))) })
	if accepted <= int(cfg.Queue.MaxUnstored) {
		t.Errorf("refused after %d, the bound is %d", accepted, cfg.Queue.MaxUnstored)
	}
	if !refused(c.send(id, "by-socket")) {
		t.Error("a socket's message was accepted")
	}
	if stored := n.history(bob, id); len(stored) != 0 {
		t.Errorf("stored %d messages while nobody could write", len(stored))
	}

	unlock()
	s.wait(t, id, accepted)
	eventually(t, "accepted again", func() bool { return !refused(n.send(ann, id, fmt.Sprint(accepted))) })
	s.wait(t, id, accepted)
	for i, got := range s.ids[id] {
		if got != fmt.Sprint(i) {
			t.Fatalf("order %v", s.ids[id])
		}
	}
}
