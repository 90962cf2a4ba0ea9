package file

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/secret"
)

// Folder keeps content in a folder of this machine; several processes may share it. A
// blob is written beside, synced and renamed, and the folder synced, so that it is whole
// or not there, also after a kill or a power failure. For more than one machine take [S3].
type Folder struct {
	dir string
	key secret.Text
	now func() time.Time
}

// BlobPath is where core serves what a Folder's links name; the key follows.
const BlobPath = "/v1/blobs/"

// NewFolder makes the folder where it is missing. key signs links; it must be the same in
// all processes that share the folder.
func NewFolder(dir string, key secret.Text, now func() time.Time) (*Folder, error) {
	if len(key) < 16 {
		return nil, errors.New("open file folder: the key has fewer than 16 bytes")
	}
	if err := os.MkdirAll(filepath.Join(dir, "part"), 0o700); err != nil {
		return nil, fmt.Errorf("open file folder: %w", err)
	}
	return &Folder{dir: dir, key: key, now: now}, nil
}

// path spreads blobs over folders by the random end of their ids, so that none gets large.
func (f *Folder) path(key string) (string, error) {
	id, _, _ := strings.Cut(key, ".")
	if len(id) < 4 || strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
		return "", fmt.Errorf("blob key %q: %w", key, ErrNoBlob)
	}
	return filepath.Join(f.dir, id[len(id)-2:], key), nil
}

// Put implements [Blobs].
func (f *Folder) Put(ctx context.Context, key, _ string, r io.Reader) (int64, error) {
	path, err := f.path(key)
	if err != nil {
		return 0, err
	}
	part, err := os.CreateTemp(filepath.Join(f.dir, "part"), key+".*")
	if err != nil {
		return 0, fmt.Errorf("create part: %w", err)
	}
	defer os.Remove(part.Name()) // without effect once it is renamed
	size, err := io.Copy(part, &cancelable{ctx, r})
	if err == nil {
		err = part.Sync()
	}
	if err = errors.Join(err, part.Close()); err != nil {
		return 0, fmt.Errorf("write part: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return 0, fmt.Errorf("make folder: %w", err)
	}
	if err := os.Rename(part.Name(), path); err != nil {
		return 0, fmt.Errorf("rename part: %w", err)
	}
	return size, errors.Join(syncFolder(filepath.Dir(path)), syncFolder(f.dir))
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// cancelable ends reading when its context is done.
type cancelable struct {
	ctx context.Context //nolint:containedctx // an io.Reader has no other way to get one; it lives as long as one call
	r   io.Reader
}

func (c *cancelable) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// Open implements [Blobs].
func (f *Folder) Open(_ context.Context, key string) (io.ReadCloser, error) { return f.open(key) }

func (f *Folder) open(key string) (*os.File, error) {
	path, err := f.path(key)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNoBlob
	}
	if err != nil {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	return file, nil
}

// Delete implements [Blobs].
func (f *Folder) Delete(_ context.Context, key string) error {
	path, err := f.path(key)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete blob: %w", err)
	}
	return nil
}

// Sweep implements [Blobs]: it removes parts whose writer was killed.
func (f *Folder) Sweep(_ context.Context, before time.Time) error {
	parts, err := os.ReadDir(filepath.Join(f.dir, "part"))
	if err != nil {
		return fmt.Errorf("list parts: %w", err)
	}
	for _, p := range parts {
		info, err := p.Info()
		if err != nil || !info.ModTime().Before(before) {
			continue // it has just gone, or is being written
		}
		if err := os.Remove(filepath.Join(f.dir, "part", p.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove part: %w", err)
		}
	}
	return nil
}

// Link implements [Blobs]: a path below core's own address with all that Serve needs to
// know, signed.
func (f *Folder) Link(_ context.Context, d Download, until time.Time) (string, error) {
	if _, err := f.path(d.Key); err != nil {
		return "", err
	}
	expires := strconv.FormatInt(until.Unix(), 10)
	q := url.Values{"name": {d.Name}, "type": {d.Type}, "expires": {expires}, "signature": {f.sign(d, expires)}}
	return BlobPath + d.Key + "?" + q.Encode(), nil
}

// sign covers everything that a link says; the separator cannot be in a name that is clean.
func (f *Folder) sign(d Download, expires string) string {
	mac := hmac.New(sha256.New, []byte(f.key))
	fmt.Fprintf(mac, "tracegate blob 1\n%s\n%s\n%s\n%s", d.Key, d.Type, expires, d.Name)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// Serve answers a request for a link; its path ends with the key. Ranges work. Whatever
// the content is, a browser must not run it in core's name: it is of the type that was
// found, not sniffed again, sandboxed, and saved rather than shown unless it is a picture.
func (f *Folder) Serve(w http.ResponseWriter, r *http.Request, key string) error {
	q := r.URL.Query()
	d := Download{Key: key, Name: q.Get("name"), Type: q.Get("type")}
	expires := q.Get("expires")
	if !hmac.Equal([]byte(q.Get("signature")), []byte(f.sign(d, expires))) {
		return protocol.NewError(protocol.CodePermissionDenied, "signature", "the link is not one of this server's")
	}
	seconds, err := strconv.ParseInt(expires, 10, 64)
	left := time.Unix(seconds, 0).Sub(f.now())
	if err != nil || left <= 0 {
		return protocol.NewError(protocol.CodePermissionDenied, "expires", "the link has expired: ask for a new one")
	}
	file, err := f.open(key)
	if errors.Is(err, ErrNoBlob) {
		return protocol.NewError(protocol.CodeNotFound, "", "the file does not exist any more")
	}
	if err != nil {
		return unavailable(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return unavailable(err)
	}
	h := w.Header()
	safe(h, d)
	h.Set("Cache-Control", fmt.Sprintf("private, max-age=%d", int(left.Seconds())))
	h.Set("ETag", strconv.Quote(key)) // content never changes under a key
	http.ServeContent(w, r, "", info.ModTime(), file)
	return nil
}

// safe sets the headers of content that users made.
func safe(h http.Header, d Download) {
	h.Set("Content-Type", d.Type)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Disposition", disposition(d))
}

// disposition says in RFC 6266's words what to do with a download.
func disposition(d Download) string {
	kind := "attachment"
	if d.Inline() {
		kind = "inline"
	}
	if v := mime.FormatMediaType(kind, map[string]string{"filename": d.Name}); v != "" {
		return v
	}
	return kind
}
