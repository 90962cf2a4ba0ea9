package file_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/file"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/artifact/engine"
	"github.com/tracegate/tracegate/edge/child"
	"github.com/tracegate/tracegate/mesh/freeport"
)

const key = "a key of more than 16 bytes"

// place is where content is kept, and a client of its links.
type place struct {
	blobs file.Blobs
	get   func(url string, header ...string) *http.Response
}

// onEach runs a test on each kind of place.
func onEach(t *testing.T, test func(t *testing.T, p place)) {
	t.Run("folder", func(t *testing.T) { test(t, folder(t)) })
	t.Run("s3", func(t *testing.T) { test(t, place{newS3(t, startS3(t)), getter("")}) })
}

func folder(t testing.TB) place {
	t.Helper()
	f, err := file.NewFolder(t.TempDir(), key, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return place{f, getter(serve(t, f))}
}

// serve answers for a folder's links as core does.
func serve(t testing.TB, f *file.Folder) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := f.Serve(w, r, strings.TrimPrefix(r.URL.Path, file.BlobPath)); err != nil {
			var pe *protocol.Error
			if !errors.As(err, &pe) {
				pe = protocol.NewError(protocol.CodeInternal, "", err.Error())
			}
			http.Error(w, pe.Message, pe.Code.Status())
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func getter(base string) func(url string, header ...string) *http.Response {
	client := &http.Client{Timeout: 10 * time.Second}
	return func(url string, header ...string) *http.Response {
		r, err := http.NewRequest(http.MethodGet, base+url, nil)
		if err != nil {
			return nil
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w, err := client.Do(r)
		if err != nil {
			return nil
		}
		return w
	}
}

// s3Server is a real S3 server that a test may stop and start again.
type s3Server struct {
	t    testing.TB
	bin  string
	dir  string
	addr string
	stop func()
}

var s3Binary struct {
	once sync.Once
	path string
	err  error
}

func startS3(t testing.TB) *s3Server {
	t.Helper()
	if testing.Short() {
		t.Skip("needs an S3 server")
	}
	s3Binary.once.Do(func() {
		s3Binary.path, s3Binary.err = engine.VersityGW(context.Background(), slog.New(slog.DiscardHandler))
	})
	if s3Binary.err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(s3Binary.err)
		}
		t.Skip(s3Binary.err)
	}
	s := &s3Server{t: t, bin: s3Binary.path, dir: t.TempDir(), addr: freeport.ForTest(t)}
	s.start()
	return s
}

func (s *s3Server) start() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	data, meta := filepath.Join(s.dir, "data"), filepath.Join(s.dir, "meta")
	for _, d := range []string{data, meta} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	var out bytes.Buffer
	cmd := child.Command(ctx, s.bin, "--access", "access", "--secret", "secret-key", "--region", "us-east-1", "--port", s.addr, "--quiet",
		"posix", "--sidecar", meta, data)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	var once sync.Once
	s.stop = func() { once.Do(func() { cancel(); _ = cmd.Wait() }) }
	s.t.Cleanup(s.stop)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("tcp", s.addr); err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			s.stop()
			s.t.Fatalf("S3 server is not ready: %s", out.String())
		}
	}
}

func newS3(t testing.TB, s *s3Server) *file.S3 {
	t.Helper()
	blobs, err := file.NewS3(file.S3Config{Endpoint: "http://" + s.addr, Region: "us-east-1", Bucket: "files", AccessKey: "access", SecretKey: "secret-key"})
	if err != nil {
		t.Fatal(err)
	}
	return blobs
}

// noise is so many bytes that are the same for a seed.
func noise(size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

func read(t testing.TB, b file.Blobs, key string) []byte {
	t.Helper()
	r, err := b.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestBlobsKeepWhatIsPut(t *testing.T) {
	onEach(t, func(t *testing.T, p place) {
		for _, size := range []int{0, 1, 100_000, 5<<20 - 1, 5 << 20, 11<<20 + 7} {
			id := fmt.Sprintf("size-%d", size)
			want := noise(size)
			n, err := p.blobs.Put(t.Context(), id, "application/x", bytes.NewReader(want))
			if err != nil || n != int64(size) {
				t.Fatalf("%d bytes: put %d, %v", size, n, err)
			}
			if got := read(t, p.blobs, id); sha256.Sum256(got) != sha256.Sum256(want) {
				t.Errorf("%d bytes: read %d others", size, len(got))
			}
			for range 2 { // deleting again is fine
				if err := p.blobs.Delete(t.Context(), id); err != nil {
					t.Errorf("delete: %v", err)
				}
			}
			if _, err := p.blobs.Open(t.Context(), id); !errors.Is(err, file.ErrNoBlob) {
				t.Errorf("open what is deleted: %v", err)
			}
		}
		if err := p.blobs.Delete(t.Context(), "never-there"); err != nil {
			t.Errorf("delete what was never there: %v", err)
		}
	})
}

// broken reads some bytes and then fails.
type broken struct{ left int }

func (b *broken) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errors.New("the client has gone")
	}
	n := min(b.left, len(p))
	b.left -= n
	return n, nil
}

func TestBrokenUploadLeavesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, p place) {
		for _, size := range []int{10, 6 << 20} {
			id := fmt.Sprintf("broken-%d", size)
			if _, err := p.blobs.Put(t.Context(), id, "x/y", &broken{size}); err == nil {
				t.Fatal("a broken upload is reported as whole")
			}
			if _, err := p.blobs.Open(t.Context(), id); !errors.Is(err, file.ErrNoBlob) {
				t.Errorf("open: %v", err)
			}
			if err := p.blobs.Delete(t.Context(), id); err != nil {
				t.Errorf("delete: %v", err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := p.blobs.Put(ctx, id, "x/y", bytes.NewReader(noise(size))); err == nil {
				t.Error("an upload that was given up is reported as whole")
			}
		}
	})
}

func TestLinksWorkWithoutALogin(t *testing.T) {
	onEach(t, func(t *testing.T, p place) {
		want := noise(1000)
		if _, err := p.blobs.Put(t.Context(), "some-file", "image/png", bytes.NewReader(want)); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			d           file.Download
			disposition string
		}{
			{file.Download{Key: "some-file", Name: "cat & dog.png", Type: "image/png"}, `inline; filename="cat & dog.png"`},
			{file.Download{Key: "some-file", Name: "a.zip", Type: "application/zip"}, `attachment; filename=a.zip`},
			{file.Download{Key: "some-file", Name: "猫.txt", Type: "text/plain"}, `attachment; filename*=utf-8''%E7%8C%AB.txt`},
		} {
			link, err := p.blobs.Link(t.Context(), c.d, time.Now().Add(time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			r := p.get(link)
			got, _ := io.ReadAll(r.Body)
			if r.StatusCode != http.StatusOK || !bytes.Equal(got, want) {
				t.Fatalf("%s: %d, %d bytes: %.200s", link, r.StatusCode, len(got), got)
			}
			if r.Header.Get("Content-Type") != c.d.Type || r.Header.Get("Content-Disposition") != c.disposition {
				t.Errorf("%v: headers %v", c.d, r.Header)
			}
			part := p.get(link, "Range", "bytes=10-19")
			got, _ = io.ReadAll(part.Body)
			if part.StatusCode != http.StatusPartialContent || !bytes.Equal(got, want[10:20]) {
				t.Errorf("range: %d, %d bytes", part.StatusCode, len(got))
			}
			forged := strings.Replace(link, "some-file", "another-file", 1)
			if r := p.get(forged); r.StatusCode != http.StatusForbidden {
				t.Errorf("link to another file: %d", r.StatusCode)
			}
		}
		late, err := p.blobs.Link(t.Context(), file.Download{Key: "some-file", Name: "x", Type: "text/plain"}, time.Now().Add(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(15 * time.Second); p.get(late).StatusCode != http.StatusForbidden; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("a link of a second works for fifteen")
			}
		}
	})
}

func TestFolderRefusesForgedLinks(t *testing.T) {
	p := folder(t)
	if _, err := p.blobs.Put(t.Context(), "some-file", "text/plain", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	link, err := p.blobs.Link(t.Context(), file.Download{Key: "some-file", Name: "a.txt", Type: "text/plain"}, time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	for name, forged := range map[string]string{
		"type":      strings.Replace(link, "text%2Fplain", "text%2Fhtml", 1),
		"name":      strings.Replace(link, "a.txt", "a.exe", 1),
		"expires":   strings.Replace(link, "expires=", "expires=9", 1),
		"signature": strings.Replace(link, "signature=", "signature=A", 1),
		"none":      file.BlobPath + "some-file",
		"path":      file.BlobPath + "..%2f..%2fetc%2fpasswd",
	} {
		if forged == link {
			t.Fatalf("%s: nothing was changed in %s", name, link)
		}
		if r := p.get(forged); r.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d", name, r.StatusCode)
		}
	}
	r := p.get(link)
	for header, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
		"Cross-Origin-Resource-Policy": "same-origin", "Content-Disposition": "attachment; filename=a.txt",
	} {
		if got := r.Header.Get(header); got != want {
			t.Errorf("%s: %q", header, got)
		}
	}
	for _, bad := range []string{"", "..", "../../x", "a/b", "ab", "UPPER-CASE", "x\x00yz"} {
		if _, err := p.blobs.Put(t.Context(), bad, "x/y", strings.NewReader("x")); err == nil {
			t.Errorf("key %q is taken", bad)
		}
	}
}

// TestFolderSweepsParts: what a killed process left goes, what is being written stays.
func TestFolderSweepsParts(t *testing.T) {
	dir := t.TempDir()
	f, err := file.NewFolder(dir, key, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	old, fresh := filepath.Join(dir, "part", "old.1"), filepath.Join(dir, "part", "fresh.1")
	for _, p := range []string{old, fresh} {
		if err := os.WriteFile(p, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	yesterday := time.Now().Add(-24 * time.Hour)
	if err := os.Chtimes(old, yesterday, yesterday); err != nil {
		t.Fatal(err)
	}
	if err := f.Sweep(t.Context(), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("old part: %v", err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("fresh part: %v", err)
	}
}
