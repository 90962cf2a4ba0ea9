package color

// Ids are read and written eight digits at a time, in the bytes of a word: a Wasm VM
// pays dearly for branches and for each byte that is touched alone. (SWAR; see
// H. S. Warren, Hacker's Delight, chapter 6.)

const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// word is eight bytes of s from i on, the first in the lowest byte.
func word(s string, i int) uint64 {
	s = s[i : i+8]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// lowerHex is highs where all bytes of w are lower-case hex digits. Adding to a byte
// above 0x7f may carry into the next one, which does no harm: w is refused for it.
func lowerHex(w uint64) uint64 {
	digit := (w + (0x80-'0')*ones) &^ (w + (0x80-'9'-1)*ones)
	letter := (w + (0x80-'a')*ones) &^ (w + (0x80-'f'-1)*ones)
	return (digit | letter) &^ w & highs
}

// zeros is a word of '0'.
const zeros = '0' * ones

// hexText is the eight digits of four bytes; the lowest byte comes first.
func hexText(v uint32) uint64 {
	x := uint64(v)
	x = (x | x<<16) & 0x0000ffff0000ffff
	x = (x | x<<8) & 0x00ff00ff00ff00ff
	x = x>>4&0x000f000f000f000f | x<<8&0x0f000f000f000f00
	letters := (x + 6*ones) >> 4 & ones
	return x + zeros + letters*('a'-'9'-1)
}

// hexByte reads two lower-case digits.
func hexByte(hi, lo byte) (v byte, ok bool) {
	h, ok1 := hexDigit(hi)
	l, ok2 := hexDigit(lo)
	return h<<4 | l, ok1 && ok2
}

func hexDigit(b byte) (v byte, ok bool) {
	switch {
	case '0' <= b && b <= '9':
		return b - '0', true
	case 'a' <= b && b <= 'f':
		return b - 'a' + 10, true
	}
	return 0, false
}
