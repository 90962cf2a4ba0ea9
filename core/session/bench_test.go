package session_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/protocol/wire"
	"github.com/tracegate/tracegate/core/session"
)

// usual is a message as people write them.
func usual() protocol.Message {
	return protocol.Message{Conversation: "a", Seq: 1, ClientID: "m", Sender: "bob", Text: "a message of a usual length, as people write them"}
}

// BenchmarkCommand is a frame on its way in: it is read, decoded, handled, and answered. The
// client allocates nothing.
func BenchmarkCommand(b *testing.B) {
	cmd := protocol.Command{ID: 7, Send: &protocol.Send{Conversation: "a", ClientID: "m", Text: usual().Text}}
	for _, binary := range []bool{false, true} {
		name, sent := "json", frame(fin|opText, `{"id":7,"send":{"conversation":"a","client_id":"m","text":"`+cmd.Send.Text+`"}}`)
		if binary {
			name, sent = "protobuf", frame(fin|opBinary, string(wire.AppendCommand(nil, cmd)))
		}
		b.Run(name, func(b *testing.B) {
			r := newRig(b, func(c *session.Config) { c.CommandRate, c.CommandBurst = 1e9, 1e9 })
			c := rawSocket(b, r.server.Listener.Addr().String(), "ann", binary)
			b.Cleanup(func() { _ = c.Close() })
			in := bufio.NewReader(c)
			for range 2 { // the Hello, and what came of the resume
				skipFrame(b, in)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(sent); err != nil {
					b.Fatal(err)
				}
				skipFrame(b, in)
			}
			b.StopTimer()
			r.eventually("all are handled", func() bool { return r.metric("core_commands_total/send") >= float64(b.N) })
		})
	}
}

// skipFrame reads a short frame of a server.
func skipFrame(b *testing.B, in *bufio.Reader) {
	b.Helper()
	head, err := in.Peek(4)
	if err != nil {
		b.Fatal(err)
	}
	size := 2 + int(head[1])
	if head[1] == 126 {
		size = 4 + int(binary.BigEndian.Uint16(head[2:]))
	}
	if _, err := in.Discard(size); err != nil {
		b.Fatal(err)
	}
}

// listeners are clients that count the bytes they get.
type listeners struct{ got atomic.Int64 }

func (l *listeners) listen(c io.Reader) {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		l.got.Add(int64(n))
	}
}

// wait until no more than a megabyte is under way.
func (l *listeners) wait(sent int64) {
	for sent-l.got.Load() > 1<<20 {
		runtime.Gosched()
	}
}

// BenchmarkFanOut pushes a message to 100 connections, of a room of as many members and of
// one of 50,000; and to as many of gorilla's connections by its PreparedMessage, one after the
// other, which keeps no order of its own and waits for the slowest.
func BenchmarkFanOut(b *testing.B) {
	const connections = 100
	push := frameOf(usual())
	size := int64(connections * (len(push) + 4))
	for _, members := range []int{connections, 50_000} {
		b.Run(fmt.Sprintf("ours/members=%d", members), func(b *testing.B) {
			r := newRig(b, func(c *session.Config) { c.QueueFrames, c.QueueBytes = 1<<20, 1<<30 })
			var l listeners
			for i := range connections {
				c := rawSocket(b, r.server.Listener.Addr().String(), fmt.Sprint("u", i), false)
				b.Cleanup(func() { _ = c.Close() })
				go l.listen(c)
			}
			r.eventually("all are live", func() bool { return r.metric("core_catch_ups_total/resume") >= connections })
			list := make([]chat.Member, members)
			for i := range list {
				list[i].ID = fmt.Sprint("id-u", i)
			}
			roster := chat.NewRoster(true, 1, list)
			before, seq := l.got.Load(), int64(0)
			b.ReportAllocs()
			for b.Loop() {
				seq++
				r.hub.DeliverAll(roster, "a", seq, push)
				l.wait(before + seq*size)
			}
			b.StopTimer()
			r.eventually("all are pushed", func() bool { return r.metric("core_messages_pushed_total") >= float64(seq*connections) })
		})
	}
	b.Run("gorilla", func(b *testing.B) {
		var l listeners
		ready := make(chan *websocket.Conn, connections)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := new(websocket.Upgrader).Upgrade(w, r, nil)
			if err != nil {
				b.Error(err)
			}
			ready <- c
		}))
		b.Cleanup(server.Close)
		var to []*websocket.Conn
		for range connections {
			c := rawSocket(b, server.Listener.Addr().String(), "u", false)
			b.Cleanup(func() { _ = c.Close() })
			go l.listen(c)
			to = append(to, <-ready)
		}
		b.ReportAllocs()
		for b.Loop() {
			m, err := websocket.NewPreparedMessage(websocket.TextMessage, push)
			if err != nil {
				b.Fatal(err)
			}
			for _, c := range to {
				if err := c.WritePreparedMessage(m); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// BenchmarkDeliver pushes messages to one connection that reads them.
func BenchmarkDeliver(b *testing.B) {
	r := newRig(b, func(c *session.Config) { c.QueueFrames, c.QueueBytes = 1<<20, 1<<30 })
	c := r.open("")
	c.resume(nil)
	r.eventually("live", func() bool {
		m := r.history.add("warm", "x")
		r.hub.Deliver("id-ann", "warm", m.Seq, frameOf(m))
		return r.metric("core_messages_pushed_total") > 0
	})
	go func() {
		for {
			if _, _, err := c.ws.NextReader(); err != nil {
				return
			}
		}
	}()
	frame := frameOf(usual())
	b.ReportAllocs()
	b.SetBytes(int64(len(frame)))
	seq := int64(0)
	for b.Loop() {
		seq++
		r.hub.Deliver("id-ann", "a", seq, frame)
	}
}

// BenchmarkIdleConnection says what an idle, resumed connection costs the server: heap
// and stacks, the buffers of the kernel not included.
func BenchmarkIdleConnection(b *testing.B) {
	r := newRig(b, nil)
	addr := r.server.Listener.Addr().String()
	memory := func() (heap, stack float64) {
		for range 3 { // stacks shrink by half each time
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc), float64(m.StackInuse)
	}
	conns := make([]net.Conn, 0, b.N)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	heap, stack := memory()
	for i := range b.N {
		conns = append(conns, rawSocket(b, addr, fmt.Sprint("u", i), false))
	}
	b.StopTimer()
	r.eventually("all are live", func() bool { return r.metric("core_catch_ups_total/resume") >= float64(b.N) })
	heapNow, stackNow := memory()
	b.ReportMetric((heapNow-heap)/float64(b.N), "heap-B/conn")
	b.ReportMetric((stackNow-stack)/float64(b.N), "stack-B/conn")
}

// rawSocket is the cheapest client: its costs must not hide the server's.
func rawSocket(b *testing.B, addr, user string, protobuf bool) net.Conn {
	b.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	offer, resume := "", frame(fin|opText, `{"id":1,"resume":{"epoch":"e1"}}`)
	if protobuf {
		offer = "Sec-WebSocket-Protocol: " + wire.Protobuf + "\r\n"
		resume = frame(fin|opBinary, string(wire.AppendCommand(nil, protocol.Command{ID: 1, Resume: &protocol.Resume{Epoch: "e1"}})))
	}
	fmt.Fprintf(c, "GET /?user=%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n", user, offer)
	var head []byte // to its end and no further: frames follow
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, one...) {
		if _, err := c.Read(one); err != nil {
			b.Fatal(err)
		}
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
		b.Fatalf("%s", head)
	}
	if _, err := c.Write(resume); err != nil {
		b.Fatal(err)
	}
	return c
}
