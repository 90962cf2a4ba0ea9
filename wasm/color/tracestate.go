package color

import (
	"strings"

	"github.com/tracegate/tracegate/observability/semconv"
)

// W3C Trace Context level 2, 3.3.1: at most 32 members; 512 bytes must survive,
// and entries above 128 bytes go first where something must go.
const (
	maxStateMembers = 32
	maxStateBytes   = 512
	bigStateMember  = 128
)

// addTracestate appends the client's own list, in its order, to our member. whole is
// false where members had to be left out; a list with a malformed or repeated member
// is left out altogether, as the specification allows, because readers downstream
// would refuse all of it.
func (as *Assignment) addTracestate(client string) (whole bool) {
	var members [maxStateMembers]string
	count, total, ok := splitTracestate(client, &members)
	if !ok {
		return false
	}
	n := as.tracestateSize
	dropBig := n+total > maxStateBytes
	whole = true
	for i, m := range members[:count] {
		switch {
		case strings.HasPrefix(m, semconv.TracestateKey+"="):
			continue // an earlier edge's, or forged
		case dropBig && len(m) > bigStateMember:
			whole = false
			continue
		case i+1 == maxStateMembers, n+1+len(m) > maxStateBytes:
			return false
		}
		as.tracestate[n] = ','
		n += 1 + copy(as.tracestate[n+1:], m)
		as.tracestateSize = n
	}
	return whole
}

// splitTracestate returns the members of a tracestate and what they take with a
// comma each; ok is false where one is malformed, comes twice or is one too many.
func splitTracestate(s string, members *[maxStateMembers]string) (n, total int, ok bool) {
	for s != "" {
		var m string
		m, s, _ = strings.Cut(s, ",")
		m = strings.Trim(m, " \t")
		if m == "" {
			continue // empty members are allowed
		}
		k, v, found := strings.Cut(m, "=")
		if n == maxStateMembers || !found || !validStateKey(k) || !validStateValue(v) {
			return 0, 0, false
		}
		for _, other := range members[:n] {
			if strings.HasPrefix(other, m[:len(k)+1]) {
				return 0, 0, false
			}
		}
		members[n] = m
		n++
		total += 1 + len(m)
	}
	return n, total, true
}

func validStateKey(s string) bool {
	if len(s) == 0 || len(s) > 256 {
		return false
	}
	for i := range len(s) {
		switch b := s[i]; {
		case 'a' <= b && b <= 'z', '0' <= b && b <= '9':
		case i > 0 && (b == '_' || b == '-' || b == '*' || b == '/' || b == '@'):
		default:
			return false
		}
	}
	return strings.Count(s, "@") <= 1
}

func validStateValue(s string) bool {
	if len(s) == 0 || len(s) > 256 || s[len(s)-1] == ' ' {
		return false
	}
	for i := range len(s) {
		if b := s[i]; b < 0x20 || b > 0x7e || b == '=' {
			return false
		}
	}
	return true
}
