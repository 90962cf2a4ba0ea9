package group

import (
	"crypto/md5"
	"encoding/binary"
	"errors"
)

// Color is the cohort of a trace: the first four bytes of its TraceID.
//
// W3C Trace Context level 2 asks for randomness only in the last seven bytes of
// a trace-id, so a colored id is a valid id with the random flag set.
type Color uint32

// Baseline is the color of requests that no cohort claims, and of every fallback.
const Baseline Color = 0

// ColorOf returns the stable color of a cohort's name, never [Baseline].
// Policies may set a color by hand where two names collide (a birthday collision
// is unlikely below some ten thousand cohorts, and policies are checked for it).
func ColorOf(cohort string) Color {
	sum := md5.Sum([]byte(cohort))
	c := Color(binary.BigEndian.Uint32(sum[:4]))
	if c == Baseline {
		return 1
	}
	return c
}

// ParseColor reads eight lower-case hex digits.
func ParseColor(s string) (Color, bool) {
	if len(s) != 8 {
		return Baseline, false
	}
	var c Color
	for i := range len(s) {
		switch b := s[i]; {
		case '0' <= b && b <= '9':
			c = c<<4 | Color(b-'0')
		case 'a' <= b && b <= 'f':
			c = c<<4 | Color(b-'a'+10)
		default:
			return Baseline, false
		}
	}
	return c, true
}

// OfTrace returns the color of a trace id in hex (32 digits); ok is false where
// s is not one.
func OfTrace(s string) (c Color, ok bool) {
	if len(s) != 32 {
		return Baseline, false
	}
	for i := 8; i < len(s); i++ {
		if !isLowerHex(s[i]) {
			return Baseline, false
		}
	}
	return ParseColor(s[:8])
}

// String returns the color's eight lower-case hex digits.
func (c Color) String() string {
	var buf [8]byte
	return string(c.Append(buf[:0]))
}

// Append appends the color's eight lower-case hex digits to dst.
func (c Color) Append(dst []byte) []byte {
	const digits = "0123456789abcdef"
	for shift := 28; shift >= 0; shift -= 4 {
		dst = append(dst, digits[c>>shift&0xf])
	}
	return dst
}

// MarshalText makes JSON and YAML show a color as people write it.
func (c Color) MarshalText() ([]byte, error) { return c.Append(nil), nil }

// UnmarshalText reads what MarshalText wrote.
func (c *Color) UnmarshalText(text []byte) error {
	v, ok := ParseColor(string(text))
	if !ok {
		return errors.New("color is not eight lower-case hex digits")
	}
	*c = v
	return nil
}

func isLowerHex(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b && b <= 'f'
}
