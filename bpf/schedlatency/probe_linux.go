//go:build linux && (amd64 || arm64)

package schedlatency

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/tracegate/tracegate/bpf/kernel"
	"github.com/tracegate/tracegate/bpf/probe"
)

// kinds are enum kind of the program.
var kinds = [...]string{"wakeup", "preempted"}

// Probe is loaded and attached.
type Probe struct{ *kernel.Object }

// Open loads and attaches the probe; waits at least slow long become exemplars. The
// caller closes it.
func Open(env *kernel.Env, slow time.Duration) (*Probe, probe.Status, error) {
	if !env.Features.HasTracepoint("sched_switch", 3) {
		return nil, probe.Status{}, errors.New("the kernel has no tracepoint sched_switch")
	}
	if _, err := os.Stat("/proc/self/schedstat"); err != nil {
		return nil, probe.Status{}, errors.New("the kernel does not add up waits for a CPU (CONFIG_SCHED_INFO)")
	}
	spec, err := loadBpf()
	if err != nil {
		return nil, probe.Status{}, err
	}
	o, err := kernel.Load(env, Name, spec, kernel.Options{Slow: slow})
	if err != nil {
		return nil, probe.Status{}, err
	}
	if err := o.Attach(); err != nil {
		return nil, probe.Status{}, errors.Join(err, o.Close())
	}
	return &Probe{o}, probe.Status{Probe: Name, State: probe.On, Source: "tracepoint sched_switch, the kernel's own count of waits"}, nil
}

// Read returns the waits of every owner that has had any.
func (p *Probe) Read() (probe.Reading, error) {
	var r probe.Reading
	for slot := uint32(1); slot < kernel.MaxSlots; slot++ {
		owner := p.Owner(slot)
		if owner == (probe.Owner{}) {
			continue
		}
		for i, kind := range kinds {
			h, err := p.Histogram("delays", slot*uint32(len(kinds))+uint32(i))
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
		errs = append(errs, p.ClearHistogram("delays", slot*uint32(len(kinds))+uint32(i)))
	}
	return errors.Join(errs...)
}

// Exemplars hands long waits to use until ctx is done.
func (p *Probe) Exemplars(ctx context.Context, use func(probe.Exemplar)) error {
	return p.Object.Exemplars(ctx, func(r kernel.Raw) (string, string) {
		return kinds[min(int(r.Detail), len(kinds)-1)], ""
	}, use)
}
