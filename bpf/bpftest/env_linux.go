//go:build linux && (amd64 || arm64)

package bpftest

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/tracegate/tracegate/bpf/kernel"
	"github.com/tracegate/tracegate/bpf/probe"
)

// Names are owners by slot.
type Names struct {
	mu     sync.Mutex
	owners map[uint32]probe.Owner
}

// Owner implements probe.Owners.
func (n *Names) Owner(slot uint32) probe.Owner {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.owners[slot]
}

// Slot is the slot that Env gives to the test's own process.
const Slot = 7

// Self is the owner of Slot.
func Self() probe.Owner { return probe.Owner{Service: "core", Pool: "canary", Name: "core-canary"} }

// Env returns an environment in which the test's own process is watched, and keeps
// the verifier's log of every program as an artifact of the test. The test is skipped
// where programs cannot be loaded.
func Env(t testing.TB) *kernel.Env {
	t.Helper()
	f, err := kernel.Detect()
	if errors.Is(err, kernel.ErrPrivilege) {
		t.Skipf("no probes here: %v", err)
	} else if err != nil {
		t.Skipf("no probes on this kernel: %v", err)
	}
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		t.Logf("no run times: %v", err)
	} else {
		t.Cleanup(func() { stats.Close() })
	}
	w, err := kernel.NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	if err := w.Set(map[uint32]uint32{uint32(os.Getpid()): Slot}); err != nil {
		t.Fatal(err)
	}
	dir := t.ArtifactDir()
	return &kernel.Env{
		Features: f, Watch: w, Owners: &Names{owners: map[uint32]probe.Owner{Slot: Self()}}, Stats: stats != nil,
		VerifierLog: func(name, program, log string) {
			if log == "" {
				t.Errorf("%s/%s: the verifier said nothing", name, program)
			}
			if err := os.WriteFile(filepath.Join(dir, name+"."+program+".verifier.log"), []byte(log), 0o600); err != nil {
				t.Error(err)
			}
		},
	}
}

// Eventually calls check until it returns an empty string; after ten seconds the
// test fails with what it last said.
func Eventually(t *testing.T, check func() string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		problem := check()
		if problem == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(problem)
		}
	}
}
