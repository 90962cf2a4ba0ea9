//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// clang is the version the committed objects were made with; another one makes other
// bytes of the same program.
const clang = "clang version 14."

// TestObjectsAreMadeFromTheirSource compiles every program again.
func TestObjectsAreMadeFromTheirSource(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a compiler")
	}
	out, err := exec.Command("clang", "--version").Output()
	if err != nil || !strings.Contains(string(out), clang) {
		t.Skipf("needs %sx: %v", clang, err)
	}
	if _, err := exec.LookPath("llvm-strip"); err != nil {
		t.Skip("needs llvm-strip")
	}
	dir := t.TempDir()
	for _, name := range Names() {
		doc, err := os.ReadFile(filepath.Join(name, "doc.go"))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, ok := strings.Cut(string(doc), "//go:generate go tool bpf2go ")
		if !ok {
			t.Fatalf("%s/doc.go has no go:generate line", name)
		}
		line, _, _ := strings.Cut(rest, "\n")
		to := filepath.Join(dir, name)
		if err := os.Mkdir(to, 0o700); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("go", append([]string{"tool", "bpf2go", "-output-dir", to, "-go-package", name}, strings.Fields(line)...)...)
		cmd.Dir = name
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		for _, file := range []string{"bpf_bpfel.o", "bpf_bpfel.go"} {
			want, err := os.ReadFile(filepath.Join(name, file))
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(to, file))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s/%s is not what its source gives: run `go tool task generate`", name, file)
			}
		}
	}
}
