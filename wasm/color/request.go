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
	for at := 0; at+8 <= len(sizes) && at+4 < off; at += 8 {
		n := int(binary.LittleEndian.Uint32(sizes[at:]))
		size := int(binary.LittleEndian.Uint32(sizes[at+4:]))
		value := off + n + 1
		if n >= len(raw) || size >= len(raw) || value+size >= len(raw) {
			return
		}
		if n < len(l.byLen) {
			for _, slot := range l.byLen[n] {
				if l.names[slot] == string(raw[off:off+n]) && size > 0 {
					if r.at[slot].size == 0 {
						r.at[slot] = span{uint32(value), uint32(size)}
					} else {
						r.join(slot, string(raw[value:value+size]))
					}
				}
			}
		}
		off = value + size + 1
	}
}

// Add gives r a header; name is in lower case. A header that no rule reads is ignored.
func (r *Request) Add(name, value string) {
	if len(name) >= len(r.layout.byLen) || value == "" {
		return
	}
	for _, slot := range r.layout.byLen[len(name)] {
		if r.layout.names[slot] == name {
			r.join(slot, value)
		}
	}
}

// maxJoined bounds the value of a header that a client repeats, in bytes. What is
// beyond it is left out.
const maxJoined = 16 << 10

// join appends a value to a header as HTTP says: cookies by "; ", others by a comma.
func (r *Request) join(slot int, value string) {
	old := r.get(slot)
	if len(old)+len(value) > maxJoined {
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

// layout numbers the headers that a policy reads.
type layout struct {
	names []string
	byLen [][]int // slots by the length of their names: few headers need a closer look
}

func newLayout() *layout {
	l := &layout{}
	for _, name := range fixedHeaders() {
		l.add(name)
	}
	return l
}

func (l *layout) add(name string) (slot int) {
	for len(l.byLen) <= len(name) {
		l.byLen = append(l.byLen, nil)
	}
	for _, slot := range l.byLen[len(name)] {
		if l.names[slot] == name {
			return slot
		}
	}
	slot = len(l.names)
	l.names = append(l.names, name)
	l.byLen[len(name)] = append(l.byLen[len(name)], slot)
	return slot
}
