package load

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"time"
)

// acceptEvery is how often a slow dependency takes a connection, and slowBacklog how
// many wait meanwhile. The kernel drops further SYNs, and their clients try again after
// a second: the connect is slow, and nothing else is.
const (
	acceptEvery = 100 * time.Millisecond
	slowBacklog = 1
)

// slowDependency listens on loopback and takes connections slowly until stop, which
// waits for its end.
func slowDependency() (addr string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("start slow dependency: %w", err)
	}
	if err := shorten(l, slowBacklog); err != nil {
		l.Close()
		return "", nil, fmt.Errorf("start slow dependency: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer l.Close()
		tick := time.NewTicker(acceptEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(acceptEvery)) // fails only with Accept
			if conn, err := l.Accept(); err == nil {
				conn.Close()
			}
		}
	}()
	return l.Addr().String(), func() {
		cancel()
		<-done
	}, nil
}

// shorten sets the accept queue of a socket that listens already, as listen(2) allows.
func shorten(l net.Listener, backlog int) error {
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = syscall.Listen(int(fd), backlog) }); err != nil {
		return err
	}
	return failed
}
