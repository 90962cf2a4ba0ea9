//go:build linux && (amd64 || arm64)

package gcpause

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tracegate/tracegate/bpf/bpftest"
	"github.com/tracegate/tracegate/bpf/probe"
)

// build compiles testdata/collect.
func build(t *testing.T, cgo string, ldflags string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "collect")
	cmd := exec.Command("go", "build", "-ldflags="+ldflags, "-o", bin, "./testdata/collect")
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

type counted struct{ Pauses, Cycles uint64 }

// program is a running collect.
type program struct {
	pid int
	in  io.Writer
	out *json.Decoder
}

func run(t *testing.T, bin string) *program {
	t.Helper()
	cmd := exec.Command(bin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the observed program ended with %v\n%s", err, stderr.String())
		}
	})
	return &program{pid: cmd.Process.Pid, in: in, out: json.NewDecoder(out)}
}

func (p *program) next(t *testing.T) counted {
	t.Helper()
	var c counted
	if err := p.out.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPausesAreThoseOfTheRuntime wants as many pauses and marking phases as the
// observed program's runtime has counted itself, for an executable with symbols and
// for a stripped one.
func TestPausesAreThoseOfTheRuntime(t *testing.T) {
	for name, ldflags := range map[string]string{"with symbols": "", "stripped": "-s -w"} {
		t.Run(name, func(t *testing.T) {
			env := bpftest.Env(t)
			p, status, err := Open(env, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if status.State != probe.On {
				t.Errorf("status = %+v", status)
			}
			prog := run(t, build(t, "0", ldflags))
			before := prog.next(t)
			if err := env.Watch.Set(map[uint32]uint32{uint32(prog.pid): bpftest.Slot}); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time there is nothing left to do
				if err := p.Follow([]int{prog.pid}); err != nil {
					t.Fatal(err)
				}
			}
			if n := p.Executables(); n != 1 {
				t.Errorf("attached to %d executables", n)
			}
			if _, err := io.WriteString(prog.in, "\n"); err != nil {
				t.Fatal(err)
			}
			after := prog.next(t)
			r, err := p.Read()
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]uint64{}
			for _, s := range r.Series {
				got[s.Kind] = s.Hist.Count()
				if p95 := s.Hist.Quantile(0.95); p95 <= 0 || p95 > 5*time.Second {
					t.Errorf("%s: P95 %v", s.Kind, p95)
				}
				t.Logf("%s: %d, P50 %v, P95 %v", s.Kind, s.Hist.Count(), s.Hist.Quantile(0.5), s.Hist.Quantile(0.95))
			}
			if want := after.Pauses - before.Pauses; got["stopped"] != want || want < 20 {
				t.Errorf("%d pauses, the runtime counts %d", got["stopped"], want)
			}
			if want := after.Cycles - before.Cycles; got["marking"] != want || want < 10 {
				t.Errorf("%d marking phases, the runtime counts %d", got["marking"], want)
			}
		})
	}
}

// TestOnlyTrustedAddresses refuses an executable in which a function could be taken
// for another, and what is no Go program.
func TestOnlyTrustedAddresses(t *testing.T) {
	if _, err := findFunctions("/bin/sh", hooks); !errors.Is(err, errNotGo) {
		t.Errorf("/bin/sh: %v, want %v", err, errNotGo)
	}
	withSymbols, stripped := build(t, "0", ""), build(t, "0", "-s -w")
	truth := map[string]uint64{}
	f, err := elf.Open(withSymbols)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		truth[s.Name] = s.Value
	}
	for _, bin := range []string{withSymbols, stripped} {
		offsets, err := findFunctions(bin, hooks)
		if err != nil {
			t.Fatal(err)
		}
		text := f.Section(".text")
		for program, offset := range offsets {
			if want := truth[hooks[program]] - text.Addr + text.Offset; offset != want {
				t.Errorf("%s: %s at %#x, want %#x", filepath.Base(bin), hooks[program], offset, want)
			}
		}
	}
	if _, err := exec.LookPath("gcc"); err == nil {
		if _, err := findFunctions(build(t, "1", "-s -w"), hooks); !errors.Is(err, errUnknown) {
			t.Errorf("stripped and with cgo: %v, want %v", err, errUnknown)
		}
	}
}
