package color

import "strings"

// source names a value of a request: a header by its slot, or what is inside of one.
type source struct {
	kind sourceKind
	slot uint16
	name string // of a cookie or a claim
}

type sourceKind uint8

const (
	fromHeader sourceKind = iota
	fromHost
	fromPath
	fromCookie
	fromClaim
)

// inside finds a value in its header.
func (r *Request) inside(header string, s *source) string {
	switch s.kind {
	case fromHeader:
		return header
	case fromHost:
		return r.hostname(header)
	case fromPath:
		return path(header)
	case fromCookie:
		return cookie(header, s.name)
	default:
		return r.claims.get(header, s.name)
	}
}

// hostname takes port, trailing dot and capitals from an :authority.
func (r *Request) hostname(s string) string {
	end := len(s)
	for i := range len(s) {
		b := s[i]
		if b > ':' && b < 'a' { // neither usual letter nor digit
			return r.oddHostname(s)
		}
		if b == ':' {
			end = i
			break
		}
	}
	if end > 0 && s[end-1] == '.' {
		end--
	}
	return s[:end]
}

// oddHostname is hostname for capitals and IPv6 addresses. It is apart so that the
// usual way is short: what a request does not run it need not fetch from memory.
func (r *Request) oddHostname(s string) string {
	r.host = append(r.host[:0], s...)
	end := len(s)
	for i, b := range r.host {
		switch {
		case 'A' <= b && b <= 'Z':
			r.host[i] = b + 'a' - 'A'
		case b == ':' && end == len(s):
			end = i
		case b == ']': // the colons before it were of an address
			end = len(s)
		}
	}
	return strings.TrimSuffix(text(r.host[:end]), ".")
}

// path is a :path without its query.
func path(s string) string {
	for i := range len(s) {
		if s[i] == '?' {
			return s[:i]
		}
	}
	return s
}

// cookie finds a cookie in a Cookie header (RFC 6265, 5.4); the first of a name wins.
func cookie(header, name string) string {
	for i := 0; i < len(header); i++ {
		for i < len(header) && header[i] == ' ' {
			i++
		}
		start := i
		for i < len(header) && header[i] != ';' {
			i++
		}
		if pair := header[start:i]; len(pair) > len(name) && pair[len(name)] == '=' && pair[:len(name)] == name {
			return unquoted(pair[len(name)+1:])
		}
	}
	return ""
}

func unquoted(v string) string {
	for v != "" && v[len(v)-1] == ' ' {
		v = v[:len(v)-1]
	}
	if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
		return v[1 : len(v)-1]
	}
	return v
}
