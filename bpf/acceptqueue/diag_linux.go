//go:build linux

package acceptqueue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tracegate/tracegate/bpf/probe"
)

// Sizes and numbers of include/uapi/linux/{netlink,inet_diag,sock_diag}.h.
const (
	sockDiagByFamily = 20
	diagRequestSize  = 56 // struct inet_diag_req_v2
	diagMessageSize  = 72 // struct inet_diag_msg
	diagSKMemInfo    = 7  // INET_DIAG_SKMEMINFO
	memInfoDrops     = 8  // SK_MEMINFO_DROPS
	tcpListen        = 10
	maxListeners     = 256 // more are not reported
)

// Listener is a TCP listener of this network namespace.
type Listener struct {
	probe.Queue // its owner is not known here
	Port        uint16
	Inode       uint32
}

// Listeners asks the kernel. It needs no privilege.
func Listeners() ([]Listener, error) {
	var out []Listener
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		err := dump(family, func(m []byte) {
			if len(out) >= maxListeners {
				return
			}
			port := binary.BigEndian.Uint16(m[4:])
			out = append(out, Listener{Port: port, Inode: binary.NativeEndian.Uint32(m[68:]), Queue: probe.Queue{
				Listen: listenAddress(family, m[8:24], port),
				Length: binary.NativeEndian.Uint32(m[56:]), Limit: binary.NativeEndian.Uint32(m[60:]), Drops: drops(m[diagMessageSize:]),
			}})
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, func(a, b Listener) int { return strings.Compare(a.Listen, b.Listen) })
	return out, nil
}

// maxFiles bounds the look at one process: listeners are opened early.
const maxFiles = 4096

// PortsOf returns the ports a process listens on. It needs the right to read the
// process's open files.
func PortsOf(pid int) ([]uint16, error) {
	dir, err := os.Open(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return nil, fmt.Errorf("open files of process %d: %w", pid, err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxFiles)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("open files of process %d: %w", pid, err)
	}
	inodes := map[uint32]bool{}
	for _, name := range names {
		link, err := os.Readlink(filepath.Join(dir.Name(), name))
		if err != nil {
			continue // closed meanwhile
		}
		var inode uint32
		if _, err := fmt.Sscanf(link, "socket:[%d]", &inode); err == nil {
			inodes[inode] = true
		}
	}
	listeners, err := Listeners()
	if err != nil {
		return nil, err
	}
	var ports []uint16
	for _, l := range listeners {
		if inodes[l.Inode] {
			ports = append(ports, l.Port)
		}
	}
	return ports, nil
}

func listenAddress(family uint8, addr []byte, port uint16) string {
	if family == unix.AF_INET {
		addr = addr[:4]
	}
	a, _ := netip.AddrFromSlice(addr)
	return netip.AddrPortFrom(a.Unmap(), port).String()
}

// dump calls each for every TCP listener of a family with struct inet_diag_msg and
// its attributes.
func dump(family uint8, each func([]byte)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return fmt.Errorf("open socket diagnostics: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	// The kernel answers within the call, so a time-out is a safety net only.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return fmt.Errorf("limit socket diagnostics: %w", err)
	}
	if err := unix.Sendto(fd, diagRequest(family), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("ask socket diagnostics: %w", err)
	}
	buf := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return fmt.Errorf("read socket diagnostics: %w", err)
		}
		done, err := split(buf[:n], each)
		if done || err != nil {
			return err
		}
	}
}

func diagRequest(family uint8) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+diagRequestSize)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	r := b[unix.SizeofNlMsghdr:]
	r[0], r[1], r[2] = family, unix.IPPROTO_TCP, 1<<(diagSKMemInfo-1)
	binary.NativeEndian.PutUint32(r[4:], 1<<tcpListen)
	return b
}

// split walks the netlink messages of one datagram; done after the last of a dump.
func split(b []byte, each func([]byte)) (done bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return true, fmt.Errorf("read socket diagnostics: message of %d bytes", size)
		}
		body := b[unix.SizeofNlMsghdr:size]
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) >= 4 {
				if errno := -int32(binary.NativeEndian.Uint32(body)); errno != 0 {
					return true, fmt.Errorf("read socket diagnostics: %w", unix.Errno(errno))
				}
			}
		default:
			if len(body) >= diagMessageSize {
				each(body)
			}
		}
		b = b[min(align(size), len(b)):]
	}
	return false, nil
}

func drops(attrs []byte) uint32 {
	for len(attrs) >= 4 {
		size := int(binary.NativeEndian.Uint16(attrs))
		if size < 4 || size > len(attrs) {
			return 0
		}
		if binary.NativeEndian.Uint16(attrs[2:]) == diagSKMemInfo && size >= 4+4*(memInfoDrops+1) {
			return binary.NativeEndian.Uint32(attrs[4+4*memInfoDrops:])
		}
		attrs = attrs[min(align(size), len(attrs)):]
	}
	return 0
}

func align(n int) int { return (n + 3) &^ 3 }
