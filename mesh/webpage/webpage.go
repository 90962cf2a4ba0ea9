// Package webpage serves a page made of embedded files: one index and the assets
// it names. It gives assets a path with a hash of their content, so that browsers
// keep them for good, and puts the headers on every answer that keep a page from
// loading, framing or running anything that is not its own.
//
// It does no templating beyond the asset path, no API and no login: those belong to
// the pages (core/page, observability/console), which are its only callers. It is
// pure Go over an fs.FS; package browsertest beside it drives pages in a browser.
//
// A bundler with hashed file names was left: it would be a build step and a second
// language's tool chain for some forty kilobytes that HTTP/2 and gzip carry as well.
package webpage

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

// Placeholder is what the index writes for the folder of the assets.
const Placeholder = "assets/-/"

// Policy is the Content-Security-Policy of every page: everything from its own
// origin, no inline script or style, no strings turned into script or markup.
const Policy = "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; " +
	"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Page is an http.Handler for the index at "/" and the assets below "/assets/".
// It is immutable and safe for concurrent use.
type Page struct {
	hash   string
	index  file
	assets map[string]file
}

type file struct {
	body, zipped []byte // zipped is nil where it would not be smaller
	mime, etag   string
}

// New reads index.html and all other files of files. It answers for nothing else,
// so a file that must not be served must not be in files.
func New(files fs.FS) (*Page, error) {
	p := &Page{assets: map[string]file{}}
	all := sha256.New()
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(all, "%s %d\n", name, len(body))
		all.Write(body)
		p.assets[name] = newFile(name, body)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read page: %w", err)
	}
	index, ok := p.assets["index.html"]
	if !ok {
		return nil, fmt.Errorf("read page: %w: index.html", fs.ErrNotExist)
	}
	delete(p.assets, "index.html")
	p.hash = hex.EncodeToString(all.Sum(nil)[:8])
	p.index = newFile("index.html", bytes.ReplaceAll(index.body, []byte(Placeholder), []byte("assets/"+p.hash+"/")))
	return p, nil
}

// Must is for files that are embedded in the program, where an error is one of the
// program and every run of it would have the same.
func Must(p *Page, err error) *Page {
	if err != nil {
		panic(err)
	}
	return p
}

// Hash names the content of all files; it is part of the assets' paths.
func (p *Page) Hash() string { return p.hash }

func newFile(name string, body []byte) file {
	sum := sha256.Sum256(body)
	f := file{body: body, mime: mime.TypeByExtension(path.Ext(name)), etag: `"` + hex.EncodeToString(sum[:8]) + `"`}
	switch path.Ext(name) { // not left to the machine's own table of types
	case ".js":
		f.mime = "text/javascript; charset=utf-8"
	case ".css":
		f.mime = "text/css; charset=utf-8"
	case ".html":
		f.mime = "text/html; charset=utf-8"
	case ".svg":
		f.mime = "image/svg+xml"
	}
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(body)
	if err == nil && w.Close() == nil && buf.Len() < len(body) {
		f.zipped = buf.Bytes()
	}
	return f
}

// ServeHTTP answers GET and HEAD.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	Secure(w.Header())
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	if r.URL.Path == "/" {
		w.Header().Set("Cache-Control", "no-cache")
		p.index.serve(w, r)
		return
	}
	hash, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/assets/"), "/")
	f, ok := p.assets[name]
	if !ok || !strings.HasPrefix(r.URL.Path, "/assets/") {
		http.NotFound(w, r)
		return
	}
	// While two versions serve side by side (a canary), a page of the other one asks
	// for its own hash here. Ours is better than nothing, but must not be kept under
	// that name.
	w.Header().Set("Cache-Control", "no-store")
	if hash == p.hash {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	f.serve(w, r)
}

func (f file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("ETag", f.etag)
	h.Set("Vary", "Accept-Encoding")
	if matches(r.Header.Get("If-None-Match"), f.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := f.body
	if f.zipped != nil && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		body = f.zipped
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Type", f.mime)
	h.Set("Content-Length", fmt.Sprint(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client is gone; there is nobody to tell
	}
}

// matches compares weakly, as RFC 9110 section 13.1.2 has it for If-None-Match: a
// proxy that compresses has made the tag weak.
func matches(header, etag string) bool {
	for tag := range strings.SplitSeq(header, ",") {
		tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
		if tag == etag || tag == "*" {
			return true
		}
	}
	return false
}

// Secure sets the headers that every answer of a page's server should carry, the
// answers of its API included.
func Secure(h http.Header) {
	h.Set("Content-Security-Policy", Policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
}
