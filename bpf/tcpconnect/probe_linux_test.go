//go:build linux && (amd64 || arm64)

package tcpconnect

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tracegate/tracegate/bpf/bpftest"
	"github.com/tracegate/tracegate/bpf/hist"
	"github.com/tracegate/tracegate/bpf/kernel"
	"github.com/tracegate/tracegate/bpf/probe"
)

func open(t *testing.T, env *kernel.Env, slow time.Duration) *Probe {
	t.Helper()
	p, status, err := Open(env, slow)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if status.State != probe.On {
		t.Errorf("status = %+v", status)
	}
	return p
}

func read(t *testing.T, p *Probe) probe.Reading {
	t.Helper()
	r, err := p.Read()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func series(r probe.Reading, target string) *probe.Series {
	for i := range r.Series {
		if r.Series[i].Target == target {
			return &r.Series[i]
		}
	}
	return nil
}

// TestConnectTimesAreThoseOfTheLine delays SYNs by known amounts and wants the P50 and
// P95 of what the kernel has counted within one bucket of the truth, which is what
// the line was told and what the caller itself has measured.
func TestConnectTimesAreThoseOfTheLine(t *testing.T) {
	for _, family := range []struct{ name, near, far string }{{"IPv4", bpftest.Near4, bpftest.Far4}, {"IPv6", bpftest.Near6, bpftest.Far6}} {
		t.Run(family.name, func(t *testing.T) {
			p := open(t, bpftest.Env(t), 0)
			bpftest.InNamespace(t, func(line *bpftest.Line) {
				l, err := net.Listen("tcp", net.JoinHostPort(family.near, "0"))
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				target := net.JoinHostPort(family.far, fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
				var took []time.Duration
				for i := range 40 {
					line.DelaySYN(20 * time.Millisecond)
					if i >= 36 { // the slowest tenth
						line.DelaySYN(150 * time.Millisecond)
					}
					begin := time.Now()
					c, err := net.DialTimeout("tcp", target, 5*time.Second)
					if err != nil {
						t.Fatal(err)
					}
					took = append(took, time.Since(begin))
					c.Close()
				}
				slices.Sort(took)
				s := series(read(t, p), target)
				if s == nil {
					t.Fatalf("no series for %s", target)
				}
				if s.Owner != bpftest.Self() || s.Cgroup == 0 {
					t.Errorf("owner %+v, cgroup %d", s.Owner, s.Cgroup)
				}
				if n := s.Hist.Count(); n != 40 {
					t.Errorf("%d connects counted, want 40", n)
				}
				for _, q := range []struct {
					q              float64
					line, measured time.Duration
				}{{0.5, 20 * time.Millisecond, took[19]}, {0.95, 150 * time.Millisecond, took[37]}} {
					got := s.Hist.Quantile(q.q)
					low, high := hist.Index(q.line), hist.Index(q.measured)+1
					if i := hist.Index(got); i < low || i > high {
						t.Errorf("P%g = %v, want between the line's %v and the caller's %v (a bucket more at most)", q.q*100, got, q.line, q.measured)
					}
				}
				t.Logf("P50 %v (caller %v), P95 %v (caller %v)", s.Hist.Quantile(0.5), took[19], s.Hist.Quantile(0.95), took[37])
			})
		})
	}
}

func TestFailuresHaveReasons(t *testing.T) {
	p := open(t, bpftest.Env(t), 0)
	bpftest.InNamespace(t, func(line *bpftest.Line) {
		l, err := net.Listen("tcp", net.JoinHostPort(bpftest.Near4, "0"))
		if err != nil {
			t.Fatal(err)
		}
		port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
		l.Close()
		target := net.JoinHostPort(bpftest.Far4, port)

		if _, err := net.DialTimeout("tcp", target, time.Second); err == nil {
			t.Fatal("connected to a closed port")
		}
		line.DelaySYN(-1)
		if _, err := net.DialTimeout("tcp", target, 50*time.Millisecond); err == nil {
			t.Fatal("connected through a line that loses SYNs")
		}
		got := map[string]uint64{}
		for _, c := range read(t, p).Counts {
			if c.Kind == "connect_failed" && c.Target == target && c.Owner == bpftest.Self() {
				got[c.Reason] += c.N
			}
		}
		if got["refused"] != 1 || got["given_up"] != 1 || len(got) != 2 {
			t.Errorf("failures = %v, want one refused, one given up", got)
		}
	})
}

// TestSlowConnectsComeAsExemplars runs every transport the kernel has, best first to
// last.
func TestSlowConnectsComeAsExemplars(t *testing.T) {
	for _, transport := range []kernel.Transport{kernel.TransportRing, kernel.TransportPerf, kernel.TransportQueue} {
		t.Run(transport.String(), func(t *testing.T) {
			env := bpftest.Env(t)
			env.Features.Transport = transport
			p := open(t, env, 100*time.Millisecond)
			got := make(chan probe.Exemplar, 100)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- p.Exemplars(ctx, func(e probe.Exemplar) { got <- e }) }()
			defer func() {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}()
			bpftest.InNamespace(t, func(line *bpftest.Line) {
				l, err := net.Listen("tcp", net.JoinHostPort(bpftest.Near4, "0"))
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				target := net.JoinHostPort(bpftest.Far4, fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
				for _, d := range []time.Duration{0, 120 * time.Millisecond} {
					line.DelaySYN(d)
					c, err := net.Dial("tcp", target)
					if err != nil {
						t.Fatal(err)
					}
					c.Close()
				}
				select {
				case e := <-got:
					if e.Target != target || e.Owner != bpftest.Self() || e.Latency < 120*time.Millisecond || e.Kind != "connect" || e.Command == "" {
						t.Errorf("exemplar = %+v", e)
					}
					if age := time.Since(e.At); age < 0 || age > 5*time.Second {
						t.Errorf("exemplar is %v old", age)
					}
				case <-time.After(time.Minute):
					t.Fatal("no exemplar of the slow connect")
				}
				select {
				case e := <-got:
					t.Errorf("one more exemplar: %+v", e)
				default:
				}
			})
		})
	}
}

// TestBurst makes very many connects that are refused at once, from several threads,
// and wants every one of them counted, or its loss.
func TestBurst(t *testing.T) {
	each := 50_000
	if testing.Short() {
		each = 2_000
	}
	p := open(t, bpftest.Env(t), time.Nanosecond)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	const threads = 2
	var work sync.WaitGroup
	begin := time.Now()
	for range threads {
		work.Go(func() {
			for range each {
				fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
				if err != nil {
					t.Error(err)
					return
				}
				if err := syscall.Connect(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}); err != syscall.ECONNREFUSED {
					t.Errorf("connect: %v, want refused", err)
				}
				syscall.Close(fd)
			}
		})
	}
	work.Wait()
	took := time.Since(begin)
	r := read(t, p)
	var counted, missing uint64
	for _, c := range r.Counts {
		if c.Reason == "refused" && c.Target == fmt.Sprintf("127.0.0.1:%d", port) {
			counted += c.N
		}
	}
	for _, lost := range r.Lost {
		if lost.Reason == probe.LostInflight || lost.Reason == probe.LostRecursion || lost.Reason == probe.LostSeries {
			missing += lost.N
		}
	}
	t.Logf("%d connects in %v: %d counted, lost %v", threads*each, took.Round(time.Millisecond), counted, r.Lost)
	if want := uint64(threads * each); counted+missing < want || counted > want {
		t.Errorf("%d counted and %d lost, want %d", counted, missing, want)
	}
	if missing > uint64(each/100) {
		t.Errorf("%d lost", missing)
	}
}
