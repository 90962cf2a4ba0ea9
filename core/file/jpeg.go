package file

import (
	"encoding/binary"
	"iter"
)

// segments are those at the beginning of a JPEG by their markers, up to its first scan; the
// last one may be cut off. They end at whatever is unusual, rather than be others than those
// that a decoder finds, which passes over much.
func segments(head []byte) iter.Seq2[byte, []byte] {
	const soi, sof0, rst0, sos, fill = 0xd8, 0xc0, 0xd0, 0xda, 0xff
	return func(yield func(byte, []byte) bool) {
		if len(head) < 2 || head[0] != 0xff || head[1] != soi {
			return
		}
		for at := 2; at+4 <= len(head) && head[at] == 0xff; {
			marker, size := head[at+1], int(binary.BigEndian.Uint16(head[at+2:]))
			if marker < sof0 || marker >= rst0 && marker <= sos || marker == fill || size < 2 {
				return
			}
			if !yield(marker, head[at+4:min(len(head), at+2+size)]) {
				return
			}
			at += 2 + size
		}
	}
}

// jpegMemory is what decoding a JPEG takes at most, in bytes: the samples of its components
// and, of a progressive one, as many coefficients of 4 bytes; and all pixels once more,
// where they are RGB or CMYK.
func jpegMemory(pixels int64, head []byte) int64 {
	const sof0, sof1, sof2 = 0xc0, 0xc1, 0xc2
	for marker, frame := range segments(head) {
		samples, ok := jpegSamples(frame)
		switch {
		case ok && marker == sof2: // progressive
			return samples*(1+4) + pixels*4
		case ok && (marker == sof0 || marker == sof1):
			return samples + pixels*4
		}
	}
	return pixels * (4*(1+4) + 4) // the worst
}

// jpegSamples is how many samples the components of a frame have (ITU T.81, B.2.2), whole
// units of all of them.
func jpegSamples(frame []byte) (n int64, ok bool) {
	if len(frame) < 9 || len(frame) < 6+3*int(frame[5]) {
		return 0, false
	}
	height, width := int64(binary.BigEndian.Uint16(frame[1:])), int64(binary.BigEndian.Uint16(frame[3:]))
	factors := func(component int) (h, v int64) {
		if frame[5] == 1 {
			return 1, 1 // whatever it says
		}
		return int64(frame[7+3*component] >> 4), int64(frame[7+3*component] & 0x0f)
	}
	h, v := factors(0)
	if h == 0 || v == 0 {
		return 0, false
	}
	units := (width + 8*h - 1) / (8 * h) * ((height + 8*v - 1) / (8 * v))
	for i := range int(frame[5]) {
		h, v := factors(i)
		n += units * h * v * 64
	}
	return n, true
}
