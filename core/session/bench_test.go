package session_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"testing"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/session"
)

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
	frame := frameOf(protocol.Message{Conversation: "a", Seq: 1, ClientID: "m", Sender: "bob", Text: "a message of a usual length, as people write them"})
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
		conns = append(conns, rawSocket(b, addr, i))
	}
	b.StopTimer()
	r.eventually("all are live", func() bool { return r.metric("core_catch_ups_total/resume") >= float64(b.N) })
	heapNow, stackNow := memory()
	b.ReportMetric((heapNow-heap)/float64(b.N), "heap-B/conn")
	b.ReportMetric((stackNow-stack)/float64(b.N), "stack-B/conn")
}

// rawSocket is the cheapest client: its costs must not hide the server's.
func rawSocket(b *testing.B, addr string, i int) net.Conn {
	b.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	fmt.Fprintf(c, "GET /?user=u%d HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", i)
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 16), nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		b.Fatal(err, resp)
	}
	text := []byte(`{"id":1,"resume":{"epoch":"e1"}}`)
	frame := append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)
	if _, err := c.Write(frame); err != nil {
		b.Fatal(err)
	}
	return c
}
