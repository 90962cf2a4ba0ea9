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
	if s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return 0, false
	}
	version, okVersion := hexByte(s[0], s[1])
	flags, okFlags := hexByte(s[53], s[54])
	t0, t1, t2, t3 := word(s, 3), word(s, 11), word(s, 19), word(s, 27)
	s0, s1 := word(s, 36), word(s, 44)
	if lowerHex(t0)&lowerHex(t1)&lowerHex(t2)&lowerHex(t3)&lowerHex(s0)&lowerHex(s1) != highs {
		return 0, false
	}
	zero := (t0^zeros)|(t1^zeros)|(t2^zeros)|(t3^zeros) == 0 || (s0^zeros)|(s1^zeros) == 0
	return flags, okVersion && okFlags && version != 0xff && !zero
}

// Random is the randomness of one assignment: a trace id, of which the first four
// bytes are not used, and a span id.
type Random [24]byte

// writeTraceparent writes a traceparent of color c, with flags of one digit. It
// never yields a zero span id, nor a zero trace id for baseline.
func writeTraceparent(out *[traceparentSize]byte, c group.Color, rnd *Random, flags byte) {
	binary.BigEndian.PutUint32(rnd[:], uint32(c))
	part := func(i int) uint32 { return binary.LittleEndian.Uint32(rnd[4*i:]) }
	write := func(at, i int) { binary.LittleEndian.PutUint64(out[at:], hexText(part(i))) }
	out[0], out[1], out[2] = '0', '0', '-'
	write(3, 0)
	write(11, 1)
	write(19, 2)
	write(27, 3)
	out[35] = '-'
	write(36, 4)
	write(44, 5)
	if part(1)|part(2)|part(3) == 0 {
		out[34] = '1'
	}
	if part(4)|part(5) == 0 {
		out[51] = '1'
	}
	out[52], out[53], out[54] = '-', '0', '0'+flags
}
