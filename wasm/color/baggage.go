package color

import (
	"strings"

	"github.com/tracegate/tracegate/observability/semconv"
)

// W3C Baggage, limits: 64 members and 8192 bytes must survive. OpenTelemetry stops
// reading at the same bounds, and ours come first, so they are always read.
const (
	maxBaggageMembers = 64
	maxBaggageBytes   = 8192
)

// addBaggage appends the client's foreign members to ours. whole is false where a
// member was malformed, used a key of ours, or did not fit.
func (as *Assignment) addBaggage(client string) (whole bool) {
	whole = true
	members, n := 2, as.baggageSize
	for i := 0; i < len(client); i++ {
		start, equals, classes := i, -1, byte(plainByte)
		for i < len(client) && client[i] != ',' {
			if client[i] == '=' && equals < 0 {
				equals = i
			}
			classes &= byteClass[client[i]]
			i++
		}
		m := client[start:i]
		// Most members are plain, and cannot be ours; the others take the long way.
		if classes == 0 || equals <= start || m[0]|0x20 == semconv.BaggagePrefix[0] {
			if m = strings.Trim(m, " \t"); m == "" {
				continue // empty members are allowed
			}
			if !foreignMember(m) {
				whole = false
				continue
			}
		}
		if members == maxBaggageMembers || n+1+len(m) > maxBaggageBytes {
			whole = false
			continue
		}
		as.baggage[n] = ','
		n += 1 + copy(as.baggage[n+1:], m)
		members++
	}
	as.baggageSize = n
	return whole
}

// foreignMember says whether m is a well-formed baggage member that is not ours.
// Keys are not percent-decoded by the specification, but some readers do, so a key
// with a percent sign could come out as one of ours: it is refused.
func foreignMember(m string) bool {
	i, size := part(m, 0, tokenByte)
	if size == 0 || strings.IndexByte(m[:i], '%') >= 0 || ownKey(m[i-size:i]) {
		return false
	}
	i = spaces(m, i)
	if i == len(m) || m[i] != '=' {
		return false
	}
	i, _ = part(m, i+1, valueByte)
	for i = spaces(m, i); i < len(m); i = spaces(m, i) { // properties
		if m[i] != ';' {
			return false
		}
		if i, size = part(m, i+1, tokenByte); size == 0 {
			return false
		}
		if i = spaces(m, i); i < len(m) && m[i] == '=' {
			i, _ = part(m, i+1, valueByte)
		}
	}
	return goodEscapes(m)
}

// part skips space and then bytes of a class; size is how many of those.
func part(s string, i int, class byte) (end, size int) {
	i = spaces(s, i)
	start := i
	for i < len(s) && byteClass[s[i]]&class != 0 {
		i++
	}
	return i, i - start
}

func spaces(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t') {
		i++
	}
	return i
}

func ownKey(k string) bool {
	return len(k) >= len(semconv.BaggagePrefix) && strings.EqualFold(k[:len(semconv.BaggagePrefix)], semconv.BaggagePrefix)
}

// goodEscapes says whether each percent sign is followed by two hex digits.
func goodEscapes(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && (i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2])) {
			return false
		}
	}
	return true
}

// baggageValue finds a member of a trusted peer's baggage. The last of a key wins,
// as in OpenTelemetry.
func baggageValue(baggage, key string) (value string) {
	for baggage != "" {
		var m string
		m, baggage, _ = strings.Cut(baggage, ",")
		kv, _, _ := strings.Cut(m, ";")
		if k, v, ok := strings.Cut(kv, "="); ok && strings.Trim(k, " \t") == key {
			value = strings.Trim(v, " \t")
		}
	}
	return value
}

func isHex(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b && b <= 'f' || 'A' <= b && b <= 'F'
}
