//go:build linux && (amd64 || arm64)

package bpf

import (
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/tracegate/tracegate/bpf/acceptqueue"
	"github.com/tracegate/tracegate/bpf/gcpause"
	"github.com/tracegate/tracegate/bpf/kernel"
	"github.com/tracegate/tracegate/bpf/probe"
	"github.com/tracegate/tracegate/bpf/schedlatency"
	"github.com/tracegate/tracegate/bpf/tcpconnect"
	"github.com/tracegate/tracegate/bpf/tcpretransmit"
)

// machine is the programs of this machine.
type machine struct {
	watch       *kernel.Watch // nil: no program can be loaded
	stats       io.Closer
	accept      *acceptqueue.Probe
	retransmits *tcpretransmit.Probe
	pauses      *gcpause.Probe
	closers     []io.Closer
	ports       map[uint32]bool // processes whose listeners have been looked up
	log         *slog.Logger
}

// Confine gives up all privileges but those that the probes need, for good. It runs the
// program anew, so call it first of all, in a process that does nothing else; it returns
// in that second run. What it returns belongs into Deps.Stats.
func Confine() (stats io.Closer, err error) {
	file, err := kernel.Confine(unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_PTRACE)
	if file == nil { // not an interface that holds nil
		return nil, err
	}
	return file, err
}

// openProbes loads every probe that is not switched off. What cannot be loaded comes
// back as off, with the reason; the error is for what should never happen.
func openProbes(cfg Config, stats io.Closer, o *owners, log *slog.Logger) (kernelSide, []loaded, error) {
	m := &machine{ports: map[uint32]bool{}, log: log}
	features, err := kernel.Detect()
	if err != nil {
		return m, allOff(err.Error()), nil
	}
	if m.stats = stats; m.stats == nil {
		if on, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME); err == nil {
			m.stats = on
		} else {
			log.Warn("the probes' own cost is estimated", "why", "the kernel's run time statistics need CAP_SYS_ADMIN at the start", "err", err)
		}
	}
	if m.watch, err = kernel.NewWatch(); err != nil {
		return m, allOff(err.Error()), m.Close()
	}
	env := &kernel.Env{Features: features, Watch: m.watch, Owners: o, Stats: m.stats != nil}
	var out []loaded
	for _, p := range m.openers(env, cfg.Thresholds) {
		if slices.Contains(cfg.Off, p.name) {
			out = append(out, loaded{status: probe.Status{Probe: p.name, State: probe.Off, Why: "switched off by the configuration"}})
			continue
		}
		l, err := p.open()
		if err != nil {
			l = loaded{status: probe.Status{Probe: p.name, State: probe.Off, Why: err.Error()}}
		} else if !kernel.SeesHostPIDs() {
			l.status.State, l.status.Why = probe.Degraded, "process ids are not the host's, so no process can be told from another: run with hostPID"
		}
		out = append(out, l)
	}
	return m, out, nil
}

type opener struct {
	name string
	open func() (loaded, error)
}

// openers lists the probes in the order of Names.
func (m *machine) openers(env *kernel.Env, th Thresholds) []opener {
	return []opener{
		{tcpconnect.Name, func() (loaded, error) {
			p, s, err := tcpconnect.Open(env, th.Connect)
			return m.own(p, s, err)
		}},
		{schedlatency.Name, func() (loaded, error) {
			p, s, err := schedlatency.Open(env, th.Scheduler)
			return m.own(p, s, err)
		}},
		{tcpretransmit.Name, func() (loaded, error) {
			p, s, err := tcpretransmit.Open(env)
			m.retransmits = p
			return m.own(p, s, err)
		}},
		{acceptqueue.Name, func() (loaded, error) {
			p, s, err := acceptqueue.Open(env, th.Accept)
			m.accept = p
			return m.own(p, s, err)
		}},
		{gcpause.Name, func() (loaded, error) {
			p, s, err := gcpause.Open(env, th.Pause)
			m.pauses = p
			return m.own(p, s, err)
		}},
	}
}

// own makes the machine close a probe that has been opened.
func (m *machine) own(p interface {
	running
	throttle
	io.Closer
}, s probe.Status, err error) (loaded, error) {
	if err != nil {
		return loaded{}, err
	}
	m.closers = append(m.closers, p)
	return loaded{status: s, running: p, throttle: p}, nil
}

// Watch implements kernelSide.
func (m *machine) Watch(processes map[uint32]uint32) error {
	if m.watch == nil {
		return nil
	}
	errs := []error{m.watch.Set(processes)}
	var fresh []int
	for _, pid := range slices.Sorted(maps.Keys(processes)) {
		if !m.ports[pid] {
			fresh = append(fresh, int(pid))
		}
	}
	for pid := range m.ports {
		if _, ok := processes[pid]; !ok {
			delete(m.ports, pid)
		}
	}
	if m.pauses != nil && len(fresh) > 0 {
		if err := m.pauses.Follow(fresh); err != nil {
			m.log.Warn("no pauses by uprobes for some processes; their own metrics say them, if they serve any", "err", err)
		}
	}
	for _, pid := range fresh {
		m.ports[uint32(pid)] = true
		errs = append(errs, m.learnPorts(pid, processes[uint32(pid)]))
	}
	return errors.Join(errs...)
}

// learnPorts tells the probes of listeners which ports a process listens on that they
// have not seen it open.
func (m *machine) learnPorts(pid int, slot uint32) error {
	if m.accept == nil && m.retransmits == nil {
		return nil
	}
	found, err := acceptqueue.PortsOf(pid)
	if err != nil {
		return nil //nolint:nilerr // a process that has just ended, or whose files may not be read: listen calls are seen all the same
	}
	ports := make(map[uint16]uint32, len(found))
	for _, port := range found {
		ports[port] = slot
	}
	var errs []error
	if m.accept != nil {
		errs = append(errs, m.accept.SetListeners(ports))
	}
	if m.retransmits != nil {
		errs = append(errs, m.retransmits.SetListeners(ports))
	}
	return errors.Join(errs...)
}

// Close detaches all programs and frees them.
func (m *machine) Close() error {
	var errs []error
	for _, c := range slices.Backward(m.closers) {
		errs = append(errs, c.Close())
	}
	if m.watch != nil {
		errs = append(errs, m.watch.Close())
	}
	if m.stats != nil {
		errs = append(errs, m.stats.Close())
	}
	return errors.Join(errs...)
}
