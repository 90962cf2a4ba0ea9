//go:build linux && (amd64 || arm64)

package acceptqueue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/bpf/hist"
	"github.com/tracegate/tracegate/bpf/kernel"
	"github.com/tracegate/tracegate/bpf/probe"
)

// Probe is loaded and attached.
type Probe struct{ *kernel.Object }

// Open loads and attaches the probe; waits at least slow long become exemplars. The
// caller closes it.
func Open(env *kernel.Env, slow time.Duration) (*Probe, probe.Status, error) {
	status := probe.Status{Probe: Name, State: probe.On, Source: "inet_csk_accept, socket diagnostics"}
	if !env.Features.HasTracepoint("inet_sock_set_state", 3) || !env.Features.HasFunction("inet_csk_accept") {
		return nil, status, errors.New("the kernel has no tracepoint inet_sock_set_state or no function inet_csk_accept")
	}
	spec, err := loadBpf()
	if err != nil {
		return nil, status, err
	}
	o, err := kernel.Load(env, Name, spec, kernel.Options{Slow: slow})
	if err != nil {
		return nil, status, err
	}
	if err := o.Attach(); err != nil {
		return nil, status, errors.Join(err, o.Close())
	}
	return &Probe{o}, status, nil
}

// SetListeners says which local ports belong to which slot, beside what the probe
// learns from listen and accept.
func (p *Probe) SetListeners(ports map[uint16]uint32) error {
	for port, slot := range ports {
		if err := p.Map("ports").Put(port, slot); err != nil {
			return fmt.Errorf("set owner of port %d: %w", port, err)
		}
	}
	return nil
}

// Listeners returns the ports known so far and whose they are.
func (p *Probe) Listeners() (map[uint16]uint32, error) {
	ports := map[uint16]uint32{}
	var port uint16
	var slot uint32
	it := p.Map("ports").Iterate()
	for it.Next(&port, &slot) {
		ports[port] = slot
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read ports: %w", err)
	}
	return ports, nil
}

// Read returns the waits by listener, and the queues of known listeners.
func (p *Probe) Read() (probe.Reading, error) {
	var r probe.Reading
	err := kernel.Each(p.Object, "accepts", func(l bpfListener, cpus []hist.Histogram) {
		r.Series = append(r.Series, probe.Series{
			Probe: Name, Kind: "accept", Owner: p.Owner(l.Slot), Target: fmt.Sprintf("local port %d", l.Port), Hist: kernel.Sum(cpus),
		})
	})
	if err != nil {
		return r, err
	}
	ports, err := p.Listeners()
	if err != nil {
		return r, err
	}
	if r.Queues, err = Queues(func(port uint16) (probe.Owner, bool) {
		slot, ok := ports[port]
		return p.Owner(slot), ok
	}); err != nil {
		return r, err
	}
	r.Lost, err = p.Lost()
	return r, err
}

// Forget drops what was counted for a slot that will get a new owner.
func (p *Probe) Forget(slot uint32) error {
	ports, err := p.Listeners()
	if err != nil {
		return err
	}
	errs := []error{kernel.DeleteIf(p.Object, "accepts", func(l bpfListener) bool { return l.Slot == slot })}
	for port, s := range ports {
		if s == slot {
			errs = append(errs, p.Map("ports").Delete(port))
		}
	}
	return errors.Join(errs...)
}

// Exemplars hands long waits to use until ctx is done.
func (p *Probe) Exemplars(ctx context.Context, use func(probe.Exemplar)) error {
	return p.Object.Exemplars(ctx, func(kernel.Raw) (string, string) { return "accept", "" }, use)
}
