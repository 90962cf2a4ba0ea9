//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/tracegate/tracegate/bpf/bpftest"
	"github.com/tracegate/tracegate/bpf/kernel"
	"github.com/tracegate/tracegate/bpf/probe"
)

// runAs makes the test's copy of itself run the probes and print their states.
const runAs = "TRACEGATE_TEST_RUN"

func TestMain(m *testing.M) {
	switch os.Getenv(runAs) {
	case "":
		os.Exit(m.Run())
	default:
		os.Exit(printStates(os.Getenv(runAs) == "required"))
	}
}

// printStates runs until the first reading and prints its probes as JSON.
func printStates(required bool) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cfg := DefaultConfig()
	cfg.Required = required
	cfg.Interval, cfg.Window = 200*time.Millisecond, time.Second
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, cfg, Deps{Processes: processes{{PID: os.Getpid(), Owner: canary}}, Registry: prometheus.NewRegistry(), Listener: l},
			slog.New(slog.NewTextHandler(os.Stderr, nil)))
	}()
	for {
		select {
		case err := <-ended:
			fmt.Fprintln(os.Stderr, err)
			return 1
		case <-time.After(50 * time.Millisecond):
		}
		s, err := Fetch(ctx, http.DefaultClient, l.Addr().String())
		if err != nil || s.Window == 0 {
			continue
		}
		if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
			return 1
		}
		cancel()
		if err := <-ended; err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
}

// runCopy runs this test binary as nobody with the given capabilities only.
func runCopy(t *testing.T, mode string, caps ...uintptr) (Snapshot, string, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become somebody with less")
	}
	dir, err := os.MkdirTemp("", "tracegate-probe-test") //nolint:usetesting // nobody may enter t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bin := filepath.Join(dir, "copy")
	b, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(bin, b, 0o755)); err != nil { //nolint:gosec // to be run by another user
		t.Fatal(err)
	}
	cmd := exec.Command(bin)
	cmd.Env = []string{runAs + "=" + mode, "PATH=" + os.Getenv("PATH")}
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: caps, Pdeathsig: syscall.SIGKILL,
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	var s Snapshot
	if err == nil {
		if err := json.Unmarshal(stdout.Bytes(), &s); err != nil {
			t.Fatalf("%v: %q\n%s", err, stdout.String(), stderr.String())
		}
	}
	return s, stderr.String(), err
}

// TestTwoCapabilitiesAreEnough loads and attaches everything as nobody with CAP_BPF and
// CAP_PERFMON.
func TestTwoCapabilitiesAreEnough(t *testing.T) {
	s, stderr, err := runCopy(t, "required", unix.CAP_BPF, unix.CAP_PERFMON)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	if len(s.Probes) != len(Names()) {
		t.Errorf("%d probes, want %d", len(s.Probes), len(Names()))
	}
	for i, p := range s.Probes {
		if p.State != probe.On || p.Probe != Names()[i] {
			t.Errorf("%s is %s: %s", p.Probe, p.State, p.Why)
		}
		if !p.Estimated && p.Rate > 0 {
			t.Errorf("%s: cost is said to be measured without CAP_SYS_ADMIN", p.Probe)
		}
	}
	if len(s.Problems) > 0 {
		t.Errorf("problems: %q", s.Problems)
	}
}

func TestWithoutPrivilegeItSaysWhatItNeeds(t *testing.T) {
	_, stderr, err := runCopy(t, "required")
	if err == nil || !strings.Contains(stderr, ErrNoProbe.Error()+": "+kernel.ErrPrivilege.Error()) {
		t.Errorf("%v; stderr:\n%s", err, stderr)
	}
	s, stderr, err := runCopy(t, "optional")
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	for _, p := range s.Probes {
		if p.State != probe.Off || p.Why != kernel.ErrPrivilege.Error() {
			t.Errorf("%+v", p)
		}
	}
	if n := strings.Count(stderr, "msg=\"kernel probe\""); n != len(Names()) {
		t.Errorf("%d lines about probes, want %d:\n%s", n, len(Names()), stderr)
	}
}

// TestRun goes the whole way: a process whose connects are slow, watched by Run, seen
// on its admin interface as alert, cause, slow event and metric.
func TestRun(t *testing.T) {
	if _, err := kernel.Detect(); err != nil {
		t.Skipf("no probes here: %v", err)
	}
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Required = true
	cfg.Interval, cfg.Window = 200*time.Millisecond, 2*time.Second
	cfg.Budget = 1 // other tests of this machine are not what is looked at
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	var log bytes.Buffer
	go func() {
		ended <- Run(ctx, cfg, Deps{Processes: processes{{PID: os.Getpid(), Owner: canary}}, Registry: prometheus.NewRegistry(), Listener: admin},
			slog.New(slog.NewTextHandler(&log, nil)))
	}()
	client := &http.Client{Timeout: 5 * time.Second}
	last := func() Snapshot {
		s, err := Fetch(t.Context(), client, admin.Addr().String())
		if err != nil {
			return Snapshot{}
		}
		return s
	}
	bpftest.Eventually(t, func() string {
		if s := last(); s.Watched != 1 {
			return fmt.Sprintf("not ready: %+v", s)
		}
		return ""
	})
	bpftest.InNamespace(t, func(line *bpftest.Line) {
		l, err := net.Listen("tcp", net.JoinHostPort(bpftest.Near4, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		target := net.JoinHostPort(bpftest.Far4, fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
		line.DelaySYN(250 * time.Millisecond)
		for range minEvents {
			c, err := net.Dial("tcp", target)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
		bpftest.Eventually(t, func() string {
			s := last()
			slow := slices.ContainsFunc(s.Slow, func(e probe.Exemplar) bool {
				return e.Kind == "connect" && e.Target == target && e.Latency >= 250*time.Millisecond && e.Owner == canary
			})
			for _, c := range s.CausesOf("core", "canary") {
				if slow && len(s.Alerts) > 0 && strings.HasPrefix(c.Text, "connects to "+target+" take 2") {
					return ""
				}
			}
			return fmt.Sprintf("no cause, alert or slow event: %+v", s)
		})
	})
	res, err := client.Get("http://" + admin.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || !bytes.Contains(body, []byte(`tracegate_probe_seconds_count{kind="connect",name="core-canary",pool="canary",probe="tcpconnect"`)) {
		t.Errorf("metrics: %v\n%s", err, body)
	}
	s := last()
	for _, p := range s.Probes {
		if p.State != probe.On || p.Estimated {
			t.Errorf("%s is %s: %s", p.Probe, p.State, p.Why)
		}
		t.Logf("%-14s %-9s %8.1f events/s, %v each, %.3f%% of a core, lost %v", p.Probe, p.State, p.Rate, p.EventCost, 100*p.Share, p.Lost)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "msg=\"kernel probe\""); n != len(Names()) {
		t.Errorf("%d lines about probes, want one each:\n%s", n, log.String())
	}
}
