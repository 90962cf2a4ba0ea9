//go:build linux && (amd64 || arm64)

package schedlatency

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tracegate/tracegate/bpf/bpftest"
	"github.com/tracegate/tracegate/bpf/hist"
	"github.com/tracegate/tracegate/bpf/kernel"
	"github.com/tracegate/tracegate/bpf/probe"
)

const spin = "TRACEGATE_TEST_SPIN"

// TestMain lets the test run copies of itself that only use CPU, or only sleep and
// wake.
func TestMain(m *testing.M) {
	switch os.Getenv(spin) {
	case "busy":
		followParent()
		for { //nolint:staticcheck // using the CPU is what it is for
		}
	case "wake":
		followParent()
		wake()
	default:
		os.Exit(m.Run())
	}
}

// followParent ends the process with the one that started it, which holds the other
// end of its standard input.
func followParent() {
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		os.Exit(0)
	}()
}

// wake sleeps and works in turn, in a thread of its own.
func wake() {
	runtime.LockOSThread()
	for {
		_ = syscall.Nanosleep(&syscall.Timespec{Nsec: 2e6}, nil)
		for begin := time.Now(); time.Since(begin) < time.Millisecond; {
		}
	}
}

// start runs a copy of the test pinned to one CPU.
func start(t *testing.T, mode string, cpu int) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("taskset", "-c", fmt.Sprint(cpu), os.Args[0])
	cmd.Env = append(os.Environ(), spin+"="+mode, "GOMAXPROCS=2")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("taskset: %v", err)
	}
	t.Cleanup(func() { stdin.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// schedstat adds up what the kernel says about all threads of a process: time on a
// CPU, time waiting for one, and how often it got one.
func schedstat(t *testing.T, pid int) (run, wait time.Duration, n uint64) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/task", pid)
	tasks, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(dir + "/" + task.Name() + "/schedstat")
		if err != nil {
			continue
		}
		var r, w, c uint64
		if _, err := fmt.Sscan(string(b), &r, &w, &c); err != nil {
			t.Fatal(err)
		}
		run, wait, n = run+time.Duration(r), wait+time.Duration(w), n+c
	}
	return run, wait, n
}

func open(t testing.TB, env *kernel.Env, slow time.Duration) *Probe {
	t.Helper()
	p, status, err := Open(env, slow)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if status.State != probe.On {
		t.Errorf("status = %+v", status)
	}
	return p
}

func delays(t *testing.T, p *Probe) (all hist.Histogram, kinds map[string]uint64) {
	t.Helper()
	r, err := p.Read()
	if err != nil {
		t.Fatal(err)
	}
	kinds = map[string]uint64{}
	for _, s := range r.Series {
		if s.Owner != bpftest.Self() {
			t.Errorf("series of %+v", s.Owner)
		}
		all.Add(&s.Hist)
		kinds[s.Kind] += s.Hist.Count()
	}
	for _, l := range r.Lost {
		if l.N != 0 && l.Reason != probe.LostLimited {
			t.Logf("lost: %+v", l)
		}
	}
	return all, kinds
}

// TestWaitsAreThoseOfTheKernel overloads one CPU and wants the sum and number of waits
// to be what /proc/<pid>/schedstat says about the same process over the same time.
func TestWaitsAreThoseOfTheKernel(t *testing.T) {
	env := bpftest.Env(t)
	start(t, "busy", 0)
	worker := start(t, "wake", 0)
	if err := env.Watch.Set(map[uint32]uint32{uint32(worker.Process.Pid): bpftest.Slot}); err != nil {
		t.Fatal(err)
	}
	p := open(t, env, 0)
	runs := func(atLeast uint64) {
		t.Helper()
		_, _, n0 := schedstat(t, worker.Process.Pid)
		bpftest.Eventually(t, func() string {
			if _, _, n := schedstat(t, worker.Process.Pid); n < n0+atLeast {
				return fmt.Sprintf("the worker ran %d times only", n-n0)
			}
			return ""
		})
	}
	// Waits that had begun before the probe end in the kernel's count only; and this
	// test may have to wait itself between two readings. So the kernel is asked before
	// and after the probe each time, and the probe must lie between.
	runs(20)
	_, outer0, outerN0 := schedstat(t, worker.Process.Pid)
	before, _ := delays(t, p)
	_, inner0, innerN0 := schedstat(t, worker.Process.Pid)
	runs(200)
	_, inner1, innerN1 := schedstat(t, worker.Process.Pid)
	after, kinds := delays(t, p)
	_, outer1, outerN1 := schedstat(t, worker.Process.Pid)

	got := after.Since(&before)
	low, high := inner1-inner0, outer1-outer0
	t.Logf("probe: %d waits, %v (%v), P95 %v; kernel: %d to %d waits, %v to %v",
		got.Count(), time.Duration(got.Sum), kinds, got.Quantile(0.95), innerN1-innerN0, outerN1-outerN0, low, high)
	if high < 10*time.Millisecond {
		t.Errorf("the CPU was not overloaded: %v of waiting", high)
	}
	if sum := time.Duration(got.Sum); sum < low-low/20 || sum > high+high/20+time.Millisecond {
		t.Errorf("waits add up to %v, the kernel says %v to %v", sum, low, high)
	}
	if n := got.Count(); n+3 < innerN1-innerN0 || n > outerN1-outerN0+3 {
		t.Errorf("%d waits, the kernel says %d to %d", n, innerN1-innerN0, outerN1-outerN0)
	}
	if kinds["wakeup"] == 0 || kinds["preempted"] == 0 {
		t.Errorf("kinds = %v, want both", kinds)
	}
}

// TestUnwatchedProcessesAreNotRecorded watches nobody while the machine works.
func TestUnwatchedProcessesAreNotRecorded(t *testing.T) {
	env := bpftest.Env(t)
	if err := env.Watch.Set(nil); err != nil {
		t.Fatal(err)
	}
	p := open(t, env, 0)
	worker := start(t, "wake", 0)
	bpftest.Eventually(t, func() string {
		if _, _, n := schedstat(t, worker.Process.Pid); n < 50 {
			return "the worker does not run"
		}
		return ""
	})
	if n, err := p.Recorded(); err != nil || n != 0 {
		t.Errorf("%d events recorded (%v), want none", n, err)
	}
	if c, err := p.Cost(); err != nil || c.Events == 0 || c.Runtime == 0 {
		t.Errorf("cost = %+v, %v: the programs did not run", c, err)
	}
}

// TestBurst makes a million wake-ups with every one "slow": the histogram has them
// all, exemplars are bounded, and what is missing among them is counted.
func TestBurst(t *testing.T) {
	events := 1_000_000
	if testing.Short() {
		events = 50_000
	}
	env := bpftest.Env(t)
	p := open(t, env, time.Nanosecond)
	ctx, cancel := context.WithCancel(t.Context())
	received := make(chan uint64, 1)
	go func() {
		var n uint64
		if err := p.Exemplars(ctx, func(probe.Exemplar) { n++ }); err != nil {
			t.Error(err)
		}
		received <- n
	}()
	_, _, n0 := schedstat(t, os.Getpid())
	recorded0, err := p.Recorded()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	pingPong(t, events/2)
	took := time.Since(begin)
	recorded1, err := p.Recorded()
	if err != nil {
		t.Fatal(err)
	}
	_, _, n1 := schedstat(t, os.Getpid())
	got, want := recorded1-recorded0, n1-n0
	r, err := p.Read()
	if err != nil {
		t.Fatal(err)
	}
	var counted, slow uint64
	for _, s := range r.Series {
		counted += s.Hist.Count()
		slow += s.Hist.Count() - s.Hist.Slot[0] // in the first are those that did not wait at all
	}
	lost := map[probe.Reason]uint64{}
	for _, l := range r.Lost {
		lost[l.Reason] = l.N
	}
	cancel() // what is still in the ring is not received: at most the limit of a tenth of a second
	exemplars := <-received
	t.Logf("%d events in %v: %d recorded, %d by the kernel; %d exemplars; lost %v", events, took.Round(time.Millisecond), got, want, exemplars, lost)
	if want < uint64(events) {
		t.Fatalf("only %d switches for %d events", want, events)
	}
	if diff := int64(got) - int64(want); max(diff, -diff) > int64(want/1000) {
		t.Errorf("%d waits recorded, the kernel counts %d", got, want)
	}
	if counted < got {
		t.Errorf("histograms have %d, counters %d", counted, got)
	}
	windows := uint64(took/(100*time.Millisecond)) + 2 // the first and the last are not whole
	if limit := 16 * uint64(runtime.NumCPU()) * windows; exemplars > limit {
		t.Errorf("%d exemplars in %v, want %d at most", exemplars, took, limit)
	}
	unread := uint64(2 * 16 * runtime.NumCPU())
	if all := exemplars + lost[probe.LostLimited] + lost[probe.LostRing]; all+unread < slow || slow == 0 {
		t.Errorf("%d exemplars and %v lost do not account for %d slow events", exemplars, lost, slow)
	}
}

// pingPong passes a byte to and fro between two threads through pipes, n times.
func pingPong(t testing.TB, n int) {
	t.Helper()
	var a, b [2]int
	for _, p := range []*[2]int{&a, &b} {
		if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(p[0])
		defer syscall.Close(p[1])
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread() // a thread that ends takes its count of switches with it
		buf := make([]byte, 1)
		for range n {
			if _, err := syscall.Read(a[0], buf); err != nil {
				done <- err
				return
			}
			if _, err := syscall.Write(b[1], buf); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	buf := []byte(strings.Repeat("x", 1))
	for range n {
		if _, err := syscall.Write(a[1], buf); err != nil {
			t.Fatal(err)
		}
		if _, err := syscall.Read(b[0], buf); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
