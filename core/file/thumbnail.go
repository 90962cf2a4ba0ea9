package file

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/draw"
	"golang.org/x/image/webp"

	"github.com/tracegate/tracegate/core/chat"
)

var errPicture = errors.New("not a picture that can be read")

// picture finds the size of a picture that is kept already, and makes its thumbnail. A
// picture that is broken or would take too much memory is a file without a thumbnail;
// only trouble with the place of content is an error.
func (f *Files) picture(ctx context.Context, file *chat.File) error {
	select {
	case f.decode <- struct{}{}: // one at a time bounds the memory that they take
		defer func() { <-f.decode }()
	case <-ctx.Done():
		return ctx.Err()
	}
	about, err := f.about(ctx, file)
	if err != nil {
		return f.unread(err)
	}
	file.Width, file.Height = about.size.X, about.size.Y
	if about.memory > f.cfg.MaxDecode {
		f.metrics.thumbnails.WithLabelValues("large").Inc()
		return nil
	}
	small, mime, err := f.shrink(ctx, file, about)
	if err != nil {
		return f.unread(err)
	}
	if _, err := f.blobs.Put(ctx, thumbnailKey(file.ID), mime, bytes.NewReader(small)); err != nil {
		return &blobError{fmt.Errorf("put thumbnail: %w", err)}
	}
	file.ThumbnailType, file.Thumbnail = mime, true
	f.metrics.thumbnails.WithLabelValues("made").Inc()
	return nil
}

// unread lets a picture be a file without a thumbnail.
func (f *Files) unread(err error) error {
	if errors.Is(err, errPicture) {
		f.metrics.thumbnails.WithLabelValues("broken").Inc()
		return nil
	}
	return err
}

// about is what the first bytes of a picture say.
type about struct {
	size   image.Point // as it is to be shown
	turned orientation
	memory int64 // bytes that decoding takes, at most
}

func (f *Files) about(ctx context.Context, file *chat.File) (about, error) {
	r, err := f.blobs.Open(ctx, file.ID)
	if err != nil {
		return about{}, &blobError{fmt.Errorf("open content: %w", err)}
	}
	defer r.Close()
	read := &remembered{r: r}
	cfg, err := decodeConfig(file.Type, bufio.NewReader(read))
	if read.err != nil {
		return about{}, &blobError{read.err}
	}
	if err != nil || cfg.Width < 1 || cfg.Height < 1 {
		return about{}, fmt.Errorf("%w: %w", errPicture, err)
	}
	a := about{size: image.Pt(cfg.Width, cfg.Height), memory: memory(file, cfg, read.head.Bytes())}
	if file.Type == "image/jpeg" {
		if a.turned = findOrientation(read.head.Bytes()); a.turned.sideways() {
			a.size.X, a.size.Y = a.size.Y, a.size.X
		}
	}
	return a, nil
}

// memory is what decoding takes at most: the picture itself, what it is put together from,
// and what is kept between several passes.
func memory(file *chat.File, cfg image.Config, head []byte) int64 {
	pixels := min(int64(cfg.Width)*int64(cfg.Height), 1<<40) // times a few it must not overflow
	switch deep := cfg.ColorModel == color.Gray16Model || cfg.ColorModel == color.RGBA64Model || cfg.ColorModel == color.NRGBA64Model; {
	case file.Type == "image/jpeg":
		return jpegMemory(pixels, head)
	case file.Type == "image/webp":
		return pixels*(4+4+1) + file.Size // with its palette undone and what is transparent apart; a lossy one is read whole
	case deep:
		return pixels * (8 + 4)
	default:
		return pixels * (4 + 2) // an interlaced one comes in passes, of which the last is half of it
	}
}

// remembered keeps what was read first, and what went wrong.
type remembered struct {
	r    io.Reader
	head bytes.Buffer
	err  error
}

// maxHead is how far into a JPEG's segments is looked; of a printer's picture half a MiB
// of them are its colors.
const maxHead = 1 << 20

func (r *remembered) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if room := maxHead - r.head.Len(); room > 0 {
		r.head.Write(p[:min(n, room)])
	}
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// decodeConfig and decode know the types by what was found, not by what registered itself.
func decodeConfig(mime string, r io.Reader) (image.Config, error) {
	switch mime {
	case "image/png":
		return png.DecodeConfig(r)
	case "image/jpeg":
		return jpeg.DecodeConfig(r)
	case "image/gif":
		return gif.DecodeConfig(r)
	case "image/webp":
		return webp.DecodeConfig(r)
	default:
		return image.Config{}, errors.New("no decoder for " + mime)
	}
}

func decode(mime string, r io.Reader) (image.Image, error) {
	switch mime {
	case "image/png":
		return png.Decode(r)
	case "image/jpeg":
		return jpeg.Decode(r)
	case "image/gif":
		return gif.Decode(r) // the first frame
	case "image/webp":
		return webp.Decode(r)
	default:
		return nil, errors.New("no decoder for " + mime)
	}
}

// shrink returns a thumbnail: PNG where something shines through, else JPEG.
func (f *Files) shrink(ctx context.Context, file *chat.File, a about) (small []byte, mime string, err error) {
	r, err := f.blobs.Open(ctx, file.ID)
	if err != nil {
		return nil, "", &blobError{fmt.Errorf("open content: %w", err)}
	}
	defer r.Close()
	read := &remembered{r: r}
	limit, cancel := context.WithTimeoutCause(ctx, f.cfg.DecodeFor, errSlow)
	defer cancel()
	portions := &portions{ctx: limit, r: bufio.NewReaderSize(read, 64<<10), left: f.cfg.MaxScanned}
	if file.Type == "image/jpeg" {
		portions.scan = max(minScan, int64(a.size.X)*int64(a.size.Y))
	}
	picture, err := decode(file.Type, portions)
	switch {
	case read.err != nil:
		return nil, "", &blobError{read.err}
	case err != nil && ctx.Err() != nil:
		return nil, "", ctx.Err()
	case err != nil:
		return nil, "", fmt.Errorf("%w: %w", errPicture, err)
	}
	return thumbnail(picture, a.turned, f.cfg.Thumbnail)
}

// thumbnail scales a picture so that its longest side has at most so many pixels, and
// turns it upright.
func thumbnail(picture image.Image, turned orientation, longest int) (small []byte, mime string, err error) {
	b := picture.Bounds()
	w, h := b.Dx(), b.Dy()
	if m := max(w, h); m > longest {
		w, h = max(1, w*longest/m), max(1, h*longest/m)
	}
	scaled := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.ApproxBiLinear.Scale(scaled, scaled.Bounds(), picture, b, draw.Src, nil)
	upright := turned.apply(scaled)
	var out bytes.Buffer
	if upright.Opaque() {
		err = jpeg.Encode(&out, upright, &jpeg.Options{Quality: 82})
		return out.Bytes(), "image/jpeg", err
	}
	err = png.Encode(&out, upright)
	return out.Bytes(), "image/png", err
}
