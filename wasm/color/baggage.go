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

// appendBaggage appends the client's foreign members to ours, which dst holds.
// whole is false where a member was malformed, used a key of ours, or did not fit.
func appendBaggage(dst []byte, client string) (out []byte, whole bool) {
	whole = true
	n := 2 // ours
	for client != "" {
		var m string
		m, client, _ = strings.Cut(client, ",")
		m = strings.Trim(m, " \t")
		if m == "" {
			continue
		}
		if n == maxBaggageMembers {
			return dst, false
		}
		if !foreignMember(m) || len(dst)+1+len(m) > maxBaggageBytes {
			whole = false
			continue
		}
		dst = append(dst, ',')
		dst = append(dst, m...)
		n++
	}
	return dst, whole
}

// foreignMember says whether m is a well-formed baggage member that is not ours.
// Keys are not percent-decoded by the specification, but some readers do, so a key
// with a percent sign could come out as one of ours: it is refused.
func foreignMember(m string) bool {
	kv, props, hasProps := strings.Cut(m, ";")
	k, v, ok := strings.Cut(kv, "=")
	k = strings.Trim(k, " \t")
	if !ok || !validToken(k) || strings.Contains(k, "%") || hasPrefixFold(k, semconv.BaggagePrefix) {
		return false
	}
	if !validBaggageValue(strings.Trim(v, " \t")) {
		return false
	}
	for hasProps {
		var p string
		p, props, hasProps = strings.Cut(props, ";")
		k, v, _ := strings.Cut(p, "=")
		if !validToken(strings.Trim(k, " \t")) || !validBaggageValue(strings.Trim(v, " \t")) {
			return false
		}
	}
	return true
}

// validBaggageValue wants baggage octets, each percent sign followed by two hex digits.
func validBaggageValue(s string) bool {
	for i := 0; i < len(s); i++ {
		switch b := s[i]; {
		case b == '%':
			if i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
				return false
			}
			i += 2
		case b <= 0x20, b >= 0x7f, b == '"', b == ',', b == ';', b == '\\':
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

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
