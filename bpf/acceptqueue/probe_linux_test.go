//go:build linux && (amd64 || arm64)

package acceptqueue

import (
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/tracegate/tracegate/bpf/bpftest"
	"github.com/tracegate/tracegate/bpf/probe"
)

// listen opens a listener on loopback with a queue of its own length.
func listen(t *testing.T, backlog int) (fd, port int) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, backlog); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, sa.(*syscall.SockaddrInet4).Port
}

// TestWaitsAreThoseOfTheServer holds the probe to what the server did, with sweeps of
// the program's own timer and with those of user space.
func TestWaitsAreThoseOfTheServer(t *testing.T) {
	t.Run("timer", func(t *testing.T) {
		if env := bpftest.Env(t); !env.Features.HasTimer() {
			t.Skip("this kernel has no timers for programs")
		}
		waitsAreThoseOfTheServer(t, true)
	})
	t.Run("user space", func(t *testing.T) { waitsAreThoseOfTheServer(t, false) })
}

func waitsAreThoseOfTheServer(t *testing.T, timer bool) {
	p, status, err := open(bpftest.Env(t), 0, timer)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if status.State != probe.On {
		t.Errorf("status = %+v", status)
	}
	fd, port := listen(t, 64)
	const n = 10
	var connected [n]time.Time
	for i := range n {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		connected[i] = time.Now()
	}
	queues, err := p.Read()
	if err != nil {
		t.Fatal(err)
	}
	want := probe.Queue{Owner: bpftest.Self(), Listen: fmt.Sprintf("127.0.0.1:%d", port), Length: n, Limit: 64}
	found := false
	for _, q := range queues.Queues {
		found = found || q == want
	}
	if !found {
		t.Errorf("queues = %+v, want %+v", queues.Queues, want)
	}
	<-time.After(time.Until(connected[0].Add(60 * time.Millisecond))) // the server is busy
	least := time.Since(connected[n-1])
	if timer {
		least -= 2 * Interval
	} else if err := p.Sweep(); err != nil {
		t.Fatal(err)
	}
	most := time.Since(connected[0])
	for range n {
		nfd, _, err := syscall.Accept4(fd, syscall.SOCK_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		syscall.Close(nfd)
	}
	if !timer {
		if err := p.Sweep(); err != nil {
			t.Fatal(err)
		}
	}
	var got probe.Series
	bpftest.Eventually(t, func() string {
		r, err := p.Read()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range r.Series {
			if s.Target == fmt.Sprintf("local port %d", port) && s.Hist.Count() == n {
				got = s
				return ""
			}
		}
		return fmt.Sprintf("not %d waits for port %d: %+v", n, port, r.Series)
	})
	if got.Owner != bpftest.Self() {
		t.Errorf("%+v waited", got.Owner)
	}
	// A connection is established a little before connect returns to the client.
	p50 := got.Hist.Quantile(0.5)
	if p50 < least*7/8 || p50 > most*9/8+5*time.Millisecond {
		t.Errorf("P50 = %v, want within %v and %v", p50, least, most)
	}
	t.Logf("P50 %v, between %v and %v", p50, least, most)
}

// TestFullQueueIsSeen needs no privilege: the kernel's diagnostics say it.
func TestFullQueueIsSeen(t *testing.T) {
	_, port := listen(t, 1)
	for range 2 { // a limit of 1 holds two
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 100*time.Millisecond); err == nil {
		c.Close()
		t.Fatal("a full queue took one more connection")
	}
	bpftest.Eventually(t, func() string {
		listeners, err := Listeners()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range listeners {
			if q := l.Queue; int(l.Port) == port && (q.Length != 2 || q.Limit != 1 || q.Drops == 0) {
				return fmt.Sprintf("queue = %+v, want 2 of 1 and drops", q)
			} else if int(l.Port) == port {
				return ""
			}
		}
		return "the listener is not listed"
	})
}

// TestPortsOf finds listeners that were open before anybody looked.
func TestPortsOf(t *testing.T) {
	_, port := listen(t, 1)
	ports, err := PortsOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(ports, uint16(port)) {
		t.Errorf("ports = %v, want %d among them", ports, port)
	}
	if _, err := PortsOf(1 << 30); err == nil {
		t.Error("no error for a process that does not exist")
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(diagRequest(2))
	f.Add([]byte{16, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = split(b, func(m []byte) { drops(m[diagMessageSize:]) })
	})
}
