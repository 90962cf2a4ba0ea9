package core_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/push"
	"github.com/tracegate/tracegate/edge/client"
	"github.com/tracegate/tracegate/mesh/secret"
	"github.com/tracegate/tracegate/mesh/webhook"
)

// receiver is what a webhook notifies.
type receiver struct {
	*httptest.Server
	mu   sync.Mutex
	down bool
	got  []string // token, seq and sender
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var m push.Message
		err := json.NewDecoder(req.Body).Decode(&m)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.down || err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		r.got = append(r.got, fmt.Sprintf("%s %d %s", m.Data.Device.Token, m.Data.Seq, m.Data.Sender))
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) setDown(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

// until waits until there are so many notifications, and returns them in any order.
func (r *receiver) until(t *testing.T, n int) []string {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		r.mu.Lock()
		got := slices.Clone(r.got)
		r.mu.Unlock()
		if len(got) >= n {
			slices.Sort(got)
			return got
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %v, want %d", got, n)
		}
	}
}

// TestDevicesAreNotified: those of members that are away and have not muted, once, also
// when the receiver was away while the process was started anew; messages go on meanwhile.
func TestDevicesAreNotified(t *testing.T) {
	hook := newReceiver(t)
	w := newWorld(t)
	cfg := w.config("baseline")
	cfg.PushURL, cfg.PushSecret = hook.URL, secret.Text(webhook.NewSecret([32]byte{1}))
	cfg.Push.Backoff = 10 * time.Millisecond
	n := w.start(cfg)
	for _, name := range []string{"ann", "bob", "cid", "dan"} {
		n.person(name)
	}
	ctx := t.Context()
	ann, phone, tablet, cid := n.device("ann", ""), n.device("bob", ""), n.device("bob", ""), n.device("cid", "")
	for token, u := range map[string]*client.User{"ann": ann, "phone": phone, "tablet": tablet, "cid": cid} {
		_, err := u.SetPush(ctx, "fcm", token)
		must(t, err)
	}
	bad := func(err error, field string) {
		t.Helper()
		if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodeInvalidArgument || e.Field != field {
			t.Errorf("got %v", err)
		}
	}
	_, err := ann.SetPush(ctx, "fcm", "a b")
	bad(err, "token")
	_, err = ann.SetPush(ctx, "F C M", "x")
	bad(err, "platform")
	_, err = ann.SetPush(ctx, "fcm", "")
	bad(err, "token")
	g, _, err := ann.CreateGroup(ctx, "g", "all", "bob", "cid", "dan")
	must(t, err)
	_, _, err = cid.Mute(ctx, g.ID, true)
	must(t, err)
	send := func(id string) {
		t.Helper()
		_, _, err := ann.Send(ctx, protocol.Send{Conversation: g.ID, ClientID: id, Text: id})
		must(t, err)
	}
	want := func(list ...string) {
		t.Helper()
		if got := hook.until(t, len(list)); !slices.Equal(got, list) {
			t.Errorf("got %v, want %v", got, list)
		}
	}
	send("m1") // seq 2, after the group's first entry
	want("phone 2 ann", "tablet 2 ann")
	hook.setDown(true)
	send("m2")
	if got := n.history(n.login("bob"), g.ID); len(got) > 3 { // its receiver away, the rest of core works
		t.Errorf("got %v", got)
	}
	n.stop()
	hook.setDown(false)
	n = w.start(cfg)
	want("phone 2 ann", "phone 3 ann", "tablet 2 ann", "tablet 3 ann")
	here := func(u *client.User) *client.User { // the process has another address now
		c := client.DefaultConfig()
		c.Address, c.Timeout = n.url, 20*time.Second
		at, err := client.New(c)
		must(t, err)
		t.Cleanup(at.Close)
		return u.At(at)
	}
	ann, cid = here(ann), here(cid)
	run(t, here(phone)) // bob is not away any more
	deadline := time.Now().Add(time.Minute)
	for online := false; !online; {
		p, _, err := ann.Lookup(ctx, "bob")
		must(t, err)
		online = p.Online != nil && *p.Online
		if time.Now().After(deadline) {
			t.Fatal("bob is never online")
		}
	}
	_, _, err = cid.Mute(ctx, g.ID, false)
	must(t, err)
	send("m3")
	want("cid 4 ann", "phone 2 ann", "phone 3 ann", "tablet 2 ann", "tablet 3 ann")
}
