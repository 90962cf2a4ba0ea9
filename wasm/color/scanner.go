package color

import "encoding/json"

// scanner walks JSON without building anything. It accepts a little more than JSON
// inside nested values that are skipped; whoever needs those must parse them.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\t' || s.b[s.i] == '\n' || s.b[s.i] == '\r') {
		s.i++
	}
}

// take skips space and then c, where c is next.
func (s *scanner) take(c byte) bool {
	s.space()
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

func (s *scanner) end() bool {
	s.space()
	return s.i == len(s.b)
}

// str returns a string with its quotes.
func (s *scanner) str() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	for start := s.i - 1; s.i < len(s.b); s.i++ {
		switch b := s.b[s.i]; {
		case b == '"':
			s.i++
			return s.b[start:s.i], true
		case b == '\\':
			s.i++
		case b < 0x20:
			return nil, false
		}
	}
	return nil, false
}

// value returns a value of any kind, not empty.
func (s *scanner) value() ([]byte, bool) {
	s.space()
	if s.i == len(s.b) {
		return nil, false
	}
	switch s.b[s.i] {
	case '"':
		return s.str()
	case '{', '[':
		return s.nested()
	}
	start := s.i
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ',', '}', ']', ' ', '\t', '\n', '\r':
			v := s.b[start:s.i]
			return v, json.Valid(v)
		}
		s.i++
	}
	return nil, false
}

// nested skips an object or a list by counting brackets outside strings.
func (s *scanner) nested() ([]byte, bool) {
	start, depth := s.i, 0
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case '"':
			if _, ok := s.str(); !ok {
				return nil, false
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		s.i++
		if depth == 0 {
			return s.b[start:s.i], true
		}
	}
	return nil, false
}
