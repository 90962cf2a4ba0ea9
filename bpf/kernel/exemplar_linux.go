//go:build linux && (amd64 || arm64)

package kernel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/perf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/tracegate/tracegate/bpf/probe"
)

// Raw is struct exemplar of headers/probe.h.
type Raw struct {
	At      uint64
	Latency uint64
	Cgroup  uint64
	TGID    uint32
	TID     uint32
	Slot    uint32
	Detail  uint32
	Family  uint16
	Port    [2]byte
	Addr    [16]byte
	Comm    [16]byte
	_       uint32
}

const rawSize = int(unsafe.Sizeof(Raw{}))

// Describe says in words what a probe's exemplar is about.
type Describe func(Raw) (kind, detail string)

// Exemplars hands every slow event to use until ctx is done; it blocks. When it
// cannot read any longer it returns why.
func (o *Object) Exemplars(ctx context.Context, describe Describe, use func(probe.Exemplar)) error {
	boot := bootTime()
	each := func(sample []byte) {
		if len(sample) < rawSize {
			return
		}
		var r Raw
		if err := binary.Read(bytes.NewReader(sample), binary.NativeEndian, &r); err != nil {
			return
		}
		kind, detail := describe(r)
		use(probe.Exemplar{
			Probe: o.name, Kind: kind, Detail: detail, At: boot.Add(time.Duration(r.At)), Latency: time.Duration(r.Latency),
			Owner: o.Owner(r.Slot), PID: r.TGID, TID: r.TID, Command: string(bytes.TrimRight(r.Comm[:], "\x00")),
			Target: Endpoint(r.Family, r.Addr, r.Port),
		})
	}
	switch o.transport {
	case TransportRing:
		return o.readRing(ctx, each)
	case TransportPerf:
		return o.readPerf(ctx, each)
	case TransportQueue:
		return o.poll(ctx, each)
	default:
		<-ctx.Done()
		return nil
	}
}

func (o *Object) readRing(ctx context.Context, use func([]byte)) error {
	r, err := ringbuf.NewReader(o.coll.Maps["exemplars_ring"])
	if err != nil {
		return fmt.Errorf("open ring buffer of %s: %w", o.name, err)
	}
	defer r.Close()
	defer context.AfterFunc(ctx, func() { r.Close() })()
	var rec ringbuf.Record
	for {
		if err := r.ReadInto(&rec); errors.Is(err, os.ErrClosed) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read ring buffer of %s: %w", o.name, err)
		}
		use(rec.RawSample)
	}
}

func (o *Object) readPerf(ctx context.Context, use func([]byte)) error {
	r, err := perf.NewReader(o.coll.Maps["exemplars_perf"], 8*os.Getpagesize())
	if err != nil {
		return fmt.Errorf("open perf buffer of %s: %w", o.name, err)
	}
	defer r.Close()
	defer context.AfterFunc(ctx, func() { r.Close() })()
	var rec perf.Record
	for {
		if err := r.ReadInto(&rec); errors.Is(err, os.ErrClosed) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read perf buffer of %s: %w", o.name, err)
		}
		// A lost sample was refused to the program as well, which has counted it.
		if rec.LostSamples == 0 {
			use(rec.RawSample)
		}
	}
}

func (o *Object) poll(ctx context.Context, use func([]byte)) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	sample := make([]byte, rawSize)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for {
			err := o.coll.Maps["exemplars_queue"].LookupAndDelete(nil, &sample)
			if errors.Is(err, ebpf.ErrKeyNotExist) {
				break
			} else if err != nil {
				return fmt.Errorf("read queue of %s: %w", o.name, err)
			}
			use(sample)
		}
	}
}

// bootTime is the wall clock at which CLOCK_MONOTONIC was 0.
func bootTime() time.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(ts.Nano()))
}

// Endpoint formats an address as the programs see it; port in network byte order.
func Endpoint(family uint16, addr [16]byte, port [2]byte) string {
	p := binary.BigEndian.Uint16(port[:])
	switch family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(addr[:4])), p).String()
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(addr).Unmap(), p).String()
	case 0:
		if p != 0 {
			return fmt.Sprintf("local port %d", p)
		}
	}
	return ""
}

// Port turns a port that a program copied in network byte order into its bytes.
func Port(n uint16) [2]byte {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], n)
	return b
}
