package color

import (
	"net/netip"
	"strings"

	"github.com/tracegate/tracegate/observability/semconv"
)

// Slots that every policy reads; those of a policy's own headers follow.
const (
	slotHost = iota
	slotPath
	slotCookie
	slotTraceparent
	slotTracestate
	slotBaggage
	slotClaims
)

// maxJoined bounds the value of a header that a client repeats, in bytes. More is
// left out, which the limits of every reader would do as well.
const maxJoined = 16 << 10

// layout numbers the headers that a policy reads.
type layout struct {
	names []string
	byLen [][]int // slots by the length of their name: most lookups end there
}

func newLayout() *layout {
	l := &layout{}
	for _, name := range []string{
		slotHost:        ":authority",
		slotPath:        ":path",
		slotCookie:      "cookie",
		slotTraceparent: semconv.HeaderTraceparent,
		slotTracestate:  semconv.HeaderTracestate,
		slotBaggage:     semconv.HeaderBaggage,
		slotClaims:      semconv.HeaderClaims,
	} {
		l.add(name)
	}
	return l
}

func (l *layout) add(name string) int {
	if i := l.slot(name); i >= 0 {
		return i
	}
	for len(l.byLen) <= len(name) {
		l.byLen = append(l.byLen, nil)
	}
	l.names = append(l.names, name)
	i := len(l.names) - 1
	l.byLen[len(name)] = append(l.byLen[len(name)], i)
	return i
}

func (l *layout) slot(name string) int {
	if len(name) >= len(l.byLen) {
		return -1
	}
	for _, i := range l.byLen[len(name)] {
		if l.names[i] == name {
			return i
		}
	}
	return -1
}

// Request is what one request says. An [Assigner] makes it, and it may be used
// again after [Request.Reset]. An empty value counts as absent.
type Request struct {
	// Peer is the address of the connection's other end. It is read only where
	// [Assigner.ReadsPeer]; the zero Addr is never trusted.
	Peer netip.Addr

	layout *layout
	values []string
	host   string // without port and in lower case; computed once
	claims claims
	buf    []byte
}

// NewRequest returns an empty request for a.
func (a *Assigner) NewRequest() *Request {
	return &Request{layout: a.layout, values: make([]string, len(a.layout.names))}
}

// Reset empties r.
func (r *Request) Reset() {
	clear(r.values)
	r.host, r.Peer = "", netip.Addr{}
	r.claims = claims{buf: r.claims.buf}
}

// Add gives r a header; name is in lower case. A header that no rule reads is
// ignored, one that comes again is joined as HTTP says (cookies by "; ").
func (r *Request) Add(name, value string) {
	i := r.layout.slot(name)
	if i < 0 || value == "" {
		return
	}
	switch old := r.values[i]; {
	case old == "":
		r.values[i] = value
	case len(old)+len(value) > maxJoined:
	case i == slotCookie:
		r.values[i] = old + "; " + value
	default:
		r.values[i] = old + "," + value
	}
}

// Traceparent, Tracestate, Baggage and Claims are the headers as they were added;
// "" where absent.
func (r *Request) Traceparent() string { return r.values[slotTraceparent] }

// Tracestate is described at [Request.Traceparent].
func (r *Request) Tracestate() string { return r.values[slotTracestate] }

// Baggage is described at [Request.Traceparent].
func (r *Request) Baggage() string { return r.values[slotBaggage] }

// Claims is described at [Request.Traceparent].
func (r *Request) Claims() string { return r.values[slotClaims] }

func (r *Request) value(s *source) string {
	switch s.kind {
	case fromHeader:
		return r.values[s.slot]
	case fromCookie:
		return cookie(r.values[slotCookie], s.name)
	case fromClaim:
		return r.claims.get(r.values[slotClaims], s.name)
	case fromHost:
		if r.host == "" {
			r.host = hostname(r.values[slotHost])
		}
		return r.host
	case fromPath:
		path, _, _ := strings.Cut(r.values[slotPath], "?")
		return path
	}
	return ""
}

// hostname takes port, trailing dot and capitals from an :authority.
func hostname(s string) string {
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		s = s[:i]
	}
	return strings.ToLower(strings.TrimSuffix(s, "."))
}

// cookie finds a cookie in a Cookie header (RFC 6265, 5.4); the first of a name wins.
func cookie(header, name string) string {
	for header != "" {
		var pair string
		pair, header, _ = strings.Cut(header, ";")
		k, v, ok := strings.Cut(strings.TrimLeft(pair, " \t"), "=")
		if ok && k == name {
			v = strings.TrimRight(v, " \t")
			if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
				v = v[1 : len(v)-1]
			}
			return v
		}
	}
	return ""
}
