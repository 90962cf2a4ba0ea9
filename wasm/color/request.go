package color

import (
	"encoding/binary"
	"net/netip"

	"github.com/tracegate/tracegate/observability/semconv"
)

// Headers that are always read; those that a policy names follow.
const (
	slotHost = iota
	slotPath
	slotCookie
	slotTraceparent
	slotTracestate
	slotBaggage
	slotClaims
)

func fixedHeaders() []string {
	return []string{
		slotHost:        ":authority",
		slotPath:        ":path",
		slotCookie:      "cookie",
		slotTraceparent: semconv.HeaderTraceparent,
		slotTracestate:  semconv.HeaderTracestate,
		slotBaggage:     semconv.HeaderBaggage,
		slotClaims:      semconv.HeaderClaims,
	}
}

// Request is what one request says. An [Assigner] makes it, for its own use, and it
// serves one request after the other: [Request.Load] or [Request.Reset] and
// [Request.Add] begin the next. An empty header counts as absent.
type Request struct {
	// Peer is the address of the connection's other end. It is read only where
	// [Assigner.ReadsPeer]; the zero Addr is never trusted.
	Peer netip.Addr

	layout *layout
	raw    []byte
	at     []span // by slot
	host   []byte // in lower case, where the client's is not
	claims claims

	assignment Assignment
}

// span is a place in Request.raw. Places instead of strings keep the garbage
// collector's write barriers out of the loop over the headers.
type span struct{ off, size uint32 }

// NewRequest returns an empty request for a.
func (a *Assigner) NewRequest() *Request {
	return &Request{layout: a.layout, at: make([]span, len(a.layout.names))}
}

// Reset empties r.
func (r *Request) Reset() {
	r.raw = r.raw[:0]
	r.forget()
}

func (r *Request) forget() {
	for i := range r.at {
		r.at[i] = span{}
	}
	r.claims.state = claimsUnread
}

// Load begins a request with all its headers, as the proxy-wasm ABI lays them out:
// a count, for each header the sizes of name and value, all in four bytes with the
// least significant one first; then names and values, each followed by a zero byte.
// raw is kept until the next request. What does not fit the layout ends the headers.
func (r *Request) Load(raw []byte) {
	r.forget()
	r.raw = raw
	if len(raw) < 4 {
		return
	}
	l := r.layout
	sizes := raw[4:]
	off := 4 + 8*int(binary.LittleEndian.Uint32(raw))
	for len(sizes) >= 8 {
		both := binary.LittleEndian.Uint64(sizes)
		n, size := int(uint32(both)), int(both>>32)
		sizes = sizes[8:]
		value := off + n + 1
		next := value + size + 1
		if next > len(raw) || next < off {
			return
		}
		if n != 0 {
			for slot := l.first[bin(n, raw[off+n-1])]; slot >= 0; slot = l.next[slot] {
				if l.names[slot] == text(raw[off:off+n]) {
					r.found(int(slot), value, size)
				}
			}
		}
		off = next
	}
}

// Add gives r a header; name is in lower case. A header that no rule reads is ignored.
func (r *Request) Add(name, value string) {
	if slot := r.layout.slot(name); slot >= 0 {
		r.join(slot, value)
	}
}

// maxJoined bounds the value of a header that a client repeats, in bytes. What is
// beyond it is left out.
const maxJoined = 16 << 10

// found notes where a header's value is in raw.
func (r *Request) found(slot, off, size int) {
	if r.at[slot].size != 0 {
		r.join(slot, string(r.raw[off:off+size]))
		return
	}
	r.at[slot] = span{uint32(off), uint32(size)}
}

// join appends a value to a header as HTTP says: cookies by "; ", others by a comma.
func (r *Request) join(slot int, value string) {
	old := r.get(slot)
	if value == "" || len(old)+len(value) > maxJoined {
		return
	}
	off := len(r.raw)
	r.raw = append(r.raw[:off:off], old...) // a copy: raw may be the host's
	switch {
	case old == "":
	case slot == slotCookie:
		r.raw = append(r.raw, "; "...)
	default:
		r.raw = append(r.raw, ',')
	}
	r.raw = append(r.raw, value...)
	r.at[slot] = span{uint32(off), uint32(len(r.raw) - off)}
}

// get returns a header, "" where it is absent.
func (r *Request) get(slot int) string {
	s := r.at[slot]
	return text(r.raw[s.off : s.off+s.size])
}

// maxHeaderName bounds the names of headers that rules may read, in bytes.
const maxHeaderName = 64

// maxHeaders bounds how many different headers are read.
const maxHeaders = 1024

// layout numbers the headers that a policy reads. Headers are looked up by length
// and last byte of their names first: few of a request's need a closer look.
type layout struct {
	first [bins]int16 // slot by bin, -1 for none
	next  []int16     // by slot: another of the same bin
	names []string
}

const bins = 256

func bin(n int, last byte) uint8 { return uint8(n) ^ last<<3 }

func newLayout() *layout {
	l := &layout{}
	for n := range l.first {
		l.first[n] = -1
	}
	for _, name := range fixedHeaders() {
		l.add(name)
	}
	return l
}

// slot is the header's number, -1 where no rule reads it.
func (l *layout) slot(name string) int {
	if name == "" {
		return -1
	}
	slot := l.first[bin(len(name), name[len(name)-1])]
	for slot >= 0 && l.names[slot] != name {
		slot = l.next[slot]
	}
	return int(slot)
}

// add returns the slot of a header, whose name is not empty.
func (l *layout) add(name string) (slot int) {
	if slot = l.slot(name); slot >= 0 {
		return slot
	}
	slot = len(l.names)
	l.names = append(l.names, name)
	b := bin(len(name), name[len(name)-1])
	l.next = append(l.next, l.first[b])
	l.first[b] = int16(slot)
	return slot
}
