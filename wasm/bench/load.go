package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// request is what a browser behind a traced client sends: enough headers to be true
// to life, and work for every step of the filter.
const request = "GET /v1/me HTTP/1.1\r\n" +
	"host: search.example.com\r\n" +
	"user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36\r\n" +
	"accept: application/json\r\n" +
	"accept-language: en-US,en;q=0.9\r\n" +
	"accept-encoding: gzip, deflate, br\r\n" +
	"cookie: theme=dark; env=stable; sid=0123456789abcdef\r\n" +
	"x-env: canary\r\n" +
	"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n" +
	"baggage: user.kind=free\r\n" +
	"\r\n"

// clients are keep-alive connections that send one request after the other.
type clients struct {
	conns []net.Conn
	bufs  [][]byte
}

func dial(addr string, n int) (*clients, error) {
	c := &clients{}
	for range n {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			c.close()
			return nil, fmt.Errorf("connect to envoy: %w", err)
		}
		c.conns = append(c.conns, conn)
		c.bufs = append(c.bufs, make([]byte, 8<<10))
	}
	return c, nil
}

func (c *clients) close() {
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

// run sends requests for a time and returns how many were answered, and in which
// time exactly.
func (c *clients) run(ctx context.Context, d time.Duration) (n int64, took time.Duration, err error) {
	var total atomic.Int64
	start := time.Now()
	stop := start.Add(d)
	g, ctx := errgroup.WithContext(ctx)
	for i, conn := range c.conns {
		g.Go(func() error {
			sent, err := exchange(ctx, conn, c.bufs[i], stop)
			total.Add(sent)
			return err
		})
	}
	err = g.Wait()
	return total.Load(), time.Since(start), err
}

func exchange(ctx context.Context, conn net.Conn, buf []byte, stop time.Time) (n int64, err error) {
	if err := conn.SetDeadline(stop.Add(30 * time.Second)); err != nil {
		return 0, err
	}
	const look = 8 // at the clock after so many requests
	for ; n%look != 0 || time.Now().Before(stop) && ctx.Err() == nil; n++ {
		if err := one(conn, buf); err != nil {
			return n, err
		}
	}
	return n, ctx.Err()
}

var (
	okStatus = []byte("HTTP/1.1 200 ")
	okBody   = []byte(`{"ok":true}`)
)

func one(conn net.Conn, buf []byte) error {
	if _, err := conn.Write([]byte(request)); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	for n := 0; ; {
		m, err := conn.Read(buf[n:])
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		n += m
		if n >= len(okStatus) && !bytes.HasPrefix(buf[:n], okStatus) {
			return fmt.Errorf("response %q", buf[:min(n, 80)])
		}
		if bytes.HasSuffix(buf[:n], okBody) {
			return nil
		}
		if n == len(buf) {
			return errors.New("response is too long")
		}
	}
}
