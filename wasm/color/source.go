package color

// source names a value of a request: a header by its slot, or what is inside of one.
type source struct {
	kind sourceKind
	slot int
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

func (r *Request) value(s *source) string {
	v := r.get(s.slot)
	if v == "" || s.kind == fromHeader {
		return v
	}
	switch s.kind {
	case fromHost:
		return r.hostname(v)
	case fromPath:
		return path(v)
	case fromCookie:
		return cookie(v, s.name)
	default:
		return r.claims.get(v, s.name)
	}
}

// hostname takes port, trailing dot and capitals from an :authority.
func (r *Request) hostname(s string) string {
	end := len(s)
	for i := range len(s) {
		b := s[i]
		if 'A' <= b && b <= 'Z' {
			return r.hostname(r.lower(s))
		}
		if b == ':' && end == len(s) {
			end = i
		}
		if b == ']' { // the colons before it were of an IPv6 address
			end = len(s)
		}
	}
	if end > 0 && s[end-1] == '.' {
		end--
	}
	return s[:end]
}

func (r *Request) lower(s string) string {
	r.host = append(r.host[:0], s...)
	for i, b := range r.host {
		if 'A' <= b && b <= 'Z' {
			r.host[i] = b + 'a' - 'A'
		}
	}
	return text(r.host)
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
