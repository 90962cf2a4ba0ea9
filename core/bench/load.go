//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// load is the clients' side: connections that it keeps, and what it does with them.
type load struct {
	wire  wire
	conns []net.Conn
	pairs []*pair
}

const (
	dialers = 32 // connections that are opened, or pinged, at a time
	sources = 8  // loopback addresses that they come from
)

func runLoad(context.Context) error {
	if _, err := allowFiles(); err != nil {
		return err
	}
	var l load
	return obey("", orders{
		"open": order(l.open), "ping": order(l.ping), "close": order(l.close), "converse": order(l.converse),
		"meet": order(l.meet), "chat": order(l.chat),
	})
}

type openArgs struct {
	Server, Addr string
	Connections  int
	Net          int  // 127.0.Net.x are the clients' addresses
	Room         bool // all are in one conversation
}

// open opens sessions from several addresses, so that ports do not run out.
func (l *load) open(a openArgs) (struct{}, error) {
	s, err := serverNamed(a.Server)
	if err != nil {
		return struct{}{}, err
	}
	l.wire, l.conns = s.wire, make([]net.Conn, a.Connections)
	return struct{}{}, l.each(func(i int, r *bufio.Reader) error {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(a.Net), byte(1+i%sources))}, Timeout: 10 * time.Second}
		conn, err := l.wire.open(d, a.Addr, i, a.Room, r)
		l.conns[i] = conn
		return err
	})
}

// close resets all connections, which leaves no ports behind that wait.
func (l *load) close(struct{}) (struct{}, error) {
	return struct{}{}, l.each(func(i int, _ *bufio.Reader) error {
		if tcp, ok := l.conns[i].(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		return l.conns[i].Close()
	})
}

type pingArgs struct {
	PerSecond int
	For       time.Duration
}

// ping goes round all connections at a rate and returns how many have answered.
func (l *load) ping(a pingArgs) (answered int64, err error) {
	begin, sent, n := time.Now(), atomic.Int64{}, atomic.Int64{}
	for time.Since(begin) < a.For && err == nil {
		err = l.each(func(i int, r *bufio.Reader) error {
			due := begin.Add(time.Duration(sent.Add(1)) * time.Second / time.Duration(a.PerSecond))
			if due.Sub(begin) > a.For {
				return nil
			}
			if wait := time.Until(due); wait > 0 {
				<-time.After(wait)
			}
			if err := l.wire.ping(l.conns[i], r); err != nil {
				return fmt.Errorf("ping client %d: %w", i, err)
			}
			n.Add(1)
			return nil
		})
	}
	return n.Load(), err
}

// each calls f for all connections, some at a time, until one fails.
func (l *load) each(f func(i int, r *bufio.Reader) error) error {
	var next atomic.Int64
	var work sync.WaitGroup
	errs := make(chan error, dialers)
	for range dialers {
		work.Go(func() {
			r := bufio.NewReaderSize(nil, 4096)
			for i := int(next.Add(1) - 1); i < len(l.conns) && len(errs) == 0; i = int(next.Add(1) - 1) {
				if err := f(i, r); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	work.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}
