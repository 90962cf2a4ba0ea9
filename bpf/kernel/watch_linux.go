//go:build linux && (amd64 || arm64)

package kernel

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

const watchBits = 65536 // as BITS in headers/probe.h

// MaxSlots is the number of owners that programs can tell apart, with 0 for nobody.
const MaxSlots = 256

type bitmap [watchBits / 64]uint64

// Watch is the set of processes that programs look at, shared by all probes.
type Watch struct {
	bits, slots *ebpf.Map
	current     map[uint32]uint32 // pid -> slot
}

// NewWatch makes an empty set. The caller closes it.
func NewWatch() (*Watch, error) {
	bits, err := ebpf.NewMap(&ebpf.MapSpec{Name: "watched_bits", Type: ebpf.Array, KeySize: 4, ValueSize: watchBits / 8, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("make map watched_bits: %w", err)
	}
	slots, err := ebpf.NewMap(&ebpf.MapSpec{Name: "watched", Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 1024})
	if err != nil {
		bits.Close()
		return nil, fmt.Errorf("make map watched: %w", err)
	}
	return &Watch{bits: bits, slots: slots, current: map[uint32]uint32{}}, nil
}

// Set makes the processes (pid -> slot) the watched ones. A process that could not be
// added, for want of room, is left out and named in the error; the others are watched.
func (w *Watch) Set(processes map[uint32]uint32) error {
	var errs []error
	var bits bitmap
	next := make(map[uint32]uint32, len(processes))
	for pid, slot := range processes {
		if old, ok := w.current[pid]; !ok || old != slot {
			if err := w.slots.Put(pid, slot); err != nil {
				errs = append(errs, fmt.Errorf("watch process %d: %w", pid, err))
				continue
			}
		}
		next[pid] = slot
		bits[pid%watchBits/64] |= 1 << (pid % 64)
	}
	// Slots before bits for the new, bits before slots for the gone: a set bit always
	// finds its slot.
	if err := w.bits.Put(uint32(0), bits); err != nil {
		errs = append(errs, fmt.Errorf("set watched processes: %w", err))
	}
	for pid := range w.current {
		if _, kept := next[pid]; kept {
			continue
		}
		if err := w.slots.Delete(pid); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("forget process %d: %w", pid, err))
		}
	}
	w.current = next
	return errors.Join(errs...)
}

// Close frees the maps; programs that use them keep their own reference.
func (w *Watch) Close() error { return errors.Join(w.bits.Close(), w.slots.Close()) }
