// Package netfault is a TCP proxy on loopback that can be told to behave like a bad
// network: cut, silent or slow. The load lab puts one before each engine.
//
// What has been read from one side is always written to the other or the connection is
// reset: a stream never goes on with bytes missing, which TCP would not do either.
//
// A library (Shopify/toxiproxy) lost: it is a server with an HTTP interface, a router and
// a logger of its own, for what is one value here.
package netfault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Mode is what the network does.
type Mode int

// The modes.
const (
	Good   Mode = iota
	Cut         // connections are reset, new ones at once
	Silent      // nothing passes and nobody is told; what waits passes when it is over
	Slow        // everything is late by Delay
)

// State is a mode with what belongs to it.
type State struct {
	Mode  Mode
	Delay time.Duration // of each piece, in each direction, where Slow
}

// piece is how much is read at once, and so what a delay is counted for.
const piece = 32 << 10

// Proxy passes connections on to Target. Run it; Set may be called at any time.
type Proxy struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	state   State
	changed chan struct{} // closed and replaced by Set
	conns   map[net.Conn]struct{}
}

// Listen takes an address, a port of 0 for any, and does not accept yet.
func Listen(ctx context.Context, address, target string) (*Proxy, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for a proxy of %s: %w", target, err)
	}
	return &Proxy{listener: l, target: target, changed: make(chan struct{}), conns: map[net.Conn]struct{}{}}, nil
}

// Addr is where it listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Set changes what the network does from now on.
func (p *Proxy) Set(s State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = s
	close(p.changed)
	p.changed = make(chan struct{})
	if s.Mode == Cut {
		for c := range p.conns {
			reset(c)
		}
	}
}

// Run passes connections on until ctx is done, then resets those that are left.
func (p *Proxy) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() {
		p.Set(State{Mode: Cut})
		_ = p.listener.Close() // Accept says so
	})
	defer stop()
	for {
		c, err := p.listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				reset(c)
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept for %s: %w", p.target, err)
		}
		if err != nil {
			continue // the peer has gone already
		}
		wg.Go(func() { p.pass(ctx, c) })
	}
}

// reset closes a connection so that its peer gets an error and not an end.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// pass joins a connection with one to the target.
func (p *Proxy) pass(ctx context.Context, down net.Conn) {
	defer reset(down)
	if !p.hold(ctx, down) {
		return
	}
	defer p.release(down)
	if !p.wait(ctx) { // of a silent network not even a handshake comes back
		return
	}
	dial := net.Dialer{Timeout: 5 * time.Second}
	up, err := dial.DialContext(ctx, "tcp", p.target)
	if err != nil {
		return
	}
	defer reset(up)
	if !p.hold(ctx, up) {
		return
	}
	defer p.release(up)
	var wg sync.WaitGroup
	both := func(to, from net.Conn) {
		if p.copy(ctx, to, from) != nil {
			reset(to)
			reset(from)
			return
		}
		if tcp, ok := to.(*net.TCPConn); ok {
			_ = tcp.CloseWrite() // an orderly end is passed on as one
		}
	}
	wg.Go(func() { both(up, down) })
	both(down, up)
	wg.Wait()
}

// hold makes a connection one that a cut resets; false where it is cut now.
func (p *Proxy) hold(ctx context.Context, c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.Mode == Cut || ctx.Err() != nil {
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) release(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// copy passes one direction on.
func (p *Proxy) copy(ctx context.Context, to io.Writer, from io.Reader) error {
	b := make([]byte, piece)
	for {
		n, err := from.Read(b)
		if n > 0 {
			if !p.wait(ctx) {
				return net.ErrClosed
			}
			if _, err := to.Write(b[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// wait lets a piece pass when the network does; false where it is cut instead.
func (p *Proxy) wait(ctx context.Context) bool {
	late := false
	for {
		p.mu.Lock()
		s, changed := p.state, p.changed
		p.mu.Unlock()
		var timer <-chan time.Time
		switch {
		case s.Mode == Cut || ctx.Err() != nil:
			return false
		case s.Mode == Good || s.Mode == Slow && late:
			return true
		case s.Mode == Slow:
			timer = time.After(s.Delay)
		}
		select {
		case <-timer:
			late = true
		case <-changed:
		case <-ctx.Done():
		}
	}
}
