package session_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/session"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/placement"
)

func TestGarbageClosesOneConnectionOnly(t *testing.T) {
	r := newRig(t, nil)
	other := r.open("user=bob")
	for name, frame := range map[string]struct {
		kind int
		text string
		code int
	}{
		"no json":          {websocket.TextMessage, "hello", protocol.CloseProtocol},
		"not an object":    {websocket.TextMessage, "[1]", protocol.CloseProtocol},
		"half an object":   {websocket.TextMessage, `{"id":1,`, protocol.CloseProtocol},
		"two objects":      {websocket.TextMessage, `{"id":1,"ping":{}}{}`, protocol.CloseProtocol},
		"unknown field":    {websocket.TextMessage, `{"id":1,"pong":{}}`, protocol.CloseProtocol},
		"no id":            {websocket.TextMessage, `{"ping":{}}`, protocol.CloseProtocol},
		"id of text":       {websocket.TextMessage, `{"id":"1","ping":{}}`, protocol.CloseProtocol},
		"not UTF-8":        {websocket.TextMessage, "{\"id\":1,\"send\":{\"text\":\"\xff\"}}", websocket.CloseInvalidFramePayloadData},
		"binary":           {websocket.BinaryMessage, `{"id":1,"ping":{}}`, protocol.CloseProtocol},
		"deep":             {websocket.TextMessage, `{"id":1,"ping":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + `}`, protocol.CloseProtocol},
		"endlessly deep":   {websocket.TextMessage, strings.Repeat("[", 20_000), protocol.CloseProtocol},
		"unknown opcode":   {3, "x", websocket.CloseProtocolError},
		"nothing in frame": {websocket.TextMessage, "", protocol.CloseProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			c := r.open("")
			if frame.kind == 3 {
				_, _ = c.ws.NetConn().Write([]byte{0x83, 0x81, 0, 0, 0, 0, 'x'})
			} else if err := c.ws.WriteMessage(frame.kind, []byte(frame.text)); err != nil {
				t.Fatal(err)
			}
			if code := c.closeCode(); code != frame.code {
				t.Errorf("closed with %d, want %d", code, frame.code)
			}
		})
	}
	id := other.write(protocol.Command{Ping: &protocol.Ping{}})
	if f := other.next(); f.ID != id || f.Pong == nil {
		t.Errorf("the other connection got %+v", f)
	}
}

// FuzzCommand gives any text to a connection: it answers or closes with a code.
func FuzzCommand(f *testing.F) {
	f.Add(`{"id":1,"send":{"conversation":"a","client_id":"1","text":"x"}}`)
	f.Add(`{"id":1,"resume":{"epoch":"e1","positions":{"a":-1}}}`)
	f.Add(`{"id":4294967295,"ping":{}}`)
	f.Add(`{"id":1,"edit":{"conversation":"a","seq":1,"client_id":"2","text":"x"}}`)
	f.Add(`{"id":1,"recall":{"conversation":"a","seq":-1}}`)
	f.Add(`{"id":1,"mark":{"conversation":"a","read":9223372036854775807}}`)
	f.Add(`{"id":1,"typing":{"conversation":"a"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		c := newRig(t, nil).open("")
		if c.ws.WriteMessage(websocket.TextMessage, []byte(text)) != nil {
			return
		}
		if _, err := c.read(); err != nil && websocket.IsUnexpectedCloseError(err, protocol.CloseProtocol, websocket.CloseMessageTooBig, websocket.CloseInvalidFramePayloadData) {
			t.Errorf("%q: %v", text, err)
		}
	})
}

func TestCommandsThatCannotBe(t *testing.T) {
	r := newRig(t, nil)
	c := r.open("")
	c.resume(nil)
	many := map[string]int64{}
	for i := range 300 {
		many[fmt.Sprint(i)] = 1
	}
	for name, cmd := range map[string]protocol.Command{
		"nothing set":       {},
		"two set":           {Ping: &protocol.Ping{}, Send: &protocol.Send{}},
		"negative position": {Resume: &protocol.Resume{Positions: map[string]int64{"a": -1}}},
		"position of no id": {Resume: &protocol.Resume{Positions: map[string]int64{"a/b": 1}}},
		"endless token":     {Resume: &protocol.Resume{Token: strings.Repeat("x", 65)}},
	} {
		id := c.write(cmd)
		if f := c.next(); f.ID != id || f.Error == nil || f.Error.Code != protocol.CodeInvalidArgument {
			t.Errorf("%s: got %+v", name, f)
		}
	}
	if id := c.write(protocol.Command{Resume: &protocol.Resume{Epoch: "e1", Positions: many}}); c.next().ID != id {
		t.Error("positions of unknown conversations end the connection")
	}
}

func TestSendsKeepTheirOrderAndTheirErrors(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	r := newRig(t, nil, sdktrace.WithSyncer(spans))
	r.sender.f = func(m protocol.Send, done func(protocol.Accepted, error)) {
		switch m.ClientID {
		case "bad":
			done(protocol.Accepted{}, protocol.NewError(protocol.CodeNotFound, "conversation", "none"))
		case "broken":
			done(protocol.Accepted{}, fmt.Errorf("secret detail"))
		default:
			done(protocol.Accepted{ClientID: m.ClientID}, nil)
		}
	}
	c := r.open("color=0000abcd")
	want := []string{}
	for i := range 50 {
		want = append(want, fmt.Sprint(i))
		c.write(protocol.Command{Send: &protocol.Send{ClientID: fmt.Sprint(i)}})
	}
	for range 50 {
		if f := c.next(); f.Accepted == nil {
			t.Fatalf("got %+v", f)
		}
	}
	if diff := cmp.Diff(want, r.sender.got); diff != "" {
		t.Error(diff)
	}
	c.write(protocol.Command{Send: &protocol.Send{ClientID: "bad"}})
	if f := c.next(); f.Error == nil || f.Error.Code != protocol.CodeNotFound {
		t.Errorf("got %+v", f)
	}
	c.write(protocol.Command{Send: &protocol.Send{ClientID: "broken"}})
	if f := c.next(); f.Error == nil || f.Error.Code != protocol.CodeInternal || strings.Contains(f.Error.Message, "secret") {
		t.Errorf("got %+v", f)
	}
	r.eventually("spans end", func() bool { return len(spans.GetSpans()) == 52 })
	traces := map[string]bool{}
	for _, s := range spans.GetSpans() {
		id := s.SpanContext.TraceID().String()
		traces[id] = true
		if !strings.HasPrefix(id, "0000abcd") {
			t.Fatalf("trace %s has not the connection's color", id)
		}
		entry := false
		for _, a := range s.Attributes {
			entry = entry || a.Key == "traffic.entry" && a.Value.AsBool()
		}
		if !entry {
			t.Fatal("a send is no entry span")
		}
	}
	if len(traces) != 52 {
		t.Errorf("%d traces for 52 sends", len(traces))
	}
}

func TestTooManyCommandsAreRefused(t *testing.T) {
	r := newRig(t, func(c *session.Config) { c.CommandRate, c.CommandBurst = 0.001, 3 })
	c := r.open("")
	got := map[protocol.Code]int{}
	for range 5 {
		c.write(protocol.Command{Ping: &protocol.Ping{}})
		f := c.next()
		code := protocol.Code("ok")
		if f.Error != nil {
			code = f.Error.Code
		}
		got[code]++
	}
	if diff := cmp.Diff(map[protocol.Code]int{"ok": 3, protocol.CodeRateLimited: 2}, got); diff != "" {
		t.Error(diff)
	}
}

// TestInFlightIsBounded: a client that does not wait for replies is not read any more.
func TestInFlightIsBounded(t *testing.T) {
	r := newRig(t, func(c *session.Config) { c.MaxInFlight = 4 })
	held := make(chan func(), 100)
	r.sender.f = func(m protocol.Send, done func(protocol.Accepted, error)) {
		held <- func() { done(protocol.Accepted{ClientID: m.ClientID}, nil) }
	}
	c := r.open("")
	for i := range 10 {
		c.write(protocol.Command{Send: &protocol.Send{ClientID: fmt.Sprint(i)}})
	}
	r.eventually("four are in flight", func() bool { return len(held) == 4 })
	for i := range 10 {
		if n := len(held); n > 4 {
			t.Fatalf("%d in flight", n)
		}
		(<-held)()
		if f := c.next(); f.Accepted == nil || f.Accepted.ClientID != fmt.Sprint(i) {
			t.Fatalf("got %+v", f)
		}
	}
}

// TestDrainIsSpread: each client is asked to wait for a time of its own.
func TestDrainIsSpread(t *testing.T) {
	r := newRig(t, nil)
	var clients []*client
	for i := range 20 {
		clients = append(clients, r.open(fmt.Sprintf("user=u%d", i)))
	}
	ctx, cancel := context.WithCancel(context.Background())
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		r.hub.Drain(ctx, time.Hour, time.Minute)
	}()
	delays := map[int64]bool{}
	for _, c := range clients {
		f := c.next()
		if f.Reconnect == nil || f.Reconnect.DelayMS < 0 || f.Reconnect.DelayMS >= time.Hour.Milliseconds() {
			t.Fatalf("got %+v", f)
		}
		delays[f.Reconnect.DelayMS] = true
	}
	if len(delays) < 10 {
		t.Errorf("%d different delays for 20 clients", len(delays))
	}
	cancel()
	<-drained
}

func TestHeartbeatFindsTheDead(t *testing.T) {
	r := newRig(t, func(c *session.Config) { c.PingEvery, c.StaleAfter = 300*time.Millisecond, 3*time.Second })
	dead, alive := r.open("user=dead"), r.open("user=alive")
	go func() { // reads, and so answers pings
		for {
			if _, _, err := alive.ws.NextReader(); err != nil {
				return
			}
		}
	}()
	r.eventually("stale", func() bool { return r.metric("core_sockets_closed_total/stale") == 1 })
	r.eventually("gone", func() bool { return r.hub.Sockets() == 1 })
	if code := dead.closeCode(); code != protocol.CloseStale {
		t.Errorf("closed with %d", code)
	}
}

func TestExpiredTokenEndsTheConnection(t *testing.T) {
	r := newRig(t, nil)
	r.expires = time.Now().Add(time.Second)
	if code := r.open("").closeCode(); code != protocol.CloseExpired {
		t.Errorf("closed with %d", code)
	}
}

func place(version int64, pools map[group.ID]string) placement.Placement {
	return placement.Placement{Version: version, Groups: pools}
}

func TestPlacementMovesOneGroup(t *testing.T) {
	r := newRig(t, func(c *session.Config) { c.MoveSpread, c.MoveGrace = 50*time.Millisecond, 2*time.Second })
	moved := group.Group{Color: 7, Env: "prod", Tenant: "public"}.ID()
	a, b := r.open("user=a&color=00000007"), r.open("user=b")
	a.resume(nil)
	r.hub.Place(place(2, map[group.ID]string{moved: "isolated"}))
	f := a.next()
	if f.Reconnect == nil || f.Reconnect.Reason != "placement" || f.Reconnect.DelayMS >= 50 || f.Reconnect.GraceMS != 2000 || f.Reconnect.Resume == "" {
		t.Fatalf("got %+v", f)
	}
	// it goes on working until it is closed
	m := r.history.add("x", "still")
	r.hub.Deliver("id-a", "x", m.Seq, frameOf(m))
	if f := a.next(); f.Message == nil {
		t.Errorf("got %+v", f)
	}
	if code := a.closeCode(); code != protocol.CloseMoved {
		t.Errorf("closed with %d", code)
	}
	id := b.write(protocol.Command{Ping: &protocol.Ping{}})
	if f := b.next(); f.ID != id {
		t.Errorf("the other group got %+v", f)
	}
	want := []session.GroupSockets{{Group: group.Group{Env: "prod", Tenant: "public"}.ID(), Color: "00000000", Env: "prod", Tenant: "public", Pool: "baseline", Users: 1, Sockets: 1}}
	r.eventually("gone", func() bool { return r.hub.Sockets() == 1 })
	if diff := cmp.Diff(want, r.hub.Groups()); diff != "" {
		t.Error(diff)
	}
}

// TestSupersededEdge: sockets of an Envoy that another one has taken over from are asked
// to come back, whatever their group; those of the next, and of other edges, stay.
func TestSupersededEdge(t *testing.T) {
	r := newRig(t, func(c *session.Config) { c.MoveSpread, c.MoveGrace = 0, time.Minute })
	old, next, other := r.open("user=a&edge=edge-1/10"), r.open("user=b&edge=edge-1/20"), r.open("user=c&edge=edge-2/10")
	p := place(2, nil)
	p.Edges = map[string]int64{"edge-1": 20, "edge-2": 10}
	r.hub.Place(p)
	if f := old.next(); f.Reconnect == nil || f.Reconnect.Reason != "edge" || f.Reconnect.Resume == "" {
		t.Fatalf("got %+v", f)
	}
	for _, c := range []*client{next, other} {
		id := c.write(protocol.Command{Ping: &protocol.Ping{}})
		if f := c.next(); f.ID != id {
			t.Errorf("one that stays got %+v", f)
		}
	}
	late := r.open("user=d&edge=edge-1/10") // that the old one still took
	if f := late.next(); f.Reconnect == nil {
		t.Errorf("got %+v", f)
	}
}

// TestDrainedInstance: sockets that came to an address that is to be left are asked to come
// back; those of another stay, and so does one that is sent here all the same afterwards.
func TestDrainedInstance(t *testing.T) {
	r := newRig(t, func(c *session.Config) { c.MoveSpread, c.MoveGrace, c.MoveSettle = 0, time.Minute, 0 })
	leaves, stays := r.open("user=a&address=10.0.0.1:9101"), r.open("user=b&address=10.0.0.2:9101")
	p := place(2, nil)
	p.Draining = []string{"10.0.0.1:9101"}
	r.hub.Place(p)
	if f := leaves.next(); f.Reconnect == nil || f.Reconnect.Reason != "drain" || f.Reconnect.Resume == "" {
		t.Fatalf("got %+v", f)
	}
	for _, c := range []*client{stays, r.open("user=c&address=10.0.0.1:9101")} {
		id := c.write(protocol.Command{Ping: &protocol.Ping{}})
		if f := c.next(); f.ID != id {
			t.Errorf("one that stays got %+v", f)
		}
	}
	if n := r.metric("core_moves_asked_total/drain"); n != 1 {
		t.Errorf("asked %v times", n)
	}
}

// TestHelloIsFirst: also where a connection is to move from its first moment on.
func TestHelloIsFirst(t *testing.T) {
	r := newRig(t, nil)
	moved := group.Group{Color: 7, Env: "prod", Tenant: "public"}.ID()
	r.history.onEpoch = func() { r.hub.Place(place(2, map[group.ID]string{moved: "isolated"})) } // a hello names it
	c := r.open("color=00000007")
	if f := c.next(); f.Reconnect == nil {
		t.Errorf("then came %+v", f)
	}
}

// TestFallbackDoesNotLoop: connections that come back, because the other pool has no
// healthy endpoint, are asked again only after a pause.
func TestFallbackDoesNotLoop(t *testing.T) {
	r := newRig(t, func(c *session.Config) {
		c.MoveSettle, c.MoveBackoff, c.MoveBackoffMax = 0, 2*time.Second, 10*time.Second
	})
	moved := group.Group{Color: 7, Env: "prod", Tenant: "public"}.ID()
	first := r.open("color=00000007")
	r.hub.Place(place(2, map[group.ID]string{moved: "isolated"}))
	if f := first.next(); f.Reconnect == nil {
		t.Fatalf("got %+v", f)
	}
	_ = first.ws.Close()
	back := r.open("color=00000007")
	asked := time.Now()
	if f := back.next(); f.Reconnect == nil {
		t.Fatalf("got %+v", f)
	}
	if d := time.Since(asked); d < time.Second {
		t.Errorf("asked again after %v", d)
	}
	if n := r.metric("core_moves_asked_total/placement"); n != 2 {
		t.Errorf("asked %v times", n)
	}
}

func TestOlderPlacementIsIgnoredAndReturnCancels(t *testing.T) {
	r := newRig(t, func(c *session.Config) { c.MoveGrace = time.Second })
	moved := group.Group{Color: 7, Env: "prod", Tenant: "public"}.ID()
	c := r.open("color=00000007")
	r.hub.Place(place(5, nil))
	r.hub.Place(place(4, map[group.ID]string{moved: "isolated"}))
	r.hub.Place(place(6, map[group.ID]string{moved: "isolated"}))
	r.hub.Place(place(7, nil)) // released before the client has moved
	if f := c.next(); f.Reconnect == nil {
		t.Fatalf("got %+v", f)
	}
	deadline := time.Now().Add(2 * time.Second) // well past the grace
	for time.Now().Before(deadline) {
		id := c.write(protocol.Command{Ping: &protocol.Ping{}})
		if f := c.next(); f.ID != id {
			t.Fatalf("got %+v", f)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if n := r.metric("core_moves_asked_total/placement"); n != 1 {
		t.Errorf("asked %v times", n)
	}
}

func TestDrain(t *testing.T) {
	r := newRig(t, nil)
	leaves, stays := r.open("user=a"), r.open("user=b")
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.hub.Drain(context.Background(), 50*time.Millisecond, 400*time.Millisecond)
	}()
	for _, c := range []*client{leaves, stays} {
		if f := c.next(); f.Reconnect == nil || f.Reconnect.Reason != "shutdown" {
			t.Fatalf("got %+v", f)
		}
	}
	if _, resp, err := r.dial("user=c", nil); err == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a new connection while draining: %v", err)
	}
	_ = leaves.ws.Close()
	if code := stays.closeCode(); code != protocol.CloseShutdown {
		t.Errorf("closed with %d", code)
	}
	<-done
}

func TestSubscriptionsFollowConnections(t *testing.T) {
	r := newRig(t, nil)
	count := func() int {
		r.subs.mu.Lock()
		defer r.subs.mu.Unlock()
		return r.subs.users["id-ann"]
	}
	one, two := r.open(""), r.open("")
	if n := count(); n != 1 {
		t.Errorf("%d subscriptions for two connections", n)
	}
	_ = one.ws.Close()
	r.eventually("one is gone", func() bool { return r.hub.Sockets() == 1 })
	if n := count(); n != 1 {
		t.Errorf("%d subscriptions for one connection", n)
	}
	_ = two.ws.Close()
	r.eventually("both are gone", func() bool { return r.hub.Sockets() == 0 && count() == 0 })
}

// TestNothingIsLeftBehind: no goroutine outlives the hub.
func TestNothingIsLeftBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	r := newRig(t, nil)
	for i := range 50 {
		c := r.open(fmt.Sprintf("user=u%d", i))
		c.write(protocol.Command{Ping: &protocol.Ping{}})
		if i%2 == 0 {
			_ = c.ws.Close()
		} else {
			go func() {
				for {
					if _, _, err := c.ws.NextReader(); err != nil {
						_ = c.ws.Close()
						return
					}
				}
			}()
		}
	}
	r.stop()
	if n := r.hub.Sockets(); n != 0 {
		t.Errorf("%d connections after the end", n)
	}
	r.eventually("goroutines are gone", func() bool { return runtime.NumGoroutine() <= before+2 })
}

func TestEveryCloseCodeHasItsCounter(t *testing.T) {
	r := newRig(t, nil)
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, f := range families {
		if f.GetName() == "core_sockets_closed_total" {
			for _, m := range f.GetMetric() {
				have[m.GetLabel()[0].GetValue()] = true
			}
		}
	}
	for _, reason := range []string{"client", "lost", "too_large", "write", "shutdown", "slow", "moved", "stale", "expired", "protocol", "not_utf8"} {
		if !have[reason] {
			t.Errorf("no counter for %s", reason)
		}
	}
}
