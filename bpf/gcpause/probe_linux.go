//go:build linux && (amd64 || arm64)

package gcpause

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/cilium/ebpf/link"

	"github.com/tracegate/tracegate/bpf/kernel"
	"github.com/tracegate/tracegate/bpf/probe"
)

// kinds are enum kind of the program.
var kinds = [...]string{"stopped", "marking"}

// hooks says which program stands at which function.
var hooks = map[string]string{
	"world_stops":  "runtime.stopTheWorldWithSema",
	"world_starts": "runtime.startTheWorldWithSema",
	"mark_begins":  "runtime.gcStart",
	"mark_ends":    "runtime.gcMarkTermination",
}

// Probe is loaded; it attaches to executables as they come (Follow).
type Probe struct {
	*kernel.Object
	attached map[file]bool
	failed   map[file]error
}

// file is an executable, whichever path leads to it.
type file struct{ dev, ino uint64 }

// Open loads the probe; pauses at least slow long become exemplars. The caller closes
// it.
func Open(env *kernel.Env, slow time.Duration) (*Probe, probe.Status, error) {
	if _, err := os.Stat("/sys/bus/event_source/devices/uprobe"); err != nil {
		return nil, probe.Status{}, errors.New("the kernel has no uprobes (CONFIG_UPROBE_EVENTS)")
	}
	spec, err := loadBpf()
	if err != nil {
		return nil, probe.Status{}, err
	}
	o, err := kernel.Load(env, Name, spec, kernel.Options{Slow: slow})
	if err != nil {
		return nil, probe.Status{}, err
	}
	p := &Probe{Object: o, attached: map[file]bool{}, failed: map[file]error{}}
	return p, probe.Status{Probe: Name, State: probe.On, Source: "uprobes on the Go runtime"}, nil
}

// Follow attaches to the executables of the processes, each once: a uprobe belongs to
// a file and sees every process that runs it. The error names those that are no Go
// programs or cannot be read; they are not tried again.
func (p *Probe) Follow(pids []int) error {
	var errs []error
	for _, pid := range pids {
		path := fmt.Sprintf("/proc/%d/exe", pid)
		info, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // gone already
		} else if err != nil {
			errs = append(errs, fmt.Errorf("executable of process %d: %w", pid, err))
			continue
		}
		st := info.Sys().(*syscall.Stat_t)
		f := file{dev: st.Dev, ino: st.Ino}
		if p.attached[f] || p.failed[f] != nil {
			continue
		}
		if err := p.attach(path); err != nil {
			p.failed[f] = err
			errs = append(errs, fmt.Errorf("executable of process %d: %w", pid, err))
			continue
		}
		p.attached[f] = true
	}
	return errors.Join(errs...)
}

// Executables returns the number of files the probe is attached to.
func (p *Probe) Executables() int { return len(p.attached) }

func (p *Probe) attach(path string) error {
	offsets, err := findFunctions(path, hooks)
	if err != nil {
		return err
	}
	ex, err := link.OpenExecutable(path)
	if err != nil {
		return fmt.Errorf("open executable: %w", err)
	}
	for name, symbol := range hooks {
		l, err := ex.Uprobe(symbol, p.Program(name), &link.UprobeOptions{Address: offsets[name]})
		if err != nil {
			return fmt.Errorf("attach to %s: %w", symbol, err)
		}
		p.Own(l)
	}
	return nil
}

// Read returns the pauses of every owner that has had any.
func (p *Probe) Read() (probe.Reading, error) {
	var r probe.Reading
	for slot := uint32(1); slot < kernel.MaxSlots; slot++ {
		owner := p.Owner(slot)
		if owner == (probe.Owner{}) {
			continue
		}
		for i, kind := range kinds {
			h, err := p.Histogram("pauses", slot*uint32(len(kinds))+uint32(i))
			if err != nil {
				return r, err
			}
			if h.Count() > 0 {
				r.Series = append(r.Series, probe.Series{Probe: Name, Kind: kind, Owner: owner, Hist: h})
			}
		}
	}
	var err error
	r.Lost, err = p.Lost()
	return r, err
}

// Forget drops what was counted for a slot that will get a new owner.
func (p *Probe) Forget(slot uint32) error {
	var errs []error
	for i := range kinds {
		errs = append(errs, p.ClearHistogram("pauses", slot*uint32(len(kinds))+uint32(i)))
	}
	return errors.Join(errs...)
}

// Exemplars hands long pauses to use until ctx is done.
func (p *Probe) Exemplars(ctx context.Context, use func(probe.Exemplar)) error {
	return p.Object.Exemplars(ctx, func(r kernel.Raw) (string, string) {
		return kinds[min(int(r.Detail), len(kinds)-1)], ""
	}, use)
}
