//go:build linux && (amd64 || arm64)

package kernel

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestConfineHoldsForEveryThread asks the kernel about a process that is confined.
func TestConfineHoldsForEveryThread(t *testing.T) {
	caps, err := Effective()
	if err != nil {
		t.Fatal(err)
	}
	if !caps.Has(unix.CAP_SETPCAP) || !caps.Has(unix.CAP_BPF) {
		t.Skip("needs root: there is nothing to drop")
	}
	bin := filepath.Join(t.TempDir(), "confine")
	build := exec.Command("go", "build", "-o", bin, "./testdata/confine")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	out, err := exec.Command(bin).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const kept = "000000c000000000" // CAP_PERFMON (38) and CAP_BPF (39)
	threads := 0
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		want := kept
		switch key {
		case "NoNewPrivs":
			want = "1"
			threads++
		case "Stats":
			want = "true"
		}
		if value != want {
			t.Errorf("%s = %s, want %s", key, value, want)
		}
	}
	if threads < 4 {
		t.Errorf("only %d threads looked at:\n%s", threads, out)
	}
}

func TestCanLoad(t *testing.T) {
	for _, c := range []struct {
		caps Capabilities
		want bool
	}{
		{0, false},
		{1 << unix.CAP_BPF, false},
		{1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON, true},
		{1 << unix.CAP_SYS_ADMIN, true},
		{1 << unix.CAP_NET_ADMIN, false},
	} {
		if got := c.caps.CanLoad(); got != c.want {
			t.Errorf("%#x: %v, want %v", c.caps, got, c.want)
		}
	}
}
