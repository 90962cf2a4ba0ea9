package color

import (
	"encoding/base64"
	"encoding/json"
)

// maxClaims bounds a JWT payload, in base64 bytes. A larger one counts as absent.
const maxClaims = 16 << 10

// claims reads top-level claims of a verified JWT payload, decoded at first use.
//
// Own scanner: encoding/json would build a map of everything for one string, ten
// times slower inside the Wasm VM. A fuzz test holds it to encoding/json.
type claims struct {
	buf     []byte // reused between requests
	payload []byte
	state   claimsState
}

type claimsState uint8

const (
	claimsUnread claimsState = iota
	claimsRead
	claimsBad
)

// get returns the claim as text: strings as they are, numbers and booleans as they
// are written; "" for null, lists, objects and what is not there.
func (c *claims) get(header, name string) string {
	if c.state == claimsUnread {
		c.decode(header)
	}
	if c.state == claimsBad {
		return ""
	}
	v, ok := claim(c.payload, name)
	if !ok {
		c.state = claimsBad
		return ""
	}
	return v
}

func (c *claims) decode(header string) {
	c.state = claimsBad
	if len(header) > maxClaims {
		return
	}
	var err error
	if c.buf, err = base64.RawURLEncoding.AppendDecode(c.buf[:0], []byte(header)); err != nil {
		return
	}
	c.payload, c.state = c.buf, claimsRead
}

// claim scans a JSON object for a top-level member; ok is false where it is not an
// object. The last of a name wins, as in encoding/json.
func claim(obj []byte, name string) (value string, ok bool) {
	s := scanner{b: obj}
	if !s.take('{') {
		return "", false
	}
	if s.take('}') {
		return "", s.end()
	}
	for {
		key, ok := s.str()
		if !ok || !s.take(':') {
			return "", false
		}
		v, ok := s.value()
		if !ok {
			return "", false
		}
		if jsonText(key) == name {
			value = scalar(v)
		}
		if s.take(',') {
			continue
		}
		return value, s.take('}') && s.end()
	}
}

// scalar is a JSON value as claims compare it.
func scalar(v []byte) string {
	switch v[0] {
	case '"':
		return jsonText(v)
	case '{', '[', 'n':
		return ""
	default:
		return string(v)
	}
}

// jsonText is the content of a JSON string with its quotes.
func jsonText(quoted []byte) string {
	for _, b := range quoted {
		if b == '\\' || b >= 0x80 { // escapes, and UTF-8 that may be invalid: the slow way
			var s string
			if json.Unmarshal(quoted, &s) != nil {
				return ""
			}
			return s
		}
	}
	return string(quoted[1 : len(quoted)-1])
}
