//go:build linux && (amd64 || arm64)

package bpftest

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Addresses in the namespace: what is sent to Far arrives, after the delay, at Near.
const (
	Near4 = "10.99.0.1"
	Far4  = "10.99.0.2"
	Near6 = "fd99::1"
	Far6  = "fd99::2"
)

// Line is the delaying device.
type Line struct {
	syn  atomic.Int64 // delay of a SYN, ns; negative: it is lost
	sent atomic.Int64 // SYNs seen
}

// DelaySYN makes the line hold back every SYN (not SYN-ACKs, not data) for d. A
// negative d loses them.
func (l *Line) DelaySYN(d time.Duration) { l.syn.Store(int64(d)) }

// SYNs returns the number of SYNs that the line has seen.
func (l *Line) SYNs() int64 { return l.sent.Load() }

// InNamespace runs f in a new network namespace with a line; f must open its sockets
// in the goroutine it is called in. The test is skipped where namespaces or TUN
// devices cannot be made.
func InNamespace(t *testing.T, f func(*Line)) {
	t.Helper()
	type outcome struct{ skip string }
	done := make(chan outcome)
	go func() {
		// The thread is not given back: it ends with the goroutine, and the namespace
		// with it. A FailNow within f ends the goroutine as well.
		var o outcome
		defer func() { done <- o }()
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			o.skip = "make a network namespace: " + err.Error()
			return
		}
		tun, err := openTUN("tgline")
		if err != nil {
			o.skip = "make a TUN device: " + err.Error()
			return
		}
		defer tun.Close()
		for _, args := range []string{
			"link set lo up", "addr add " + Near4 + "/24 dev tgline", "addr add " + Near6 + "/64 dev tgline nodad", "link set tgline up",
		} {
			if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
				o.skip = "ip " + args + ": " + string(out) + err.Error()
				return
			}
		}
		line := &Line{}
		ended := make(chan struct{})
		go func() { defer close(ended); line.reflect(tun) }()
		f(line)
		tun.Close()
		<-ended
	}()
	if o := <-done; o.skip != "" {
		t.Skip(o.skip)
	}
	if t.Failed() { // FailNow has ended f's goroutine, not this one
		t.FailNow()
	}
}

func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "tun"), nil
}

// reflect sends packets back with source and destination swapped, which leaves every
// checksum right.
func (l *Line) reflect(tun *os.File) {
	buf := make([]byte, 64<<10)
	for {
		n, err := tun.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		} else if err != nil {
			continue
		}
		p := append([]byte(nil), buf[:n]...)
		tcp := swap(p)
		const syn, ack = 0x02, 0x10
		if len(tcp) < 14 || tcp[13]&(syn|ack) != syn {
			_, _ = tun.Write(p)
			continue
		}
		l.sent.Add(1)
		switch d := time.Duration(l.syn.Load()); {
		case d < 0:
		case d == 0:
			_, _ = tun.Write(p)
		default:
			time.AfterFunc(d, func() { _, _ = tun.Write(p) })
		}
	}
}

// swap exchanges the addresses of a packet and returns its TCP segment, nil if it has
// none.
func swap(p []byte) []byte {
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		var src [4]byte
		copy(src[:], p[12:16])
		copy(p[12:16], p[16:20])
		copy(p[16:20], src[:])
		if head := int(p[0]&15) * 4; p[9] == unix.IPPROTO_TCP && binary.BigEndian.Uint16(p[6:])&0x1fff == 0 && len(p) >= head {
			return p[head:]
		}
	case len(p) >= 40 && p[0]>>4 == 6:
		var src [16]byte
		copy(src[:], p[8:24])
		copy(p[8:24], p[24:40])
		copy(p[24:40], src[:])
		if p[6] == unix.IPPROTO_TCP {
			return p[40:]
		}
	}
	return nil
}
