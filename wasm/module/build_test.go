//go:build !embedfilter

package module

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestEnsureBuildsOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the module")
	}
	dir := filepath.Join(t.TempDir(), "new", "folder")
	path, err := Ensure(t.Context(), dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	isFilter(t, path)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	// The second time needs no toolchain.
	t.Setenv("PATH", "")
	again, err := Ensure(t.Context(), dir, quiet)
	if err != nil || again != path {
		t.Fatalf("second time: %q, %v", again, err)
	}
	if after, _ := os.Stat(path); !after.ModTime().Equal(before.ModTime()) {
		t.Error("built again")
	}
}

func TestEnsureSaysWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", "")
	if _, err := Ensure(t.Context(), t.TempDir(), quiet); !errors.Is(err, ErrNoToolchain) {
		t.Errorf("without a toolchain: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(t.Context(), filepath.Join(file, "dir"), quiet); err == nil {
		t.Error("a file was taken for a folder")
	}
}

func TestEnsureLeavesNothingOfABuildThatFails(t *testing.T) {
	root := copyOf(t, "package main\n\nfunc main() { undefined() }\n")
	dir := t.TempDir()
	_, err := ensure(t.Context(), root, dir, quiet)
	if err == nil || !strings.Contains(err.Error(), "undefined: undefined") {
		t.Errorf("error %v does not say why", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ensure(ctx, root, dir, quiet); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestHashFollowsTheSources(t *testing.T) {
	root := copyOf(t, `package main

import _ "github.com/tracegate/tracegate/wasm/color"

func main() {}
`)
	write(t, root, "wasm/color/color.go", "package color\n")
	write(t, root, "wasm/other/other.go", "package other\n")
	hash := func() string {
		h, err := hashSources(root)
		if err != nil {
			t.Fatal(err)
		}
		return name(h)
	}
	first := hash()
	if hash() != first {
		t.Error("the hash of the same sources differs")
	}
	write(t, root, "wasm/other/other.go", "package other // changed\n")
	write(t, root, "wasm/color/color_test.go", "package color\n")
	write(t, root, "wasm/color/native.go", "//go:build !wasip1\n\npackage color\n")
	if hash() != first {
		t.Error("the hash covers files that do not go into the filter")
	}
	write(t, root, "wasm/color/color.go", "package color // changed\n")
	if hash() == first {
		t.Error("the hash does not cover an import")
	}
}

func TestHashCoversWhatTheCompilerReads(t *testing.T) {
	root, err := sourceRoot()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Module", "./wasm/filter")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := sourceFiles(root)
	if err != nil {
		t.Fatal(err)
	}
	covered := map[string]bool{}
	for _, f := range files {
		covered[filepath.ToSlash(filepath.Dir(f))] = true
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p struct{ ImportPath string }
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		if own, ok := strings.CutPrefix(p.ImportPath, modulePath+"/"); ok && !covered[own] {
			t.Errorf("%s goes into the filter and not into the hash", own)
		}
	}
}

// TestEmbedded runs the other variant's tests in a binary that carries a filter.
func TestEmbedded(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the module and a test binary")
	}
	built, err := Ensure(t.Context(), t.TempDir(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	// The overlay puts the module where `go tool task build` would leave it.
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(here, "filter.wasm"): built}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "test", "-tags", "embedfilter", "-overlay", file, "-run", "TestEnsureUnpacks|TestPut", "-v", ".").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestEnsureUnpacks") {
		t.Errorf("%v\n%s", err, out)
	}
}

// copyOf is a checkout with a filter of one file.
func copyOf(t *testing.T, main string) string {
	t.Helper()
	root := t.TempDir()
	write(t, root, "go.mod", "module "+modulePath+"\n\ngo 1.26\n")
	write(t, root, "go.sum", "")
	write(t, root, filterDir+"/main.go", main)
	return root
}

func write(t *testing.T, root, name, content string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
