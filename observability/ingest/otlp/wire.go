package otlp

import (
	"errors"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Spans are read from protobuf's wire format directly: structs of generated code, several
// allocations an attribute, were most of what receiving a span cost. Text is a part of the
// message, which is one string, and is not copied.

var errMalformed = errors.New("malformed protobuf")

// field is one field of a message: a number, or text, bytes or a message.
type field struct {
	num   protowire.Number
	value uint64 // varint, fixed32 or fixed64
	text  string // length-delimited
}

// fields calls each for the fields of a message in the order in which they stand.
// Each field's wire type must be that of its kind, which want gives; others are skipped,
// as protobuf does with unknown ones.
func fields(m string, want func(protowire.Number) protowire.Type, each func(field) error) error {
	for len(m) > 0 {
		tag, n := varint(m)
		if n == 0 {
			return errMalformed
		}
		m = m[n:]
		num, typ := protowire.Number(tag>>3), protowire.Type(tag&7)
		if num < protowire.MinValidNumber || num > protowire.MaxValidNumber {
			return errMalformed
		}
		f := field{num: num}
		switch typ {
		case protowire.VarintType:
			f.value, n = varint(m)
			if n == 0 {
				return errMalformed
			}
			m = m[n:]
		case protowire.Fixed64Type:
			if len(m) < 8 {
				return errMalformed
			}
			f.value, m = littleEndian(m, 8), m[8:]
		case protowire.Fixed32Type:
			if len(m) < 4 {
				return errMalformed
			}
			f.value, m = littleEndian(m, 4), m[4:]
		case protowire.BytesType:
			size, n := varint(m)
			if n == 0 || size > uint64(len(m)-n) {
				return errMalformed
			}
			f.text, m = m[n:n+int(size)], m[n+int(size):]
		case protowire.StartGroupType: // nothing of OTLP is one; rare enough to be copied
			size := protowire.ConsumeFieldValue(num, typ, []byte(m))
			if size < 0 {
				return errMalformed
			}
			m = m[size:]
			continue
		default:
			return errMalformed
		}
		if typ != want(num) {
			continue
		}
		if err := each(f); err != nil {
			return err
		}
	}
	return nil
}

// varint reads a number of up to ten bytes; n is zero where there is none.
func varint(m string) (v uint64, n int) {
	for shift := uint(0); n < len(m) && shift < 70; shift += 7 {
		b := m[n]
		n++
		if shift == 63 && b > 1 {
			return 0, 0
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v, n
		}
	}
	return 0, 0
}

// littleEndian reads size bytes, the lowest first.
func littleEndian(m string, size int) (v uint64) {
	for i := size - 1; i >= 0; i-- {
		v = v<<8 | uint64(m[i])
	}
	return v
}

// utf8Text is a field that must be text.
func utf8Text(f field) (string, error) {
	if !utf8.ValidString(f.text) {
		return "", errors.New("text is not UTF-8")
	}
	return f.text, nil
}

func double(bits uint64) float64 { return math.Float64frombits(bits) }
