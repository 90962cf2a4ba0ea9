package color

import (
	"encoding/binary"

	"github.com/tracegate/tracegate/mesh/group"
)

const traceparentSize = 55

const (
	flagSampled = 0x01
	flagRandom  = 0x02 // W3C Trace Context level 2: the last seven bytes of the id are random
)

// parseTraceparent reads a W3C Trace Context level 2 header and returns its flags;
// ok says that trace id and span id are good. Of a version it does not know it takes
// what version 00 has, as the specification asks.
func parseTraceparent(s string) (flags byte, ok bool) {
	if len(s) < traceparentSize || len(s) > traceparentSize && (s[:2] == "00" || s[traceparentSize] != '-') {
		return 0, false
	}
	var bits [4]byte // of version, trace id, span id, flags: the joined values of their digits
	field := 0
	for i := range traceparentSize {
		if i == 2 || i == 35 || i == 52 {
			if s[i] != '-' {
				return 0, false
			}
			field++
			continue
		}
		bits[field&3] |= hexDigit[s[i]]
	}
	if (bits[0]|bits[1]|bits[2]|bits[3])&notHex != 0 || bits[1] == 0 || bits[2] == 0 || s[:2] == "ff" {
		return 0, false
	}
	return hexDigit[s[53]]<<4 | hexDigit[s[54]], true
}

// Random is the randomness of one assignment: a trace id, of which the first four
// bytes are not used, and a span id.
type Random [24]byte

// writeTraceparent writes a traceparent of color c, with flags of one digit. It
// never yields a zero span id, nor a zero trace id for baseline.
func writeTraceparent(out *[traceparentSize]byte, c group.Color, rnd *Random, flags byte) {
	binary.BigEndian.PutUint32(rnd[:], uint32(c))
	var bits [2]byte // of the random parts of trace id and span id
	for i, b := range rnd {
		at, part := 3+2*i, 0
		if i >= 16 {
			at, part = 4+2*i, 1
		}
		if i >= 4 {
			bits[part] |= b
		}
		out[at], out[at+1] = digits[b>>4], digits[b&0xf]
	}
	if bits[0] == 0 {
		out[34] = '1'
	}
	if bits[1] == 0 {
		out[51] = '1'
	}
	out[0], out[1], out[2], out[35] = '0', '0', '-', '-'
	out[52], out[53], out[54] = '-', '0', '0'+flags
}
