//go:build linux && (amd64 || arm64)

package kernel

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/tracegate/tracegate/bpf/hist"
	"github.com/tracegate/tracegate/bpf/probe"
)

// Env is what all probes load with.
type Env struct {
	Features *Features
	Watch    *Watch
	Owners   probe.Owners
	// Stats says that the kernel measures the run time of programs (EnableStats).
	Stats bool
	// VerifierLog receives what the kernel's verifier said about each program; nil: not asked for.
	VerifierLog func(probe, program, log string)
}

// Options are one probe's own.
type Options struct {
	Slow    time.Duration // events at least this slow become exemplars; 0: none
	Without []string      // programs this kernel has no hook for
	// Constants of the programs' own.
	Constants map[string]any
}

// Object is the loaded programs and maps of one probe.
type Object struct {
	name      string
	transport Transport
	stats     bool
	owners    probe.Owners
	coll      *ebpf.Collection

	mu    sync.Mutex
	links []link.Link
}

// Load loads a probe's programs; nothing runs yet. The caller closes the object.
func Load(env *Env, name string, spec *ebpf.CollectionSpec, opts Options) (*Object, error) {
	for _, p := range opts.Without {
		delete(spec.Programs, p)
	}
	transport := env.Features.Transport
	if opts.Slow <= 0 {
		transport = TransportNone
	}
	if err := setConstants(spec, env, transport, opts); err != nil {
		return nil, fmt.Errorf("probe %s: %w", name, err)
	}
	replaceUnused(spec, transport)
	copts := ebpf.CollectionOptions{
		Programs: ebpf.ProgramOptions{KernelTypes: env.Features.Types},
		MapReplacements: map[string]*ebpf.Map{
			"watched": env.Watch.slots, "watched_bits": env.Watch.bits,
		},
	}
	if env.VerifierLog != nil {
		copts.Programs.LogLevel = ebpf.LogLevelInstruction | ebpf.LogLevelStats
	}
	// Before Linux 5.11 maps count against RLIMIT_MEMLOCK. Where it may not be raised,
	// loading says so itself.
	_ = rlimit.RemoveMemlock()
	coll, err := ebpf.NewCollectionWithOptions(spec, copts)
	if err != nil {
		if rejected := (*ebpf.VerifierError)(nil); errors.As(err, &rejected) && env.VerifierLog != nil {
			env.VerifierLog(name, "rejected", strings.Join(rejected.Log, "\n"))
		}
		return nil, fmt.Errorf("load programs of %s: %w", name, err)
	}
	if env.VerifierLog != nil {
		for _, p := range slices.Sorted(maps.Keys(coll.Programs)) {
			env.VerifierLog(name, p, coll.Programs[p].VerifierLog)
		}
	}
	return &Object{name: name, transport: transport, stats: env.Stats, owners: env.Owners, coll: coll}, nil
}

func setConstants(spec *ebpf.CollectionSpec, env *Env, t Transport, opts Options) error {
	consts := map[string]any{"exemplar_mode": uint32(t), "slow_ns": uint64(max(opts.Slow, 0))}
	maps.Copy(consts, opts.Constants)
	for name, value := range consts {
		v, ok := spec.Variables[name]
		if !ok {
			continue // a program that makes no exemplars has no use for it
		}
		if err := v.Set(value); err != nil {
			return fmt.Errorf("set constant %s: %w", name, err)
		}
	}
	return nil
}

// replaceUnused turns the maps of the other transports into arrays of one entry: the
// kernel may not know their types, and no program will touch them.
func replaceUnused(spec *ebpf.CollectionSpec, used Transport) {
	for t, name := range map[Transport]string{TransportRing: "exemplars_ring", TransportPerf: "exemplars_perf", TransportQueue: "exemplars_queue"} {
		if m, ok := spec.Maps[name]; ok && t != used {
			spec.Maps[name] = &ebpf.MapSpec{Name: m.Name, Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
		}
	}
}

// Attach attaches programs that name their hook themselves: those given, or all. One
// that the kernel refuses is named in the error; those before it stay attached.
func (o *Object) Attach(programs ...string) error {
	if len(programs) == 0 {
		programs = slices.Sorted(maps.Keys(o.coll.Programs))
	}
	for _, name := range programs {
		l, err := link.AttachTracing(link.TracingOptions{Program: o.coll.Programs[name]})
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		o.Own(l)
	}
	return nil
}

// Own makes the object close a link.
func (o *Object) Own(l link.Link) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.links = append(o.links, l)
}

// Program returns a loaded program, nil if there is none of that name.
func (o *Object) Program(name string) *ebpf.Program { return o.coll.Programs[name] }

// Map returns a map, nil if there is none of that name.
func (o *Object) Map(name string) *ebpf.Map { return o.coll.Maps[name] }

// Owner finds who a slot was given to.
func (o *Object) Owner(slot uint32) probe.Owner { return o.owners.Owner(slot) }

// Sample makes the programs look at one event in 2^shift.
func (o *Object) Sample(shift uint) error {
	v, ok := o.coll.Variables["sample_mask"]
	if !ok {
		return nil
	}
	if err := v.Set(uint32(1)<<shift - 1); err != nil {
		return fmt.Errorf("set sampling of %s: %w", o.name, err)
	}
	return nil
}

// Detach stops the programs; what they have counted stays readable.
func (o *Object) Detach() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs []error
	for _, l := range o.links {
		errs = append(errs, l.Close())
	}
	o.links = nil
	return errors.Join(errs...)
}

// Close detaches and frees everything.
func (o *Object) Close() error {
	err := o.Detach()
	o.coll.Close()
	return err
}

// assumedCost stands in for a measured one; on purpose more than any of the programs
// takes on a machine of today.
const assumedCost = 400 * time.Nanosecond

// Cost returns what the programs have used so far.
func (o *Object) Cost() (probe.Cost, error) {
	if !o.stats {
		calls, err := o.counter(countCalls)
		return probe.Cost{Events: calls, Runtime: time.Duration(calls) * assumedCost, Estimated: true}, err
	}
	var c probe.Cost
	for name, p := range o.coll.Programs {
		s, err := p.Stats()
		if err != nil {
			return c, fmt.Errorf("read run time of %s: %w", name, err)
		}
		c.Events += s.RunCount
		c.Runtime += s.Runtime
	}
	return c, nil
}

// The counters of headers/probe.h.
const (
	countCalls uint32 = iota
	countRecorded
	lostInflight
	lostSeries
	lostRing
	lostLimited
)

func (o *Object) counter(which uint32) (uint64, error) {
	var cpus []uint64
	if err := o.coll.Maps["counters"].Lookup(which, &cpus); err != nil {
		return 0, fmt.Errorf("read counters of %s: %w", o.name, err)
	}
	return total(cpus), nil
}

// Recorded returns the number of events in the probe's histograms and counters.
func (o *Object) Recorded() (uint64, error) { return o.counter(countRecorded) }

// Lost returns what is missing, every reason once.
func (o *Object) Lost() ([]probe.Lost, error) {
	var out []probe.Lost
	for which, reason := range map[uint32]probe.Reason{
		lostInflight: probe.LostInflight, lostSeries: probe.LostSeries, lostRing: probe.LostRing, lostLimited: probe.LostLimited,
	} {
		n, err := o.counter(which)
		if err != nil {
			return nil, err
		}
		out = append(out, probe.Lost{Reason: reason, N: n})
	}
	var misses uint64
	for _, p := range o.coll.Programs {
		if s, err := p.Stats(); err == nil { // before Linux 5.12 there is nothing to read
			misses += s.RecursionMisses
		}
	}
	return append(out, probe.Lost{Reason: probe.LostRecursion, N: misses}), nil
}

// Histogram reads one entry of a per-CPU map of histograms.
func (o *Object) Histogram(name string, key any) (hist.Histogram, error) {
	var cpus []hist.Histogram
	var sum hist.Histogram
	if err := o.coll.Maps[name].Lookup(key, &cpus); err != nil {
		return sum, fmt.Errorf("read %s: %w", name, err)
	}
	for i := range cpus {
		sum.Add(&cpus[i])
	}
	return sum, nil
}

// ClearHistogram empties one entry of a per-CPU array of histograms.
func (o *Object) ClearHistogram(name string, index uint32) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count CPUs: %w", err)
	}
	if err := o.coll.Maps[name].Put(index, make([]hist.Histogram, cpus)); err != nil {
		return fmt.Errorf("clear %s: %w", name, err)
	}
	return nil
}

// Each calls use for every entry of a per-CPU hash; V is the value of one CPU.
func Each[K, V any](o *Object, name string, use func(key K, cpus []V)) error {
	var key K
	var cpus []V
	it := o.coll.Maps[name].Iterate()
	for it.Next(&key, &cpus) {
		use(key, cpus)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// DeleteIf removes the entries of a hash that match.
func DeleteIf[K any](o *Object, name string, match func(K) bool) error {
	var keys []K
	var key K
	var value []byte
	it := o.coll.Maps[name].Iterate()
	for it.Next(&key, &value) {
		if match(key) {
			keys = append(keys, key)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	for _, k := range keys {
		if err := o.coll.Maps[name].Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete from %s: %w", name, err)
		}
	}
	return nil
}

// Sum adds up the CPUs' histograms.
func Sum(cpus []hist.Histogram) hist.Histogram {
	var sum hist.Histogram
	for i := range cpus {
		sum.Add(&cpus[i])
	}
	return sum
}

// Total adds up the CPUs' counts.
func Total(cpus []uint64) uint64 { return total(cpus) }

func total(cpus []uint64) uint64 {
	var n uint64
	for _, c := range cpus {
		n += c
	}
	return n
}
