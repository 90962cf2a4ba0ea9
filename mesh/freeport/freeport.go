// Package freeport finds addresses for processes that are started next. It is a leaf.
//
// Whoever listens on port 0, closes and passes the number on, races with everybody whom the
// system gives that number in the meantime: each outgoing connection draws from the same
// range. So ports are drawn below that range, and held by name until the process ends, so
// that another process that draws here does not get them either. The alternative, to pass
// open listeners on, lost: Envoy, Redis, Kafka and Kubernetes take numbers.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"sync"
)

// Linux gives outgoing connections 32768 and above, macOS and Windows 49152 and above.
const (
	lowest  = 20_000
	highest = 32_767
	kept    = 256 // ports that are held at once; the oldest goes first
)

// On is an address of a host that nobody listens on, another one each time.
func On(host string) (addr string, err error) {
	port, err := Row(host, 1, 1)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}

// Row is the first of n free ports of a host that are step apart.
func Row(host string, n, step int) (first int, err error) {
	room := highest - (n-1)*step - lowest
	for range 1000 {
		first = lowest + rand.IntN(room)
		if ports.takeRow(host, first, n, step) {
			return first, nil
		}
	}
	return 0, fmt.Errorf("find %d free ports of %s: too many are taken", n, host)
}

// Tester is what [ForTest] needs of a testing.TB.
type Tester interface {
	Helper()
	Fatal(args ...any)
}

// ForTest is a free address of 127.0.0.1.
func ForTest(tb Tester) string {
	tb.Helper()
	addr, err := On("127.0.0.1")
	if err != nil {
		tb.Fatal(err)
	}
	return addr
}

// ports are those that this process has given out. What is held is held for the process,
// so there is one for all of it.
var ports = holder{held: map[int]net.Listener{}}

type holder struct {
	mu    sync.Mutex
	held  map[int]net.Listener // by port; nil where the system has no such names
	order []int                // oldest first
}

func (h *holder) takeRow(host string, first, n, step int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range n {
		if !h.take(host, first+i*step) {
			return false // those before it stay held: there are enough
		}
	}
	return true
}

func (h *holder) take(host string, port int) bool {
	if _, ok := h.held[port]; ok {
		return false
	}
	name, err := hold(port)
	if err != nil {
		return false
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		release(name)
		return false
	}
	_ = l.Close()
	h.held[port] = name
	if h.order = append(h.order, port); len(h.order) > kept {
		release(h.held[h.order[0]])
		delete(h.held, h.order[0])
		h.order = h.order[1:]
	}
	return true
}

// hold takes a name that one process at a time can have, and that the kernel gives back
// when it ends (unix(7), abstract socket addresses).
func hold(port int) (net.Listener, error) {
	if runtime.GOOS != "linux" {
		return nil, nil
	}
	return net.Listen("unix", fmt.Sprintf("@tracegate/port/%d", port))
}

func release(name net.Listener) {
	if name != nil {
		_ = name.Close()
	}
}
