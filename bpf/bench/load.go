//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// measure puts load on the server for one slice. Probes, if any, count with their own
// CPU time.
func measure(ctx context.Context, c config, server, probes *child) (sample, error) {
	cpu := func() (time.Duration, error) {
		sum, err := server.cpu()
		if err != nil || probes == nil {
			return sum, err
		}
		own, err := probes.cpu()
		return sum + own, err
	}
	before, err := cpu()
	if err != nil {
		return sample{}, err
	}
	begin := time.Now()
	requests, err := load(ctx, c, server)
	if err != nil {
		return sample{}, err
	}
	took := time.Since(begin)
	after, err := cpu()
	if err != nil {
		return sample{}, err
	}
	if requests == 0 {
		return sample{}, errors.New("no request was answered")
	}
	return sample{rate: float64(requests) / took.Seconds(), cpu: (after - before) / time.Duration(requests)}, nil
}

// load sends requests over keep-alive connections, the next when the last is answered
// (and due, if there is a rate), and returns how many were answered.
func load(ctx context.Context, c config, server *child) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, c.slice)
	defer cancel()
	var requests atomic.Int64
	errs := make(chan error, c.connections)
	var work sync.WaitGroup
	for i := range c.connections {
		work.Go(func() {
			if err := converse(ctx, c, server, i, &requests); err != nil {
				errs <- err
			}
		})
	}
	work.Wait()
	select {
	case err := <-errs:
		return 0, err
	default:
		return requests.Load(), nil
	}
}

// converse is one connection.
func converse(ctx context.Context, c config, server *child, number int, requests *atomic.Int64) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", server.addr)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	request := []byte("GET /v1/me HTTP/1.1\r\nHost: " + server.addr + "\r\nAuthorization: Bearer " + server.token + "\r\n\r\n")
	end := []byte("}\n") // of core's answers, which are JSON objects
	buf := make([]byte, 4096)
	var gap time.Duration
	if c.rate > 0 {
		gap = time.Second * time.Duration(c.connections) / time.Duration(c.rate)
	}
	due := time.Now().Add(gap * time.Duration(number) / time.Duration(c.connections))
	for ctx.Err() == nil {
		if wait := time.Until(due); gap > 0 && wait > 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(wait):
			}
		}
		due = due.Add(gap)
		if _, err := conn.Write(request); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		for n := 0; !bytes.HasSuffix(buf[:n], end); {
			m, err := conn.Read(buf[n:])
			if err != nil {
				return fmt.Errorf("receive: %w", err)
			}
			if n += m; n == len(buf) {
				return io.ErrShortBuffer
			}
		}
		if !bytes.HasPrefix(buf, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("core answers %.40q", buf)
		}
		requests.Add(1)
	}
	return nil
}
