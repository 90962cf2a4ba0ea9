package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
)

const response = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"ok\":true}"

// upstream answers every request with the same bytes. It understands no more of
// HTTP than that a request without a body ends with an empty line.
type upstream struct {
	l    net.Listener
	mu   sync.Mutex
	open map[net.Conn]bool
	// last keeps the latest request while spying.
	spying atomic.Bool
	last   atomic.Pointer[[]byte]
}

func listen() (*upstream, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	u := &upstream{l: l, open: map[net.Conn]bool{}}
	go u.accept()
	return u, nil
}

func (u *upstream) addr() string { return u.l.Addr().String() }

func (u *upstream) close() {
	_ = u.l.Close()
	u.mu.Lock()
	defer u.mu.Unlock()
	for c := range u.open {
		_ = c.Close()
	}
}

func (u *upstream) accept() {
	for {
		c, err := u.l.Accept()
		if err != nil {
			return // closed
		}
		u.mu.Lock()
		u.open[c] = true
		u.mu.Unlock()
		go u.serve(c)
	}
}

func (u *upstream) serve(c net.Conn) {
	defer c.Close()
	answer := []byte(response)
	buf := make([]byte, 64<<10)
	for n := 0; ; {
		m, err := c.Read(buf[n:])
		if err != nil {
			return
		}
		n += m
		if !bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
			continue
		}
		if u.spying.Load() {
			seen := bytes.Clone(buf[:n])
			u.last.Store(&seen)
		}
		n = 0
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// spy returns the request that reaches the upstream while send runs.
func (u *upstream) spy(send func() error) (string, error) {
	u.last.Store(nil)
	u.spying.Store(true)
	defer u.spying.Store(false)
	if err := send(); err != nil {
		return "", err
	}
	if seen := u.last.Load(); seen != nil {
		return string(*seen), nil
	}
	return "", errors.New("no request reached the upstream")
}
