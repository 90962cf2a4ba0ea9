package netfault_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/tracegate/tracegate/edge/load/netfault"
)

// echo answers with what it gets.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	return l.Addr().String()
}

func start(t *testing.T) *netfault.Proxy {
	t.Helper()
	p, err := netfault.Listen(t.Context(), "127.0.0.1:0", echo(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

func dial(t *testing.T, p *netfault.Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// say sends a text and reads as much, within a time.
func say(c net.Conn, text string, within time.Duration) (string, error) {
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	return hear(c, len(text), within)
}

func hear(c net.Conn, n int, within time.Duration) (string, error) {
	_ = c.SetReadDeadline(time.Now().Add(within))
	b := make([]byte, n)
	n, err := io.ReadFull(c, b)
	return string(b[:n]), err
}

func TestNothingIsLostInSilence(t *testing.T) {
	p := start(t)
	c := dial(t, p)
	if got, err := say(c, "one", time.Minute); err != nil || got != "one" {
		t.Fatalf("%q %v", got, err)
	}
	p.Set(netfault.State{Mode: netfault.Silent})
	if got, err := say(c, "two", 50*time.Millisecond); err == nil || got != "" {
		t.Fatalf("%q came through silence, %v", got, err)
	}
	second := dial(t, p)
	if got, err := say(second, "new", 50*time.Millisecond); err == nil || got != "" {
		t.Fatalf("%q came through silence, %v", got, err)
	}
	p.Set(netfault.State{})
	for conn, want := range map[net.Conn]string{c: "two", second: "new"} {
		if got, err := hear(conn, 3, time.Minute); err != nil || got != want {
			t.Errorf("%q %v, want %q", got, err, want)
		}
	}
}

func TestCutResets(t *testing.T) {
	p := start(t)
	c := dial(t, p)
	if _, err := say(c, "one", time.Minute); err != nil {
		t.Fatal(err)
	}
	p.Set(netfault.State{Mode: netfault.Cut})
	if _, err := hear(c, 1, time.Minute); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a cut looks like an orderly end: %v", err)
	}
	if second, err := net.Dial("tcp", p.Addr()); err == nil { // else it was reset at once
		defer second.Close()
		if _, err := say(second, "new", time.Minute); err == nil {
			t.Error("a new connection passes a cut")
		}
	}
	p.Set(netfault.State{})
	if got, err := say(dial(t, p), "new", time.Minute); err != nil || got != "new" {
		t.Errorf("%q %v after the cut", got, err)
	}
}

func TestSlowIsLate(t *testing.T) {
	p := start(t)
	c := dial(t, p)
	const delay = 50 * time.Millisecond
	p.Set(netfault.State{Mode: netfault.Slow, Delay: delay})
	begin := time.Now()
	if got, err := say(c, "one", time.Minute); err != nil || got != "one" {
		t.Fatalf("%q %v", got, err)
	}
	if took := time.Since(begin); took < 2*delay {
		t.Errorf("there and back took %s", took)
	}
}

func TestOrderlyEndIsPassedOn(t *testing.T) {
	c := dial(t, start(t))
	if _, err := say(c, "one", time.Minute); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	if _, err := hear(c, 1, time.Minute); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the end", err)
	}
}
