package bpf

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tracegate/tracegate/bpf/probe"
)

// Process is one process to watch.
type Process struct {
	PID     int
	Owner   probe.Owner
	Metrics string // URL of the process's own /metrics; empty: it has none
}

// Processes says which processes to watch: the supervisor's children here, the pods
// of a node elsewhere. It is asked at every reading and may answer differently; after
// an error the last answer stays in force.
type Processes interface {
	Processes(ctx context.Context) ([]Process, error)
}

// maxOwners is how many owners the programs can tell apart; 0 is nobody.
const maxOwners = 255

// keepGone is how long a slot stays with an owner without processes, so that a restart
// goes on counting where it was.
const keepGone = 5 * time.Minute

// owners gives every owner a slot, the number by which programs know it. Processes of
// the same owner share one.
type owners struct {
	mu     sync.Mutex
	bySlot [maxOwners + 1]probe.Owner
	slots  map[probe.Owner]uint32
	seen   map[uint32]time.Time
}

func newOwners() *owners {
	return &owners{slots: map[probe.Owner]uint32{}, seen: map[uint32]time.Time{}}
}

// Owner implements probe.Owners.
func (o *owners) Owner(slot uint32) probe.Owner {
	o.mu.Lock()
	defer o.mu.Unlock()
	if slot > maxOwners {
		return probe.Owner{}
	}
	return o.bySlot[slot]
}

// assign returns the slot of each process, the slots that have changed hands (whose
// counts must be dropped before they are used), and how many processes got none.
func (o *owners) assign(processes []Process, now time.Time) (watch map[uint32]uint32, taken []uint32, refused int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range processes { // first all that go on, so that none of them loses its slot to a new one
		if slot, ok := o.slots[p.Owner]; ok {
			o.seen[slot] = now
		}
	}
	watch = make(map[uint32]uint32, len(processes))
	for _, p := range processes {
		if p.PID <= 0 || p.Owner == (probe.Owner{}) {
			refused++
			continue
		}
		slot, ok := o.slots[p.Owner]
		if !ok {
			var reused bool
			if slot, reused = o.free(now); slot == 0 {
				refused++
				continue
			}
			if reused {
				taken = append(taken, slot)
				delete(o.slots, o.bySlot[slot])
			}
			o.slots[p.Owner], o.bySlot[slot], o.seen[slot] = slot, p.Owner, now
		}
		watch[uint32(p.PID)] = slot
	}
	return watch, taken, refused
}

// free returns a slot nobody has, or else the one whose owner has been gone longest;
// 0 if there is none.
func (o *owners) free(now time.Time) (slot uint32, reused bool) {
	for s := uint32(1); s <= maxOwners; s++ {
		if o.bySlot[s] == (probe.Owner{}) {
			return s, false
		}
	}
	oldest := slices.MinFunc(slices.Collect(maps.Keys(o.seen)), func(a, b uint32) int {
		if c := o.seen[a].Compare(o.seen[b]); c != 0 {
			return c
		}
		return int(a) - int(b)
	})
	if now.Sub(o.seen[oldest]) < keepGone {
		return 0, false
	}
	return oldest, true
}
