//go:build linux && (amd64 || arm64)

package kernel

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
)

// ErrPrivilege is returned where the process may not load programs.
var ErrPrivilege = errors.New("needs root, or the capabilities CAP_BPF and CAP_PERFMON")

// Transport is how exemplars of slow events come to user space.
type Transport uint32

// The transports, best first; the numbers are those of headers/probe.h.
const (
	TransportNone  Transport = 0
	TransportRing  Transport = 1 // ring buffer, Linux 5.8
	TransportPerf  Transport = 2 // perf buffer, a page and more for each CPU
	TransportQueue Transport = 3 // a queue that is polled, Linux 4.20
)

func (t Transport) String() string {
	switch t {
	case TransportRing:
		return "ring buffer"
	case TransportPerf:
		return "perf buffer"
	case TransportQueue:
		return "polled queue"
	default:
		return "none"
	}
}

// Features is what this kernel can do for the probes.
type Features struct {
	Types     *btf.Spec
	Transport Transport
}

// Detect asks the kernel. The error says in one line why no probe can work. Whether
// programs load is left to loading them: nothing knows it better.
func Detect() (*Features, error) {
	caps, err := Effective()
	if err != nil {
		return nil, err
	}
	if !caps.CanLoad() {
		return nil, ErrPrivilege
	}
	types, err := btf.LoadKernelSpec()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, btf.ErrNotSupported) {
		return nil, errors.New("the kernel has no BTF type information (/sys/kernel/btf/vmlinux, CONFIG_DEBUG_INFO_BTF)")
	} else if err != nil {
		return nil, fmt.Errorf("read kernel types: %w", err)
	}
	return &Features{Types: types, Transport: bestTransport()}, nil
}

// hostPIDs is the initial PID namespace (PROC_PID_INIT_INO): its number is part of the
// kernel's ABI.
const hostPIDs = "pid:[4026531836]"

// SeesHostPIDs says whether process ids here are those that programs see. In a
// container they are only with hostPID.
func SeesHostPIDs() bool {
	ns, err := os.Readlink("/proc/self/ns/pid")
	return err != nil || ns == hostPIDs
}

func bestTransport() Transport {
	for _, c := range []struct {
		t Transport
		m ebpf.MapType
	}{{TransportRing, ebpf.RingBuf}, {TransportPerf, ebpf.PerfEventArray}, {TransportQueue, ebpf.Queue}} {
		if features.HaveMapType(c.m) == nil {
			return c.t
		}
	}
	return TransportNone
}

// HasTracepoint says whether programs can attach to a tracepoint with at least args
// arguments by its types.
func (f *Features) HasTracepoint(name string, args int) bool {
	var t *btf.Typedef
	if f.Types.TypeByName("btf_trace_"+name, &t) != nil {
		return false
	}
	p, ok := t.Type.(*btf.Pointer)
	if !ok {
		return false
	}
	proto, ok := p.Target.(*btf.FuncProto)
	return ok && len(proto.Params) > args // the first is the tracepoint's own data
}

// HasTimer says whether programs can have timers (Linux 5.15).
func (f *Features) HasTimer() bool {
	var t *btf.Struct
	return f.Types.TypeByName("bpf_timer", &t) == nil
}

// EnumNames returns the names of a kernel enumeration by their numbers, nil if the
// kernel has none of that name.
func (f *Features) EnumNames(name string) map[uint64]string {
	var e *btf.Enum
	if f.Types.TypeByName(name, &e) != nil {
		return nil
	}
	names := make(map[uint64]string, len(e.Values))
	for _, v := range e.Values {
		names[v.Value] = v.Name
	}
	return names
}
