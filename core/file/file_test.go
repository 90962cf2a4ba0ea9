package file_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/file"
	"github.com/tracegate/tracegate/core/protocol"
)

var ann = chat.User{ID: "u1", Name: "ann"}

// memory is a Store of one process.
type memory struct {
	mu    sync.Mutex
	files map[string]chat.File
	whole map[string]bool
	quota bool // it is used up
}

func (m *memory) BeginFile(_ context.Context, f chat.File, _ chat.FileQuota) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.quota {
		return chat.ErrLimit
	}
	m.files[f.ID] = f
	return nil
}

func (m *memory) FinishFile(_ context.Context, f chat.File) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[f.ID], m.whole[f.ID] = f, true
	return nil
}

func (m *memory) File(_ context.Context, userID, id string) (chat.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.files[id]; f.OwnerID == userID && m.whole[id] {
		return f, nil
	}
	return chat.File{}, chat.ErrNotFound
}

func (m *memory) DoomFiles(_ context.Context, before time.Time, limit int) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for id, f := range m.files {
		if f.UploadedAt.Before(before) && len(out) < limit {
			out = append(out, id)
			delete(m.whole, id)
		}
	}
	return out, nil
}

func (m *memory) ForgetFile(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.files, id)
	return nil
}

func (m *memory) listed() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.files))
}

type bench struct {
	*file.Files
	store *memory
	reg   *prometheus.Registry
	clock time.Time
}

func newFiles(t testing.TB, blobs file.Blobs, edit func(*file.Config)) *bench {
	t.Helper()
	cfg := file.DefaultConfig()
	cfg.MaxSize = 1 << 20
	if edit != nil {
		edit(&cfg)
	}
	b := &bench{store: &memory{files: map[string]chat.File{}, whole: map[string]bool{}}, reg: prometheus.NewRegistry(), clock: time.Now()}
	var err error
	b.Files, err = file.New(cfg, b.store, blobs, func() time.Time { return b.clock }, b.reg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func picture(w, h int, alpha uint8) *image.NRGBA {
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.SetNRGBA(x, y, color.NRGBA{R: uint8(x * 255 / w), G: uint8(y * 255 / h), B: 90, A: alpha})
		}
	}
	return m
}

func encoded(encode func(io.Writer, image.Image) error, m image.Image) []byte {
	var b bytes.Buffer
	if err := encode(&b, m); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func pngOf(m image.Image) []byte { return encoded(png.Encode, m) }

func jpegOf(m image.Image) []byte {
	return encoded(func(w io.Writer, m image.Image) error { return jpeg.Encode(w, m, nil) }, m)
}

func gifOf(m image.Image) []byte {
	return encoded(func(w io.Writer, m image.Image) error { return gif.Encode(w, m, nil) }, m)
}

// turnedJPEG puts an EXIF orientation into a JPEG.
func turnedJPEG(m image.Image, orientation uint16) []byte {
	exif := []byte("Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00")
	binary.BigEndian.PutUint16(exif[24:], orientation)
	plain := jpegOf(m)
	out := append([]byte{}, plain[:2]...)
	out = append(out, 0xff, 0xe1, 0, byte(len(exif)+2))
	return append(append(out, exif...), plain[2:]...)
}

func code(err error) string {
	var e *protocol.Error
	if !errors.As(err, &e) {
		return fmt.Sprint(err)
	}
	return string(e.Code) + " " + e.Field
}

func TestUploadFindsOutWhatItIs(t *testing.T) {
	onEach(t, func(t *testing.T, p place) {
		for _, c := range []struct {
			name, content      string
			wantName, mime     string
			width, height      int
			thumbnail, refused string
		}{
			{"cat.png", string(pngOf(picture(900, 300, 255))), "cat.png", "image/png", 900, 300, "image/jpeg", ""},
			{"ghost.png", string(pngOf(picture(30, 10, 100))), "ghost.png", "image/png", 30, 10, "image/png", ""},
			{"photo.JPG", string(jpegOf(picture(600, 800, 255))), "photo.JPG", "image/jpeg", 600, 800, "image/jpeg", ""},
			{"upright.jpg", string(turnedJPEG(picture(40, 20, 255), 6)), "upright.jpg", "image/jpeg", 20, 40, "image/jpeg", ""},
			{"wave.gif", string(gifOf(picture(8, 8, 255))), "wave.gif", "image/gif", 8, 8, "image/jpeg", ""},
			{"notes.md", "# hello\nworld\n", "notes.md", "text/plain", 0, 0, "", ""},
			{"notes", "hello", "notes.txt", "text/plain", 0, 0, "", ""},
			{"cv.exe", "%PDF-1.7\n", "cv.exe.pdf", "application/pdf", 0, 0, "", ""},
			{`C:\fakepath\..\a/b/плана.txt`, "x", "плана.txt", "text/plain", 0, 0, "", ""},
			{"run.bat", "del *.*", "run.bat.txt", "text/plain", 0, 0, "", ""},
			{"", "x", "file.txt", "text/plain", 0, 0, "", ""},
			{"harmless.png", "MZ\x90\x00 program", "", "", 0, 0, "", "invalid_argument file"},
			{"a.txt", "\x7fELF\x02\x01\x01\x00 program", "", "", 0, 0, "", "invalid_argument file"},
			{"a.txt", "<html><script>alert(1)</script></html>", "", "", 0, 0, "", "invalid_argument file"},
			{"a.png", `<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>`, "", "", 0, 0, "", "invalid_argument file"},
			{"a.txt", "#!/bin/sh\nrm -rf /", "", "", 0, 0, "", "invalid_argument file"},
			{"a.bin", "\x00\x01\x02\x03\x04", "", "", 0, 0, "", "invalid_argument file"},
			{"a.txt", "", "", "", 0, 0, "", "invalid_argument file"},
			{"a.txt", strings.Repeat("x", 1<<20), "a.txt", "text/plain", 0, 0, "", ""},
			{"a.txt", strings.Repeat("x", 1<<20+1), "", "", 0, 0, "", "too_large file"},
			{"bomb.png", bombPNG(30_000, 30_000), "bomb.png", "image/png", 30_000, 30_000, "", ""},
			{"cut.png", string(pngOf(picture(90, 90, 255))[:200]), "cut.png", "image/png", 90, 90, "", ""},
			{"head.png", "\x89PNG\r\n\x1a\n", "head.png", "image/png", 0, 0, "", ""},
		} {
			b := newFiles(t, p.blobs, nil)
			got, err := b.Upload(t.Context(), ann, c.name, strings.NewReader(c.content), 0)
			if c.refused != "" {
				if code(err) != c.refused || len(b.store.listed()) > 0 {
					t.Errorf("%s: %v, left %v", c.name, err, b.store.listed())
				}
				continue
			}
			want := protocol.File{ID: got.ID, Name: c.wantName, Type: c.mime, Size: int64(len(c.content)), Width: c.width, Height: c.height, Thumbnail: c.thumbnail != ""}
			if err != nil || got != want {
				t.Errorf("%s: %v\n got %+v\nwant %+v", c.name, err, got, want)
				continue
			}
			if string(read(t, p.blobs, got.ID)) != c.content {
				t.Errorf("%s: another content", c.name)
			}
			if c.thumbnail == "" {
				continue
			}
			checkThumbnail(t, b, got, c.thumbnail)
		}
	})
}

// bombPNG says that it is large, and has nothing.
func bombPNG(w, h uint32) string {
	small := pngOf(image.NewGray(image.Rect(0, 0, 1, 1)))
	binary.BigEndian.PutUint32(small[16:], w)
	binary.BigEndian.PutUint32(small[20:], h)
	// The checksum of IHDR must be right, or it is refused before its size is looked at.
	binary.BigEndian.PutUint32(small[29:], crc32.ChecksumIEEE(small[12:29]))
	return string(small)
}

func checkThumbnail(t *testing.T, b *bench, f protocol.File, mime string) {
	t.Helper()
	r, kind, err := b.Thumbnail(t.Context(), ann.ID, f.ID)
	if err != nil || kind != mime {
		t.Fatalf("%s: thumbnail %s, %v", f.Name, kind, err)
	}
	defer r.Close()
	m, _, err := image.Decode(r)
	if err != nil {
		t.Fatal(err)
	}
	size := m.Bounds().Size()
	if max(size.X, size.Y) > 480 || max(size.X, size.Y) != min(480, max(f.Width, f.Height)) || (size.X > size.Y) != (f.Width > f.Height) {
		t.Errorf("%s: thumbnail of %dx%d is %v", f.Name, f.Width, f.Height, size)
	}
}

// TestTurnedPicture: a thumbnail has the corner on top that the camera had on top.
func TestTurnedPicture(t *testing.T) {
	p := folder(t)
	// Red in the top left corner of what the sensor saw, blue elsewhere.
	m := image.NewNRGBA(image.Rect(0, 0, 64, 32))
	for y := range 32 {
		for x := range 64 {
			m.SetNRGBA(x, y, color.NRGBA{B: 255, A: 255})
			if x < 16 && y < 16 {
				m.SetNRGBA(x, y, color.NRGBA{R: 255, A: 255})
			}
		}
	}
	for o, corner := range map[uint16]string{0: "top left", 1: "top left", 2: "top right", 3: "bottom right", 4: "bottom left", 5: "top left", 6: "top right", 7: "bottom right", 8: "bottom left", 9: "top left"} {
		b := newFiles(t, p.blobs, nil)
		f, err := b.Upload(t.Context(), ann, "x.jpg", bytes.NewReader(turnedJPEG(m, o)), 0)
		if err != nil {
			t.Fatal(err)
		}
		r, _, err := b.Thumbnail(t.Context(), ann.ID, f.ID)
		if err != nil {
			t.Fatal(err)
		}
		small, err := jpeg.Decode(r)
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		size := small.Bounds().Size()
		if sideways := o >= 5 && o <= 8; sideways != (size.Y > size.X) || f.Width != size.X {
			t.Errorf("orientation %d: %v, file %dx%d", o, size, f.Width, f.Height)
		}
		for name, at := range map[string]image.Point{
			"top left": {4, 4}, "top right": {size.X - 5, 4}, "bottom left": {4, size.Y - 5}, "bottom right": {size.X - 5, size.Y - 5},
		} {
			red, _, blue, _ := small.At(at.X, at.Y).RGBA()
			if (red > blue) != (name == corner) {
				t.Errorf("orientation %d: %s is red: %v", o, name, red > blue)
			}
		}
	}
}

func TestUploadIsRefused(t *testing.T) {
	p := folder(t)
	b := newFiles(t, p.blobs, func(c *file.Config) { c.Uploads = 4 })
	b.store.quota = true
	if _, err := b.Upload(t.Context(), ann, "a", strings.NewReader("x"), 1); code(err) != "permission_denied file" {
		t.Errorf("quota: %v", err)
	}
	b.store.quota = false
	if _, err := b.Upload(t.Context(), ann, "a", io.MultiReader(strings.NewReader(strings.Repeat("x", 5000)), &broken{0}), 0); code(err) != "invalid_argument file" {
		t.Errorf("broken body: %v", err)
	}
	if left := b.store.listed(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	// A quarter of the places is one user's.
	pr, pw := io.Pipe()
	first := make(chan error, 1)
	go func() {
		_, err := b.Upload(t.Context(), ann, "a", pr, 0)
		first <- err
	}()
	_, _ = pw.Write([]byte("x"))
	if _, err := b.Upload(t.Context(), ann, "b", strings.NewReader("x"), 0); code(err) != "rate_limited " {
		t.Errorf("second at a time: %v", err)
	}
	if _, err := b.Upload(t.Context(), chat.User{ID: "u2"}, "b", strings.NewReader("x"), 0); err != nil {
		t.Errorf("another user: %v", err)
	}
	pw.Close()
	if err := <-first; err != nil {
		t.Error(err)
	}
	if _, err := b.Upload(t.Context(), ann, "b", strings.NewReader("x"), 0); err != nil {
		t.Errorf("after the first: %v", err)
	}
	for result, want := range map[string]float64{"ok": 3, "quota": 1, "client": 1, "busy": 1} {
		if got := count(t, b.reg, "core_file_uploads_total", result); got != want {
			t.Errorf("counted %v %s, want %v", got, result, want)
		}
	}
}

func count(t *testing.T, reg *prometheus.Registry, name, result string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no %s{result=%q}", name, result)
	return 0
}

func TestSweepDeletesContent(t *testing.T) {
	onEach(t, func(t *testing.T, p place) {
		b := newFiles(t, p.blobs, nil)
		f, err := b.Upload(t.Context(), ann, "a.png", bytes.NewReader(pngOf(picture(20, 20, 255))), 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Sweep(t.Context()); err != nil || len(b.store.listed()) != 1 {
			t.Fatalf("%v, swept too early", err)
		}
		b.clock = b.clock.Add(25 * time.Hour)
		if err := b.Sweep(t.Context()); err != nil || len(b.store.listed()) != 0 {
			t.Fatalf("%v, left %v", err, b.store.listed())
		}
		for _, key := range []string{f.ID, f.ID + ".thumbnail"} {
			if _, err := p.blobs.Open(t.Context(), key); !errors.Is(err, file.ErrNoBlob) {
				t.Errorf("%s is still there: %v", key, err)
			}
		}
	})
}

// TestS3IsAway: uploads and downloads fail as temporary while the server is down, and
// work again when it is back; what was stored is there.
func TestS3IsAway(t *testing.T) {
	server := startS3(t)
	b := newFiles(t, newS3(t, server), nil)
	f, err := b.Upload(t.Context(), ann, "a.png", bytes.NewReader(pngOf(picture(20, 20, 255))), 0)
	if err != nil {
		t.Fatal(err)
	}
	server.stop()
	start := time.Now()
	if _, err := b.Upload(t.Context(), ann, "b.txt", strings.NewReader("x"), 0); code(err) != "unavailable " {
		t.Errorf("upload: %v", err)
	}
	if _, _, err := b.Thumbnail(t.Context(), ann.ID, f.ID); code(err) != "unavailable " {
		t.Errorf("thumbnail: %v", err)
	}
	if _, err := b.Link(t.Context(), ann.ID, f.ID); err != nil {
		t.Errorf("a link needs nobody: %v", err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("users waited for %v", d)
	}
	server.start()
	if _, err := b.Upload(t.Context(), ann, "b.txt", strings.NewReader("x"), 0); err != nil {
		t.Errorf("after it is back: %v", err)
	}
	checkThumbnail(t, b, f, "image/jpeg")
}

func TestConfigNamesTheKey(t *testing.T) {
	for want, edit := range map[string]func(*file.Config){
		"max_size":    func(c *file.Config) { c.MaxSize = 0 },
		"types":       func(c *file.Config) { c.Types = nil },
		"quota":       func(c *file.Config) { c.Quota.Bytes = 1 },
		"quota_files": func(c *file.Config) { c.Quota.Files = 0 },
		"uploads":     func(c *file.Config) { c.Uploads = 0 },
		"link_for":    func(c *file.Config) { c.LinkFor = 8 * 24 * time.Hour },
		"grace":       func(c *file.Config) { c.Grace = 0 },
		"thumbnail":   func(c *file.Config) { c.Thumbnail = 0 },
	} {
		c := file.DefaultConfig()
		edit(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), want+":") {
			t.Errorf("%s: %v", want, err)
		}
	}
	good := file.S3Config{Endpoint: "https://s3.example.org", Region: "r", Bucket: "b", AccessKey: "a", SecretKey: "s"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for want, edit := range map[string]func(*file.S3Config){
		"endpoint":   func(c *file.S3Config) { c.Endpoint = "s3.example.org" },
		"public":     func(c *file.S3Config) { c.Public = "https://x/bucket" },
		"bucket":     func(c *file.S3Config) { c.Bucket = "" },
		"region":     func(c *file.S3Config) { c.Region = "" },
		"access_key": func(c *file.S3Config) { c.SecretKey = "" },
	} {
		c := good
		edit(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), want+":") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// FuzzUpload: whatever is sent, it is taken whole or refused with an error of the list.
func FuzzUpload(f *testing.F) {
	f.Add("a.png", pngOf(picture(3, 3, 255)))
	f.Add("a.jpg", turnedJPEG(picture(3, 3, 255), 6))
	f.Add("a.gif", gifOf(picture(3, 3, 255)))
	f.Add("b.png", []byte(bombPNG(1<<31-1, 1<<31-1)))
	f.Add("a.webp", []byte("RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00"))
	f.Add("\u202egnp.exe", []byte("MZ"))
	f.Add("", []byte(nil))
	f.Add("a"+strings.Repeat(".", 300)+"ng", pngOf(picture(3, 3, 255)))
	p := folder(f)
	b := newFiles(f, p.blobs, func(c *file.Config) { c.MaxDecode = 1 << 20 })
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		got, err := b.Upload(t.Context(), ann, name, bytes.NewReader(content), 0)
		if err != nil {
			var e *protocol.Error
			if !errors.As(err, &e) || e.Code == protocol.CodeInternal {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(read(t, p.blobs, got.ID), content) || got.Name == "" || chat.CleanFileName(got.Name) != got.Name {
			t.Fatalf("%+v", got)
		}
		if err := p.blobs.Delete(t.Context(), got.ID); err != nil {
			t.Fatal(err)
		}
		if err := p.blobs.Delete(t.Context(), got.ID+".thumbnail"); err != nil {
			t.Fatal(err)
		}
	})
}
