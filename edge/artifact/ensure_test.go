//go:build unix

package artifact

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The tests run the real pip and npm against a registry of their own on loopback.

const (
	wheelFile = "tiny_tool-1.0-py3-none-any.whl"
	tarFile   = "tiny-1.0.0.tgz"
)

// registry serves one wheel and one npm package and counts the downloads.
type registry struct {
	*httptest.Server
	wheel, tgz []byte
	downloads  atomic.Int64
	hold       chan struct{} // where not nil, a download waits half-way until it is closed
	reached    chan struct{} // told when a download is half-way
}

func newRegistry(t *testing.T, hold chan struct{}) *registry {
	t.Helper()
	r := &registry{wheel: wheel(t), tgz: tarball(t), hold: hold, reached: make(chan struct{}, 16)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /simple/tiny-tool/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!DOCTYPE html><html><body><a href="/files/%[1]s">%[1]s</a></body></html>`, wheelFile)
	})
	mux.HandleFunc("GET /files/"+wheelFile, func(w http.ResponseWriter, req *http.Request) { r.serve(w, req, r.wheel) })
	mux.HandleFunc("GET /tiny", func(w http.ResponseWriter, req *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"name": "tiny", "dist-tags": map[string]string{"latest": "1.0.0"},
			"versions": map[string]any{"1.0.0": map[string]any{
				"name": "tiny", "version": "1.0.0",
				"dist": map[string]string{"tarball": "http://" + req.Host + "/files/" + tarFile, "integrity": sri(r.tgz)},
			}},
		})
	})
	mux.HandleFunc("GET /files/"+tarFile, func(w http.ResponseWriter, req *http.Request) { r.serve(w, req, r.tgz) })
	r.Server = httptest.NewServer(mux)
	t.Cleanup(r.CloseClientConnections)
	t.Cleanup(r.Close)
	t.Setenv("PIP_CONFIG_FILE", os.DevNull)
	t.Setenv("PIP_INDEX_URL", r.URL+"/simple/")
	t.Setenv("PIP_EXTRA_INDEX_URL", "")
	t.Setenv("PIP_NO_CACHE_DIR", "1")
	t.Setenv("npm_config_registry", r.URL)
	t.Setenv("npm_config_userconfig", os.DevNull)
	for _, proxy := range []string{"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"} {
		t.Setenv(proxy, "")
	}
	return r
}

func (r *registry) serve(w http.ResponseWriter, req *http.Request, body []byte) {
	r.downloads.Add(1)
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	half := len(body) / 2
	_, _ = w.Write(body[:half])
	w.(http.Flusher).Flush()
	r.reached <- struct{}{}
	if r.hold != nil {
		select {
		case <-r.hold:
		case <-req.Context().Done():
			return
		}
	}
	_, _ = w.Write(body[half:])
}

// tool is the wheel as an artifact for the platform the test runs on.
func (r *registry) tool() Artifact {
	return Artifact{
		Name: "tool", Version: "1.0", From: PyPI, Instead: "or do without",
		Builds: []Build{{
			Platform: runtime.GOOS + "/" + runtime.GOARCH, Package: "tiny-tool", Tag: "manylinux_2_31_x86_64", File: wheelFile,
			Bytes: int64(len(r.wheel)), Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(r.wheel)),
			Members: []string{"tiny/bin/tool", "tiny/lib/"}, Main: "tiny/bin/tool",
		}},
	}
}

func (r *registry) library() Artifact {
	return Artifact{
		Name: "library", Version: "1.0.0", From: NPM, Instead: "or do without",
		Builds: []Build{{
			Platform: runtime.GOOS + "/" + runtime.GOARCH, Package: "tiny", File: tarFile,
			Bytes: int64(len(r.tgz)), Digest: sri(r.tgz), Members: []string{"package/lib.so"}, Main: "package/lib.so",
		}},
	}
}

func sri(b []byte) string {
	sum := sha512.Sum512(b)
	return "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}

func wheel(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	add := func(name, body string, mode os.FileMode) {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate}
		h.SetMode(mode)
		w, err := z.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	add("tiny/bin/tool", "#!/bin/sh\necho tool\n", 0o755)
	add("tiny/lib/a/b.txt", "b", 0o644)
	add("tiny/other.txt", "not wanted", 0o644)
	add("tiny_tool-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-tool\nVersion: 1.0\n", 0o644)
	add("tiny_tool-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n", 0o644)
	add("tiny_tool-1.0.dist-info/RECORD", "", 0o644)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func tarball(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	w := tar.NewWriter(gz)
	for name, body := range map[string]string{
		"package/package.json": `{"name":"tiny","version":"1.0.0"}`, "package/lib.so": "library",
	} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), gz.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func needPip(t *testing.T) {
	t.Helper()
	if _, err := findPip(t.Context()); err != nil {
		skip(t, err.Error())
	}
}

func needNPM(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("npm"); err != nil {
		skip(t, err.Error())
	}
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func quiet(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func TestEnsureFromPip(t *testing.T) {
	needPip(t)
	r, dir := newRegistry(t, nil), t.TempDir()
	path, err := Ensure(t.Context(), dir, r.tool(), quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path).Output(); err != nil || string(out) != "tool\n" {
		t.Errorf("the tool says %q, %v", out, err)
	}
	home := filepath.Dir(filepath.Dir(filepath.Dir(path)))
	if b, err := os.ReadFile(filepath.Join(home, "tiny/lib/a/b.txt")); err != nil || string(b) != "b" {
		t.Errorf("member of a folder: %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(home, "tiny/other.txt")); !os.IsNotExist(err) {
		t.Errorf("a member that was not asked for: %v", err)
	}
	if _, err := os.Stat(home + ".part"); !os.IsNotExist(err) {
		t.Errorf("temporary folder is left: %v", err)
	}
	r.Close() // from here on there is no registry
	again, err := Ensure(t.Context(), dir, r.tool(), quiet(t))
	if err != nil || again != path {
		t.Errorf("from the cache: %q, %v", again, err)
	}
	if n := r.downloads.Load(); n != 1 {
		t.Errorf("%d downloads", n)
	}
}

func TestEnsureFromNPM(t *testing.T) {
	needNPM(t)
	r := newRegistry(t, nil)
	path, err := Ensure(t.Context(), t.TempDir(), r.library(), quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "library" {
		t.Errorf("library: %q, %v", b, err)
	}
}

func TestEnsureRepairsDamage(t *testing.T) {
	needPip(t)
	r, dir := newRegistry(t, nil), t.TempDir()
	path, err := Ensure(t.Context(), dir, r.tool(), quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if path, err = Ensure(t.Context(), dir, r.tool(), quiet(t)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path).Output(); err != nil || string(out) != "tool\n" {
		t.Errorf("the repaired tool says %q, %v", out, err)
	}
}

func TestEnsureRefusesWrongChecksum(t *testing.T) {
	needPip(t)
	r, dir := newRegistry(t, nil), t.TempDir()
	bad := r.tool()
	bad.Builds[0].Digest = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("another file")))
	_, err := Ensure(t.Context(), dir, bad, quiet(t))
	if !errors.Is(err, ErrChecksum) {
		t.Fatalf("got %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "tool", "*", "tiny"))
	if len(left) != 0 {
		t.Errorf("unpacked all the same: %v", left)
	}
	// The pinned file is still to be had afterwards.
	if _, err := Ensure(t.Context(), dir, r.tool(), quiet(t)); err != nil {
		t.Error(err)
	}
}

func TestEnsureAtOnceDownloadsOnce(t *testing.T) {
	needPip(t)
	r, dir := newRegistry(t, nil), t.TempDir()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := Ensure(t.Context(), dir, r.tool(), quiet(t)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := r.downloads.Load(); n != 1 {
		t.Errorf("%d downloads, want 1", n)
	}
}

// A process that is killed in the middle of a download leaves nothing in the way.
func TestEnsureAfterKill(t *testing.T) {
	needPip(t)
	r, dir := newRegistry(t, make(chan struct{})), t.TempDir()
	js, err := json.Marshal(r.tool())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "ARTIFACT_TEST_DIR="+dir, "ARTIFACT_TEST="+string(js))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.reached:
	case <-time.After(30 * time.Second):
		t.Error("the download did not begin")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	close(r.hold)
	path, err := Ensure(t.Context(), dir, r.tool(), quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path).Output(); err != nil || string(out) != "tool\n" {
		t.Errorf("the tool says %q, %v", out, err)
	}
}

// A verified download survives a kill between download and unpacking.
func TestEnsureUnpacksFinishedDownload(t *testing.T) {
	r, dir := newRegistry(t, nil), t.TempDir()
	a := r.tool()
	part := filepath.Join(dir, "tool", "1.0-"+runtime.GOOS+"-"+runtime.GOARCH+".part")
	if err := os.MkdirAll(filepath.Join(part, "unpacked", "tiny", "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(part, wheelFile), r.wheel, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(part, "unpacked", "tiny", "bin", "tool"), []byte("hal"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(t.Context(), dir, a, quiet(t)); err != nil {
		t.Fatal(err)
	}
	if n := r.downloads.Load(); n != 0 {
		t.Errorf("%d downloads, want none", n)
	}
}

func TestEnsureCanceled(t *testing.T) {
	needPip(t)
	r, dir := newRegistry(t, make(chan struct{})), t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-r.reached; cancel() }()
	if _, err := Ensure(ctx, dir, r.tool(), quiet(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(r.hold)
}

func TestEnsureErrorsSayWhatToDo(t *testing.T) {
	tests := []struct {
		name string
		set  func(t *testing.T, r *registry, a *Artifact, dir *string)
		is   error
		says string
	}{
		{"no pip", func(t *testing.T, _ *registry, _ *Artifact, _ *string) { t.Helper(); t.Setenv("PATH", t.TempDir()) }, ErrNoClient, "install it"},
		{"no network, pip", func(t *testing.T, r *registry, _ *Artifact, _ *string) { t.Helper(); needPip(t); r.Close() }, ErrNoNetwork, "connect this machine"},
		{"no network, npm", func(t *testing.T, r *registry, a *Artifact, _ *string) {
			t.Helper()
			needNPM(t)
			*a = r.library()
			r.Close()
		}, ErrNoNetwork, "connect this machine"},
		{"platform", func(_ *testing.T, _ *registry, a *Artifact, _ *string) { a.Builds[0].Platform = "plan9/mips" }, ErrPlatform, "there is plan9/mips"},
		{"folder", func(t *testing.T, _ *registry, _ *Artifact, dir *string) {
			t.Helper()
			*dir = filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(*dir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, nil, "TRACEGATE_CACHE"},
		{"no such package", func(t *testing.T, _ *registry, a *Artifact, _ *string) { t.Helper(); needPip(t); a.Version = "9.9" }, nil, "or do without"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, dir := newRegistry(t, nil), t.TempDir()
			a := r.tool()
			tt.set(t, r, &a, &dir)
			_, err := Ensure(t.Context(), dir, a, quiet(t))
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %v in one line that says %q", err, tt.is, tt.says)
			}
		})
	}
}

func TestUnpackStaysInside(t *testing.T) {
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	w := tar.NewWriter(gz)
	for _, h := range []*tar.Header{
		{Name: "package/../../evil", Mode: 0o644, Size: 4, Typeflag: tar.TypeReg},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("evil")); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), gz.Close()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	archive := filepath.Join(dir, "a.tgz")
	if err := os.WriteFile(archive, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := unpack(t.Context(), archive, filepath.Join(dir, "x", "y"), []string{"package/"}); err == nil {
		t.Error("a member outside of the folder was accepted")
	}
	if _, err := os.Stat(filepath.Join(dir, "x", "evil")); !os.IsNotExist(err) {
		t.Errorf("it was written: %v", err)
	}
}

// The table of pins must be usable: digests parse, main is a member, names agree.
func TestPins(t *testing.T) {
	for _, a := range []Artifact{Envoy(), ChDB(), Valkey(), AxeCore(), Node()} {
		for _, b := range a.Builds {
			if _, _, err := parseDigest(b.Digest); err != nil {
				t.Errorf("%s %s: %v", a.Name, b.Platform, err)
			}
			if !wanted(b.Main, b.Members) || !strings.Contains(b.File, a.Version) || b.Bytes == 0 {
				t.Errorf("%s %s: incomplete pin %+v", a.Name, b.Platform, b)
			}
		}
		if a.Instead == "" {
			t.Errorf("%s: no way out named", a.Name)
		}
	}
	if b, err := AxeCore().For("plan9/mips"); err != nil || b.Main == "" {
		t.Errorf("axe-core is the same everywhere, and for plan9 there is %+v, %v", b, err)
	}
}

// TestMain lets the test binary play the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("ARTIFACT_TEST_DIR"); dir != "" {
		var a Artifact
		if err := json.Unmarshal([]byte(os.Getenv("ARTIFACT_TEST")), &a); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		_, err := Ensure(context.Background(), dir, a, slog.New(slog.DiscardHandler))
		fmt.Fprintln(os.Stderr, err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}
