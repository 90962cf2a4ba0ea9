//go:build linux && (amd64 || arm64)

package tcpretransmit

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tracegate/tracegate/bpf/bpftest"
	"github.com/tracegate/tracegate/bpf/probe"
)

// TestLostSYNsAreCounted loses every SYN for longer than the first retransmission
// takes and wants the count to be the number of SYNs the line saw beyond the first.
func TestLostSYNsAreCounted(t *testing.T) {
	p, status, err := Open(bpftest.Env(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if status.State != probe.On {
		t.Errorf("status = %+v", status)
	}
	bpftest.InNamespace(t, func(line *bpftest.Line) {
		line.DelaySYN(-1)
		target := net.JoinHostPort(bpftest.Far4, "9")
		if _, err := net.DialTimeout("tcp", target, 1500*time.Millisecond); err == nil {
			t.Fatal("connected through a line that loses SYNs")
		}
		r, err := p.Read()
		if err != nil {
			t.Fatal(err)
		}
		var got uint64
		for _, c := range r.Counts {
			if c.Kind == "retransmit" && c.Reason == "syn" && c.Target == target {
				got += c.N
				if c.Owner != bpftest.Self() || c.Cgroup == 0 {
					t.Errorf("owner %+v, cgroup %d", c.Owner, c.Cgroup)
				}
			}
		}
		if want := line.SYNs() - 1; int64(got) != want || want < 1 {
			t.Errorf("%d SYNs sent again, the line saw %d; counts %+v", got, want, r.Counts)
		}
	})
}

// TestDropsHaveTheKernelsReasons sends datagrams to a socket whose buffer is full.
func TestDropsHaveTheKernelsReasons(t *testing.T) {
	p, _, err := Open(bpftest.Env(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.reasons == nil {
		t.Skip("this kernel gives no reasons")
	}
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	s, err := net.Dial("udp", c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := drops(t, p)
	for range 200 {
		if _, err := s.Write(make([]byte, 1000)); err != nil && !strings.Contains(err.Error(), syscall.ECONNREFUSED.Error()) {
			t.Fatal(err)
		}
	}
	after := drops(t, p)
	if n := after["socket_rcvbuff"] - before["socket_rcvbuff"]; n < 150 || n > 200 {
		t.Errorf("%d drops for a full receive buffer, want nearly 200: %v", n, after)
	}
}

func drops(t *testing.T, p *Probe) map[string]uint64 {
	t.Helper()
	r, err := p.Read()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]uint64{}
	for _, c := range r.Counts {
		if c.Kind == "drop" {
			out[c.Reason] += c.N
		}
	}
	if len(out) > 200 {
		t.Errorf("%d reasons", len(out))
	}
	return out
}

func TestListenersOwnTheirRetransmissions(t *testing.T) {
	p, _, err := Open(bpftest.Env(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.SetListeners(map[uint16]uint32{9102: bpftest.Slot}); err != nil {
		t.Fatal(err)
	}
	var slot uint32
	if err := p.Map("ports").Lookup(uint16(9102), &slot); err != nil || slot != bpftest.Slot {
		t.Errorf("port 9102 has slot %d, %v", slot, err)
	}
	if err := p.Forget(bpftest.Slot); err != nil {
		t.Fatal(fmt.Errorf("forget: %w", err))
	}
}
