package color

import "github.com/tracegate/tracegate/mesh/group"

const (
	flagSampled = 0x01
	flagRandom  = 0x02 // W3C Trace Context level 2: the last seven bytes of the id are random
)

// parent is a client's traceparent.
type parent struct {
	traceID string
	spanID  string
	flags   byte
}

// parseTraceparent reads a W3C Trace Context level 2 header. Of a version it does
// not know it takes what version 00 has, as the specification asks.
func parseTraceparent(s string) (p parent, ok bool) {
	const size = 55
	if len(s) < size || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return p, false
	}
	version := s[:2]
	if hex, _ := lowerHex(version); !hex || version == "ff" {
		return p, false
	}
	if len(s) > size && (version == "00" || s[size] != '-') {
		return p, false
	}
	p.traceID, p.spanID = s[3:35], s[36:52]
	if hex, zero := lowerHex(p.traceID); !hex || zero {
		return p, false
	}
	if hex, zero := lowerHex(p.spanID); !hex || zero {
		return p, false
	}
	if hex, _ := lowerHex(s[53:55]); !hex {
		return p, false
	}
	p.flags = unhex(s[53])<<4 | unhex(s[54])
	return p, true
}

// Random is the randomness of one assignment: twelve bytes for the trace id and
// eight for the span id.
type Random [20]byte

// appendTraceparent appends a traceparent of color c. It never yields a zero span
// id, nor a zero trace id for baseline.
func appendTraceparent(dst []byte, c group.Color, rnd *Random, flags byte) []byte {
	rnd[11] |= zeroBit(rnd[:12])
	rnd[19] |= zeroBit(rnd[12:])
	dst = append(dst, "00-"...)
	dst = c.Append(dst)
	dst = appendHex(dst, rnd[:12])
	dst = append(dst, '-')
	dst = appendHex(dst, rnd[12:])
	dst = append(dst, '-')
	return appendHex(dst, []byte{flags})
}

// zeroBit is 1 where all of b is zero.
func zeroBit(b []byte) byte {
	for _, x := range b {
		if x != 0 {
			return 0
		}
	}
	return 1
}
