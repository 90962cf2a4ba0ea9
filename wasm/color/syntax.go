package color

import (
	"strings"
	"unsafe"
)

// maxName bounds the names of envs, tenants and cohorts, in bytes.
const maxName = 64

// validName says whether s may be an env, a tenant or a cohort: it goes into
// baggage, headers, metrics and SQL, and must not need escaping in any.
func validName(s string) bool {
	if len(s) == 0 || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		switch b := s[i]; {
		case 'a' <= b && b <= 'z', '0' <= b && b <= '9', b == '.', b == '_', b == '-':
		default:
			return false
		}
	}
	return true
}

// validToken is RFC 9110's token: header names, cookie names, baggage keys.
func validToken(s string) bool {
	for i := range len(s) {
		if byteClass[s[i]]&tokenByte == 0 {
			return false
		}
	}
	return s != ""
}

// Classes of bytes.
const (
	tokenByte = 1 << iota // of RFC 9110's token
	valueByte             // of W3C Baggage's value
	plainByte             // of a baggage member that needs no further look
)

// byteClass has the classes of each byte.
var byteClass = newByteClasses()

func newByteClasses() (c [256]byte) {
	for b := range c {
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', strings.IndexByte("!#$%&'*+-.^_`|~", byte(b)) >= 0:
			c[b] |= tokenByte
		}
		if b > 0x20 && b < 0x7f && strings.IndexByte(`",;\`, byte(b)) < 0 {
			c[b] |= valueByte
		}
		if c[b]&tokenByte != 0 && b != '%' || b == '=' {
			c[b] |= plainByte
		}
	}
	return c
}

// text is b as a string, without a copy.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
