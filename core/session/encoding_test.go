package session_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/protocol/wire"
	"github.com/tracegate/tracegate/core/session"
)

// binary connects with protobuf.
func (r *rig) binary(query string) *websocket.Conn {
	r.t.Helper()
	d := websocket.Dialer{Subprotocols: []string{"something.else", wire.Protobuf}}
	ws, _, err := d.Dial("ws"+strings.TrimPrefix(r.server.URL, "http")+"/?"+query, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = ws.Close() })
	if ws.Subprotocol() != wire.Protobuf {
		r.t.Fatalf("subprotocol %q", ws.Subprotocol())
	}
	return ws
}

// nextBinary reads a message of one frame.
func nextBinary(ws *websocket.Conn) (protocol.Frame, error) {
	_ = ws.SetReadDeadline(time.Now().Add(time.Minute))
	kind, b, err := ws.ReadMessage()
	if err != nil {
		return protocol.Frame{}, err
	}
	f, rest, err := wire.NextFrame(b)
	if err == nil && (kind != websocket.BinaryMessage || len(rest) > 0) {
		err = errors.New("not one binary frame")
	}
	return f, err
}

// TestProtobufGetsWhatJSONGets, replayed and live, on connections side by side.
func TestProtobufGetsWhatJSONGets(t *testing.T) {
	r := newRig(t, nil)
	stored := r.history.add("a", "stored")
	text, ws, other := r.open(""), r.binary(""), r.binary("")
	for _, ws := range []*websocket.Conn{ws, other} {
		hello, err := nextBinary(ws)
		if err != nil || hello.Hello == nil || hello.Hello.User != "ann" {
			t.Fatalf("%+v %v", hello, err)
		}
		commands := wire.AppendCommand(nil, protocol.Command{ID: 1, Resume: &protocol.Resume{Epoch: "e1", Positions: map[string]int64{"a": 0}}})
		commands = wire.AppendCommand(commands, protocol.Command{ID: 2, Ping: &protocol.Ping{}})
		if err := ws.WriteMessage(websocket.BinaryMessage, commands); err != nil {
			t.Fatal(err)
		}
		got := map[string]protocol.Frame{}
		for len(got) < 3 {
			f, err := nextBinary(ws)
			switch {
			case err != nil:
				t.Fatal(err)
			case f.Message != nil:
				got["message"] = f
			case f.ID == 1 && f.Resumed != nil:
				got["resumed"] = f
			case f.ID == 2 && f.Pong != nil:
				got["pong"] = f
			default:
				t.Fatalf("got %+v", f)
			}
		}
		if !cmp.Equal(*got["message"].Message, stored) || !got["resumed"].Resumed.Recovered || got["resumed"].Resumed.Replayed != 1 {
			t.Errorf("got %+v", got)
		}
	}
	text.resume(map[string]int64{"a": 1})
	live := r.history.add("a", "live")
	r.hub.Deliver("id-ann", "a", live.Seq, frameOf(live))
	want := text.next().Message
	for _, ws := range []*websocket.Conn{ws, other} {
		f, err := nextBinary(ws)
		if err != nil || f.Message == nil || want == nil || !cmp.Equal(f.Message, want) || f.ID != 0 {
			t.Errorf("protobuf %+v, JSON %+v, %v", f.Message, want, err)
		}
	}
}

// TestCommandsOfOneMessage: a text may hold several, one a line.
func TestCommandsOfOneMessage(t *testing.T) {
	c := newRig(t, nil).open("")
	if err := c.ws.WriteMessage(websocket.TextMessage, []byte("{\"id\":1,\"ping\":{}}\n{\"id\":2,\"ping\":{}}\n")); err != nil {
		t.Fatal(err)
	}
	for id := uint32(1); id <= 2; id++ {
		if f := c.next(); f.ID != id || f.Pong == nil {
			t.Errorf("got %+v", f)
		}
	}
}

// TestDepthOfText: brackets that are said in a text are not counted, and others are before
// anything of the message is handled.
func TestDepthOfText(t *testing.T) {
	c := newRig(t, nil).open("")
	id := c.write(protocol.Command{Send: &protocol.Send{Conversation: "a", ClientID: "1", Text: strings.Repeat("[{", 100)}})
	if f := c.next(); f.ID != id || f.Accepted == nil {
		t.Errorf("got %+v", f)
	}
	if err := c.ws.WriteMessage(websocket.TextMessage, []byte(`{"id":9,"ping":{}}{"id":10,"ping":`+strings.Repeat("[", 16)+strings.Repeat("]", 16)+"}")); err != nil {
		t.Fatal(err)
	}
	if f := c.next(); f.ID != 0 || f.Error == nil || f.Error.Field != "frame" || !strings.Contains(f.Error.Message, "more than 16 ") {
		t.Errorf("got %+v", f)
	}
}

// TestBadProtobufClosesOneConnectionOnly, with what JSON is closed with; what came before
// a mistake is answered.
func TestBadProtobufClosesOneConnectionOnly(t *testing.T) {
	r := newRig(t, nil)
	ping := func(id uint32) []byte {
		return wire.AppendCommand(nil, protocol.Command{ID: id, Ping: &protocol.Ping{}})
	}
	for name, c := range map[string]struct {
		kind  int
		bytes []byte
		pongs int
		code  int
	}{
		"nothing":            {websocket.BinaryMessage, nil, 0, protocol.CloseProtocol},
		"text":               {websocket.TextMessage, []byte(`{"id":1,"ping":{}}`), 0, protocol.CloseProtocol},
		"JSON":               {websocket.BinaryMessage, []byte(`{"id":1,"ping":{}}`), 0, protocol.CloseProtocol},
		"cut":                {websocket.BinaryMessage, ping(1)[:3], 0, protocol.CloseProtocol},
		"one and half a one": {websocket.BinaryMessage, append(ping(1), 9), 1, protocol.CloseProtocol},
		"no id":              {websocket.BinaryMessage, append(ping(1), ping(0)...), 1, protocol.CloseProtocol},
		"a field too many":   {websocket.BinaryMessage, []byte{4, 8, 1, 0x78, 1}, 0, protocol.CloseProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			ws := r.binary("")
			if err := ws.WriteMessage(c.kind, c.bytes); err != nil {
				t.Fatal(err)
			}
			pongs := 0
			for {
				f, err := nextBinary(ws)
				if closed, ok := errors.AsType[*websocket.CloseError](err); ok {
					if closed.Code != c.code || pongs != c.pongs {
						t.Errorf("closed with %d after %d pongs", closed.Code, pongs)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if f.Pong != nil {
					pongs++
				}
			}
		})
	}
}

// TestCommandWithoutOperation is answered, by both encodings.
func TestCommandWithoutOperation(t *testing.T) {
	r := newRig(t, nil)
	ws := r.binary("")
	if err := ws.WriteMessage(websocket.BinaryMessage, wire.AppendCommand(nil, protocol.Command{ID: 7})); err != nil {
		t.Fatal(err)
	}
	_, _ = nextBinary(ws) // hello
	if f, err := nextBinary(ws); err != nil || f.ID != 7 || f.Error == nil || f.Error.Code != protocol.CodeInvalidArgument {
		t.Errorf("%+v %v", f, err)
	}
}

// FuzzProtobufCommand gives any bytes to a connection: it answers or closes with a code.
func FuzzProtobufCommand(f *testing.F) {
	for _, c := range []protocol.Command{
		{ID: 1, Ping: &protocol.Ping{}}, {ID: 2, Send: &protocol.Send{Conversation: "a", ClientID: "1", Text: "x"}},
		{ID: 3, Resume: &protocol.Resume{Epoch: "e1", Positions: map[string]int64{"a": -1}}}, {ID: 4, Mark: &protocol.Mark{Conversation: "a", Read: 1 << 62}},
	} {
		f.Add(wire.AppendCommand(nil, c))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ws := newRig(t, nil).binary("")
		if ws.WriteMessage(websocket.BinaryMessage, b) != nil {
			return
		}
		if _, err := nextBinary(ws); err != nil { // the hello
			t.Fatal(err)
		}
		if _, err := nextBinary(ws); err != nil && websocket.IsUnexpectedCloseError(err, protocol.CloseProtocol, websocket.CloseMessageTooBig) {
			t.Errorf("%x: %v", b, err)
		}
	})
}

// channelStream is a stream whose reader may stop reading.
type channelStream struct {
	frames chan protocol.Frame
	cut    chan struct{}
	once   sync.Once
}

func newChannelStream() *channelStream {
	return &channelStream{frames: make(chan protocol.Frame), cut: make(chan struct{})}
}

func (s *channelStream) Send(b []byte) error {
	f, _, err := wire.NextFrame(b)
	if err != nil {
		return err
	}
	select {
	case s.frames <- f:
		return nil
	case <-s.cut:
		return errors.New("cut")
	}
}

func (s *channelStream) Cut() { s.once.Do(func() { close(s.cut) }) }

// subscribe returns the stream and what Subscribe will answer.
func (r *rig) subscribe(ctx context.Context) (*channelStream, <-chan error) {
	to, done := newChannelStream(), make(chan error, 1)
	go func() {
		done <- r.hub.Subscribe(ctx, session.Who{User: chat.User{ID: "id-ann", Name: "ann"}, Expires: r.expires}, protocol.Resume{Epoch: "e1"}, to)
	}()
	return to, done
}

func codeOf(err error) protocol.Code {
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		return e.Code
	}
	return ""
}

// TestSlowSubscriberIsEnded, and does not hold up anybody: its queue is bounded.
func TestSlowSubscriberIsEnded(t *testing.T) {
	r := newRig(t, func(c *session.Config) { c.QueueFrames = 8 })
	to, done := r.subscribe(t.Context())
	for {
		if f := <-to.frames; f.Resumed != nil {
			break
		}
	}
	r.eventually("ended", func() bool { // it goes live at some time, and reads nothing more
		m := r.history.add("a", "x")
		r.hub.Deliver("id-ann", "a", m.Seq, frameOf(m))
		select {
		case err := <-done:
			if codeOf(err) != protocol.CodeUnavailable || !strings.Contains(err.Error(), "slow") {
				t.Errorf("ended with %v", err)
			}
			return true
		default:
			return false
		}
	})
	if r.metric("core_sockets_closed_total/slow") != 1 || r.hub.Sockets() != 0 {
		t.Errorf("closed %v, %d left", r.metric("core_sockets_closed_total/slow"), r.hub.Sockets())
	}
}

func TestSubscriptionEnds(t *testing.T) {
	t.Run("with its client", func(t *testing.T) {
		r := newRig(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		to, done := r.subscribe(ctx)
		<-to.frames
		cancel()
		to.Cut() // as HTTP/2 does
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		r.eventually("nobody is left", func() bool { return r.hub.Sockets() == 0 })
	})
	t.Run("with its session", func(t *testing.T) {
		r := newRig(t, nil)
		r.expires = time.Now().Add(time.Second)
		to, done := r.subscribe(t.Context())
		go func() {
			for range to.frames { // reads on
			}
		}()
		if err := <-done; codeOf(err) != protocol.CodeUnauthenticated {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("with its process", func(t *testing.T) {
		r := newRig(t, nil)
		to, done := r.subscribe(t.Context())
		<-to.frames
		<-to.frames
		r.stop()
		if err := <-done; codeOf(err) != protocol.CodeUnavailable {
			t.Errorf("ended with %v", err)
		}
	})
}

// TestIdleSubscriptionHasASignOfLife, so that no proxy takes it for dead.
func TestIdleSubscriptionHasASignOfLife(t *testing.T) {
	r := newRig(t, func(c *session.Config) { c.PingEvery, c.StaleAfter = 100*time.Millisecond, time.Minute })
	to, _ := r.subscribe(t.Context())
	for {
		if f := <-to.frames; f.Pong != nil && f.ID == 0 {
			return
		}
	}
}
