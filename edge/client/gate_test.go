package client_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tracegate/tracegate/mesh/freeport"
)

// gate is a TCP proxy whose open connections can be frozen: they stay open and
// nothing comes through any more. New ones work.
type gate struct {
	l     net.Listener
	bytes atomic.Int64
	mu    sync.Mutex
	stop  []*atomic.Bool
	conns []net.Conn
}

func newGate(t *testing.T, target string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", freeport.ForTest(t))
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{l: l}
	t.Cleanup(func() {
		l.Close()
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, c := range g.conns {
			c.Close()
		}
	})
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				in.Close()
				continue
			}
			frozen := new(atomic.Bool)
			g.mu.Lock()
			g.stop = append(g.stop, frozen)
			g.conns = append(g.conns, in, out)
			g.mu.Unlock()
			go g.pass(out, in, frozen)
			go g.pass(in, out, frozen)
		}
	}()
	return g
}

func (g *gate) pass(to, from net.Conn, frozen *atomic.Bool) {
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			if !frozen.Load() {
				to.Close()
			}
			return
		}
		if frozen.Load() {
			_, _ = io.Copy(io.Discard, from)
			return
		}
		g.bytes.Add(int64(n))
		if _, err := to.Write(buf[:n]); err != nil {
			from.Close()
			return
		}
	}
}

func (g *gate) addr() string { return g.l.Addr().String() }

func (g *gate) passed() int64 { return g.bytes.Load() }

func (g *gate) freeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range g.stop {
		f.Store(true)
	}
}
