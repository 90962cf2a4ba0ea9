package source

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// redial is the least time between two connections to an address. The first follows at
	// once upon the end of one that lasted.
	redial = 100 * time.Millisecond
	// maxListened bounds how many addresses are watched, a connection each.
	maxListened = 1024
)

// listeners watches whether somebody listens at addresses, by a connection to each that
// carries nothing: the kernel of a process that is killed ends it at once. Who then
// refuses two more is gone. Nothing else counts: neither time that passes, nor an address
// that was never reached from here, which edges may well reach.
type listeners struct {
	dial func(ctx context.Context, addr string) (net.Conn, error)
	said chan listening
	all  map[string]listener // by address
	work sync.WaitGroup
	made int
}

// listener is one that is watched.
type listener struct {
	number int
	stop   context.CancelFunc
}

// listening is whether somebody listens, where that has changed.
type listening struct {
	addr   string
	number int
	gone   bool
}

func newListeners(dial func(ctx context.Context, addr string) (net.Conn, error)) *listeners {
	return &listeners{dial: dial, said: make(chan listening), all: map[string]listener{}}
}

// watch watches these addresses and no others, until ctx is done. It says how many were
// too many.
func (l *listeners) watch(ctx context.Context, addrs map[string]bool) (over int) {
	for addr, w := range l.all {
		if !addrs[addr] {
			w.stop()
			delete(l.all, addr)
		}
	}
	for addr := range addrs {
		if _, ok := l.all[addr]; ok {
			continue
		}
		if len(l.all) >= maxListened {
			over++
			continue
		}
		l.made++
		number := l.made
		ctx, stop := context.WithCancel(ctx)
		l.all[addr] = listener{number, stop}
		l.work.Go(func() {
			follow(ctx, redial, func(ctx context.Context) (net.Conn, error) { return l.dial(ctx, addr) }, func(gone bool) {
				select {
				case l.said <- listening{addr, number, gone}:
				case <-ctx.Done():
				}
			})
		})
	}
	return over
}

// current says whether what was said is of who is watched now.
func (l *listeners) current(s listening) bool { return l.all[s.addr].number == s.number }

// follow says when somebody who was reached has gone, and when somebody is there again,
// until ctx is done.
func follow(ctx context.Context, pause time.Duration, dial func(context.Context) (net.Conn, error), say func(gone bool)) {
	reached, refused, gone := false, 0, false
	for ctx.Err() == nil {
		begun := time.Now()
		conn, err := dial(ctx)
		switch {
		case err == nil:
			reached, refused = true, 0
			if gone {
				gone = false
				say(false)
			}
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			_, _ = io.Copy(io.Discard, conn) // until it ends; servers close what says nothing, after a while
			stop()
			conn.Close()
		case errors.Is(err, syscall.ECONNREFUSED) && reached:
			if refused++; refused == 2 {
				gone = true
				say(true)
			}
		}
		select {
		case <-time.After(pause - time.Since(begun)):
		case <-ctx.Done():
		}
	}
}
