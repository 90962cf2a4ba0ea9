package procfs

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestValue(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "status")
	if err := os.WriteFile(path, []byte("Name:\tx\nVmRSS:\t   42 kB\nVmEmpty: x\nVmLast:"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := Value(path, "VmRSS:"); n != 42 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for _, word := range []string{"VmEmpty:", "VmLast:", "VmNone:"} {
		if n, err := Value(path, word); err == nil {
			t.Errorf("%s is %d", word, n)
		}
	}
	if _, err := Value(path+"x", "VmRSS:"); err == nil {
		t.Error("a file that is not there was read")
	}
}

func TestKernel(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	if n, err := Kernel(); n <= 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
