package session_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/session"
)

func TestDoors(t *testing.T) {
	r := newRig(t, func(c *session.Config) {
		c.MaxPerUser, c.MaxSockets, c.Origins = 2, 3, []string{"https://chat.example.org"}
	})
	refused := func(query string, header http.Header) protocol.Code {
		t.Helper()
		ws, resp, err := r.dial(query, header)
		if err == nil {
			_ = ws.Close()
			return ""
		}
		var e protocol.Error
		if resp == nil || json.NewDecoder(resp.Body).Decode(&e) != nil {
			t.Fatalf("refused without an error: %v", err)
		}
		return e.Code
	}
	for origin, want := range map[string]protocol.Code{
		"":                         "",
		r.server.URL:               "",
		"https://chat.example.org": "",
		"https://evil.example.org": protocol.CodePermissionDenied,
		"null":                     protocol.CodePermissionDenied,
		"http://chat.example.org":  protocol.CodePermissionDenied,
	} {
		h := http.Header{}
		if origin != "" {
			h.Set("Origin", origin)
		}
		if got := refused("user=o", h); got != want {
			t.Errorf("origin %q: got %q, want %q", origin, got, want)
		}
		r.eventually("gone", func() bool { return r.hub.Sockets() == 0 })
	}
	r.open("user=ann")
	r.open("user=ann")
	if got := refused("user=ann", nil); got != protocol.CodeRateLimited {
		t.Errorf("third of a user: %q", got)
	}
	r.open("user=bob")
	if got := refused("user=cid", nil); got != protocol.CodeUnavailable {
		t.Errorf("fourth of the process: %q", got)
	}
}

// TestLimitCountsOtherProcesses: a connection elsewhere takes one from here, and who leaves
// gives it back.
func TestLimitCountsOtherProcesses(t *testing.T) {
	r := newRig(t, func(c *session.Config) { c.MaxPerUser, c.MaxPerUserAll = 3, 3 })
	r.seats.elsewhere["id-ann"] = 1
	first := r.open("user=ann")
	r.open("user=ann")
	r.eventually("two are told of", func() bool { return r.seats.of("id-ann") == 2 })
	_, resp, err := r.dial("user=ann", nil)
	if err == nil {
		t.Fatal("a fourth connection of all")
	}
	var e protocol.Error
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || e.Code != protocol.CodeRateLimited || !e.Temporary {
		t.Errorf("got %+v, %v", e, err)
	}
	if n := r.metric("core_sockets_refused_total/user_elsewhere"); n != 1 {
		t.Errorf("%v refused", n)
	}
	r.open("user=bob") // nobody else's matter
	_ = first.ws.Close()
	r.eventually("one is told of", func() bool { return r.seats.of("id-ann") == 1 })
	r.open("user=ann")
}

func TestAcceptRate(t *testing.T) {
	r := newRig(t, func(c *session.Config) { c.AcceptRate, c.AcceptBurst, c.MaxPerUser = 0.001, 3, 2 })
	r.open("user=ann")
	r.open("user=ann")
	if _, resp, err := r.dial("user=ann", nil); err == nil || resp.StatusCode != http.StatusTooManyRequests { // costs nobody a token
		t.Fatalf("third of a user: %v", err)
	}
	r.open("user=bob")
	_, resp, err := r.dial("user=cid", nil)
	if err == nil {
		t.Fatal("a fourth connection at once")
	}
	var e protocol.Error
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || e.Code != protocol.CodeUnavailable || !e.Temporary {
		t.Errorf("got %+v, %v", e, err)
	}
	if n := r.metric("core_sockets_refused_total/rate"); n != 1 {
		t.Errorf("%v refused", n)
	}
}
