package cgroup

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestPod(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for path, want := range map[string][2]string{
		"/kubepods/burstable/pod0b8f2c6e-1d2f-4c3b-9a7e-5f6d7c8b9a01/" + id:                                                                           {"0b8f2c6e-1d2f-4c3b-9a7e-5f6d7c8b9a01", id},
		"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod0b8f2c6e_1d2f_4c3b_9a7e_5f6d7c8b9a01.slice/cri-containerd-" + id + ".scope": {"0b8f2c6e-1d2f-4c3b-9a7e-5f6d7c8b9a01", id},
		"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod0b8f2c6e_1d2f_4c3b_9a7e_5f6d7c8b9a01.slice/crio-" + id + ".scope":                  {"0b8f2c6e-1d2f-4c3b-9a7e-5f6d7c8b9a01", id},
		"/kubepods/pod0b8f2c6e-1d2f-4c3b-9a7e-5f6d7c8b9a01":                                                                                           {"0b8f2c6e-1d2f-4c3b-9a7e-5f6d7c8b9a01", ""},
		"/system.slice/docker-" + id + ".scope":                                                                                                       {"", ""},
		"/":                                                                                                                                           {"", ""},
	} {
		if uid, container := Pod(path); uid != want[0] || container != want[1] {
			t.Errorf("%s: pod %q, container %q; want %q", path, uid, container, want)
		}
	}
}

func TestNames(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no inodes")
	}
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "cgroup.procs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "system.slice", "core.service")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	id, _ := inode(dir)
	n := NewNames(filepath.Join(root, "nothing"), root)
	now := time.Unix(1000, 0)
	if got := n.Name(id, now); got != "/system.slice/core.service" {
		t.Errorf("name = %q", got)
	}
	if got := n.Name(1<<60, now); got != "cgroup 1152921504606846976" {
		t.Errorf("name of an unknown id = %q", got)
	}
	late := filepath.Join(root, "late")
	if err := os.Mkdir(late, 0o700); err != nil {
		t.Fatal(err)
	}
	id, _ = inode(late)
	if got := n.Name(id, now.Add(time.Second)); got == "/late" {
		t.Error("an unknown id walks the hierarchy at every question")
	}
	if got := n.Name(id, now.Add(time.Minute)); got != "/late" {
		t.Errorf("name = %q, want /late", got)
	}
	if got := NewNames().Name(5, now); got != "cgroup 5" {
		t.Errorf("without a hierarchy: %q", got)
	}
}

func TestOf(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no /proc")
	}
	path, err := Of(os.Getpid())
	if err != nil {
		t.Skipf("no unified hierarchy: %v", err)
	}
	if !strings.HasPrefix(path, "/") {
		t.Errorf("path = %q", path)
	}
}
