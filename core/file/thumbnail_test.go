package file_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/file"
)

// progressive is a gray JPEG of 64x64 pixels with so many scans, of a few bytes each.
func progressive(scans int) []byte {
	const eob6 = 0x60 // of a run of 64 blocks
	out := []byte{0xff, 0xd8, 0xff, 0xc2, 0, 11, 8, 0, 64, 0, 64, 1, 1, 0x11, 0}
	out = append(out, table(0x00, 0)...)
	out = append(out, table(0x10, eob6)...)
	out = append(out, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, 0)
	out = append(out, make([]byte, 8)...) // a bit for each block
	for range scans - 1 {
		out = append(out, 0xff, 0xda, 0, 8, 1, 1, 0, 1, 63, 0, 0x01) // the code, and six bits of the run
	}
	return append(out, 0xff, 0xd9)
}

// table is a Huffman table in which 0 is a symbol.
func table(class, symbol byte) []byte {
	return append([]byte{0xff, 0xc4, 0, 20, class, 1}, append(make([]byte, 15), symbol)...)
}

// TestPictureThatKeepsADecoderBusy is a file, without a thumbnail.
func TestPictureThatKeepsADecoderBusy(t *testing.T) {
	p := folder(t)
	for _, c := range []struct {
		name      string
		content   []byte
		within    time.Duration
		thumbnail bool
	}{
		{"as many scans as there may be", progressive(100), time.Minute, true},
		{"one more", progressive(101), time.Minute, false},
		{"the same bytes in another type", append(pngOf(picture(64, 64, 255)), bytes.Repeat([]byte{0xff, 0xda}, 1000)...), time.Minute, true},
		{"it takes too long", jpegOf(picture(64, 64, 255)), time.Nanosecond, false},
	} {
		b := newFiles(t, p.blobs, func(cfg *file.Config) { cfg.MaxScanned, cfg.DecodeFor = 100*64*64, c.within })
		f, err := b.Upload(t.Context(), ann, "a", bytes.NewReader(c.content), 0)
		if err != nil || f.Width != 64 || f.Thumbnail != c.thumbnail {
			t.Errorf("%s: %+v, %v", c.name, f, err)
		}
		if broken := count(t, b.reg, "core_file_thumbnails_total", "broken"); (broken == 1) == c.thumbnail {
			t.Errorf("%s: %v counted as broken", c.name, broken)
		}
	}
}

// leaving is a place whose uploader is gone once its picture is being decoded.
type leaving struct {
	file.Blobs
	leave  func()
	opened int
	after  int // bytes read since
}

func (l *leaving) Open(ctx context.Context, key string) (io.ReadCloser, error) {
	r, err := l.Blobs.Open(ctx, key)
	if l.opened++; l.opened == 1 || err != nil { // to find its size
		return r, err
	}
	return &left{r, l}, nil
}

type left struct {
	io.ReadCloser
	l *leaving
}

func (r *left) Read(p []byte) (int, error) {
	r.l.leave()
	n, err := r.ReadCloser.Read(p)
	r.l.after += n
	return n, err
}

// TestDecodingEndsWithItsUpload: a client that has gone keeps nobody waiting.
func TestDecodingEndsWithItsUpload(t *testing.T) {
	noise := image.NewGray(image.Rect(0, 0, 1000, 900))
	random := rand.New(rand.NewPCG(1, 2))
	for i := range noise.Pix {
		noise.Pix[i] = byte(random.Uint32())
	}
	content := pngOf(noise)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := &leaving{Blobs: folder(t).blobs, leave: cancel}
	b := newFiles(t, l, nil)
	if _, err := b.Upload(ctx, ann, "a.png", bytes.NewReader(content), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if l.after == 0 || l.after > len(content)/2 {
		t.Errorf("%d of %d bytes were decoded after the client had gone", l.after, len(content))
	}
	if listed := b.store.listed(); len(listed) > 0 {
		t.Errorf("left %v", listed)
	}
}

// frame is a JPEG that has a size and nothing to decode; its components have such factors.
func frame(marker byte, w, h uint16, factors ...byte) []byte {
	out := binary.BigEndian.AppendUint16([]byte{0xff, marker}, uint16(8+3*len(factors)))
	out = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(append(out, 8), h), w)
	out = append(out, byte(len(factors)))
	for i, f := range factors {
		out = append(out, byte(i+1), f, 0)
	}
	return append(out, 0xff, 0xda, 0, 2)
}

// deepPNG is a bombPNG of 16 bits, of gray (0) or of colors (2).
func deepPNG(w, h uint32, color byte) []byte {
	out := []byte(bombPNG(w, h))
	out[24], out[25] = 16, color
	binary.BigEndian.PutUint32(out[29:], crc32.ChecksumIEEE(out[12:29]))
	return out
}

// TestMemoryOfDecodingIsBounded: what could take more than 192 MiB is not decoded; usual
// photographs are.
func TestMemoryOfDecodingIsBounded(t *testing.T) {
	const baseline, progressive = 0xc0, 0xc2
	soi, app := []byte{0xff, 0xd8}, slices.Concat([]byte{0xff, 0xe1, 0xff, 0xff}, make([]byte, 0xfffd))
	p := folder(t)
	for _, c := range []struct {
		name    string
		content []byte
		large   bool
	}{
		{"a photograph", slices.Concat(soi, frame(baseline, 4000, 3000, 0x22, 0x11, 0x11)), false},
		{"a large one", slices.Concat(soi, frame(baseline, 6000, 5000, 0x22, 0x11, 0x11)), false},
		{"after as much as it says of itself", slices.Concat(soi, bytes.Repeat(app, 10), frame(baseline, 6000, 5000, 0x22, 0x11, 0x11)), false},
		{"too large a one", slices.Concat(soi, frame(baseline, 7000, 6000, 0x22, 0x11, 0x11)), true},
		{"in passes", slices.Concat(soi, frame(progressive, 4000, 3000, 0x22, 0x11, 0x11)), false},
		{"in passes, with all colors", slices.Concat(soi, frame(progressive, 4000, 3000, 0x11, 0x11, 0x11)), true},
		{"in passes, with all colors, by twos", slices.Concat(soi, frame(progressive, 4000, 3000, 0x22, 0x22, 0x22)), true},
		{"in passes, for printers", slices.Concat(soi, frame(progressive, 3000, 3000, 0x11, 0x11, 0x11, 0x11)), true},
		{"in passes, without colors", slices.Concat(soi, frame(progressive, 5000, 4000, 0x44)), false},
		{"what only a decoder finds", slices.Concat(soi, []byte{0xff}, frame(baseline, 4000, 3000, 0x22, 0x11, 0x11)), true},
		{"of 16 bits", deepPNG(5000, 4000, 2), true},
		{"of 16 bits, gray", deepPNG(5000, 4000, 0), true},
		{"of more pixels than can be counted", deepPNG(1<<31-1, 1<<29-1, 2), true},
	} {
		b := newFiles(t, p.blobs, nil)
		f, err := b.Upload(t.Context(), ann, "a", bytes.NewReader(c.content), 0)
		if err != nil || f.Width == 0 || f.Thumbnail {
			t.Errorf("%s: %+v, %v", c.name, f, err)
		}
		if large := count(t, b.reg, "core_file_thumbnails_total", "large"); (large == 1) != c.large {
			t.Errorf("%s: %v counted as large", c.name, large)
		}
	}
}
