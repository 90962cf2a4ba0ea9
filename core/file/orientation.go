package file

import (
	"bytes"
	"encoding/binary"
	"image"
)

// orientation says how a camera was held: the tag 0x0112 of EXIF, 1 to 8; 1 and what is
// none of these is upright.
type orientation uint16

// sideways says that width and height change places.
func (o orientation) sideways() bool { return o >= 5 && o <= 8 }

// apply turns a picture upright.
func (o orientation) apply(in *image.RGBA) *image.RGBA {
	if o < 2 || o > 8 {
		return in
	}
	w, h := in.Rect.Dx(), in.Rect.Dy()
	outW, outH := w, h
	if o.sideways() {
		outW, outH = h, w
	}
	out := image.NewRGBA(image.Rect(0, 0, outW, outH))
	for y := range h {
		for x := range w {
			toX, toY := x, y
			switch o {
			case 2: // mirrored
				toX = w - 1 - x
			case 3: // half round
				toX, toY = w-1-x, h-1-y
			case 4: // upside down
				toY = h - 1 - y
			case 5: // mirrored, then a quarter
				toX, toY = y, x
			case 6: // a quarter to the left: turn it to the right
				toX, toY = h-1-y, x
			case 7:
				toX, toY = h-1-y, w-1-x
			case 8:
				toX, toY = y, w-1-x
			}
			out.SetRGBA(toX, toY, in.RGBAAt(x, y))
		}
	}
	return out
}

// findOrientation looks into the segments at the beginning of a JPEG for an EXIF header
// (TIFF 6.0 in a segment APP1). What it does not understand is upright.
func findOrientation(head []byte) orientation {
	const app1 = 0xe1
	for marker, segment := range segments(head) {
		if tiff, ok := bytes.CutPrefix(segment, []byte("Exif\x00\x00")); ok && marker == app1 {
			return tiffOrientation(tiff)
		}
	}
	return 1
}

// tiffOrientation reads the first directory of a TIFF header.
func tiffOrientation(tiff []byte) orientation {
	if len(tiff) < 8 {
		return 1
	}
	var order binary.ByteOrder = binary.LittleEndian
	if tiff[0] == 'M' {
		order = binary.BigEndian
	}
	at := int64(order.Uint32(tiff[4:]))
	if at < 8 || at+2 > int64(len(tiff)) {
		return 1
	}
	entries := int64(order.Uint16(tiff[at:]))
	for i := range entries {
		entry := at + 2 + 12*i
		if entry+12 > int64(len(tiff)) {
			return 1
		}
		if order.Uint16(tiff[entry:]) == 0x0112 {
			return orientation(order.Uint16(tiff[entry+8:]))
		}
	}
	return 1
}
