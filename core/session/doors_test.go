package session_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	"github.com/gorilla/websocket"

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

// TestLimitsHoldForSimultaneousHandshakes: connections of a user that come while others wait
// for the answer of all processes count, and those that do not come about count no longer.
func TestLimitsHoldForSimultaneousHandshakes(t *testing.T) {
	const dials = 30
	r := newRig(t, func(c *session.Config) { c.MaxPerUser, c.MaxPerUserAll = 5, 5 })
	r.seats.elsewhere["id-ann"] = 1
	r.seats.gate = make(chan struct{})
	opened := make(chan *websocket.Conn, dials)
	for range dials {
		go func() {
			ws, _, _ := r.dial("", nil)
			opened <- ws
		}()
	}
	r.eventually("all wait or are refused", func() bool {
		return len(r.seats.claimed())+int(r.metric("core_sockets_refused_total/user")) == dials
	})
	close(r.seats.gate)
	var in []*websocket.Conn
	for range dials {
		if ws := <-opened; ws != nil {
			in = append(in, ws)
		}
	}
	claims := r.seats.claimed()
	slices.Sort(claims)
	if !slices.Equal(claims, []int{1, 2, 3, 4, 5}) || len(in) != 4 || r.metric("core_sockets_refused_total/user_elsewhere") != 1 {
		t.Errorf("claimed %v, %d got in", claims, len(in))
	}
	for range dials { // a handshake without a key fails after the claim
		req, _ := http.NewRequest(http.MethodGet, r.server.URL, nil)
		req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-WebSocket-Version": {"13"}}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	for _, ws := range in {
		_ = ws.Close()
	}
	r.eventually("all are gone", func() bool { return r.hub.Sockets() == 0 })
	for range 4 {
		r.open("")
	}
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
