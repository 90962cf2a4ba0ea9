package color

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
	if s == "" {
		return false
	}
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return true
}

func isTokenByte(b byte) bool {
	switch {
	case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		return true
	}
	switch b {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~':
		return true
	}
	return false
}

// lowerHex says whether s consists of lower-case hex digits and, second, whether
// all of them are zero.
func lowerHex(s string) (ok, zero bool) {
	zero = true
	for i := range len(s) {
		switch b := s[i]; {
		case b == '0':
		case '1' <= b && b <= '9', 'a' <= b && b <= 'f':
			zero = false
		default:
			return false, false
		}
	}
	return true, zero
}

func unhex(b byte) byte {
	if b <= '9' {
		return b - '0'
	}
	return b - 'a' + 10
}

func appendHex(dst, src []byte) []byte {
	const digits = "0123456789abcdef"
	for _, b := range src {
		dst = append(dst, digits[b>>4], digits[b&0xf])
	}
	return dst
}
