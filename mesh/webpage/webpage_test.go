package webpage_test

import (
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tracegate/tracegate/mesh/webpage"
)

func page(t *testing.T) *webpage.Page {
	t.Helper()
	p, err := webpage.New(fstest.MapFS{
		"index.html": {Data: []byte(`<script type="module" src="assets/-/js/main.js"></script>`)},
		"js/main.js": {Data: []byte(strings.Repeat("export const answer = 42;\n", 100))},
		"icon.svg":   {Data: []byte(`<svg/>`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func get(p http.Handler, path string, header ...string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w.Result()
}

func TestIndexNamesHashedAssets(t *testing.T) {
	p := page(t)
	r := get(p, "/")
	body, _ := io.ReadAll(r.Body)
	want := `src="assets/` + p.Hash() + `/js/main.js"`
	if !strings.Contains(string(body), want) {
		t.Errorf("index is %s, it does not contain %s", body, want)
	}
	if got := r.Header.Get("Cache-Control"); got != "no-cache" {
		t.Errorf("index has Cache-Control %q", got)
	}
	if again := get(p, "/", "If-None-Match", "W/"+r.Header.Get("ETag")); again.StatusCode != http.StatusNotModified {
		t.Errorf("second request gave status %d", again.StatusCode)
	}
}

func TestAssets(t *testing.T) {
	p := page(t)
	tests := []struct {
		name, path    string
		status        int
		mime, caching string
	}{
		{"own hash is kept for good", "/assets/" + p.Hash() + "/js/main.js", 200, "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"},
		{"another version's hash is not kept", "/assets/0123456789abcdef/js/main.js", 200, "text/javascript; charset=utf-8", "no-store"},
		{"svg", "/assets/" + p.Hash() + "/icon.svg", 200, "image/svg+xml", "public, max-age=31536000, immutable"},
		{"unknown file", "/assets/" + p.Hash() + "/js/other.js", 404, "text/plain; charset=utf-8", ""},
		{"no way up", "/assets/" + p.Hash() + "/../webpage.go", 404, "text/plain; charset=utf-8", ""},
		{"index is not an asset", "/assets/" + p.Hash() + "/index.html", 404, "text/plain; charset=utf-8", ""},
		{"folder", "/assets/" + p.Hash() + "/js", 404, "text/plain; charset=utf-8", ""},
		{"other path", "/js/main.js", 404, "text/plain; charset=utf-8", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := get(p, tt.path)
			if r.StatusCode != tt.status || r.Header.Get("Content-Type") != tt.mime || r.Header.Get("Cache-Control") != tt.caching {
				t.Errorf("got %d, %q, %q", r.StatusCode, r.Header.Get("Content-Type"), r.Header.Get("Cache-Control"))
			}
			if r.Header.Get("Content-Security-Policy") != webpage.Policy || r.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("security headers are missing: %v", r.Header)
			}
		})
	}
}

func TestCompression(t *testing.T) {
	p := page(t)
	path := "/assets/" + p.Hash() + "/js/main.js"
	plain, _ := io.ReadAll(get(p, path).Body)
	r := get(p, path, "Accept-Encoding", "br, gzip")
	if r.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("Content-Encoding is %q", r.Header.Get("Content-Encoding"))
	}
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if unzipped, err := io.ReadAll(z); err != nil || string(unzipped) != string(plain) {
		t.Errorf("compressed body differs (error %v)", err)
	}
}

func TestMethods(t *testing.T) {
	p := page(t)
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST gave %d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
	w = httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(http.MethodHead, "/", nil))
	if w.Code != http.StatusOK || w.Body.Len() != 0 || w.Header().Get("Content-Length") == "0" {
		t.Errorf("HEAD gave %d with %d bytes, length %s", w.Code, w.Body.Len(), w.Header().Get("Content-Length"))
	}
}

func TestHashFollowsContent(t *testing.T) {
	a, err := webpage.New(fstest.MapFS{"index.html": {Data: []byte("a")}, "x.js": {Data: []byte("1")}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := webpage.New(fstest.MapFS{"index.html": {Data: []byte("a")}, "x.js": {Data: []byte("2")}})
	if err != nil {
		t.Fatal(err)
	}
	if a.Hash() == b.Hash() {
		t.Error("a changed asset left the hash as it was")
	}
}

func TestNewNeedsAnIndex(t *testing.T) {
	if _, err := webpage.New(fstest.MapFS{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}
