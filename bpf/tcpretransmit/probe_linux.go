//go:build linux && (amd64 || arm64)

package tcpretransmit

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tracegate/tracegate/bpf/kernel"
	"github.com/tracegate/tracegate/bpf/probe"
)

// kinds are enum kind of the program.
var kinds = [...]string{"data", "syn", "synack"}

// Probe is loaded and attached.
type Probe struct {
	*kernel.Object
	reasons map[uint64]string // enum skb_drop_reason of this kernel; nil: drops are off
}

// Open loads and attaches the probe. The caller closes it.
func Open(env *kernel.Env) (*Probe, probe.Status, error) {
	status := probe.Status{Probe: Name, State: probe.On, Source: "tracepoints tcp_retransmit_skb, tcp_retransmit_synack, kfree_skb"}
	if !env.Features.HasTracepoint("tcp_retransmit_skb", 2) || !env.Features.HasTracepoint("inet_sock_set_state", 3) {
		return nil, status, errors.New("the kernel has no tracepoint tcp_retransmit_skb (Linux 4.16)")
	}
	p := &Probe{reasons: env.Features.EnumNames("skb_drop_reason")}
	var without, missing []string
	if !env.Features.HasTracepoint("tcp_retransmit_synack", 2) {
		without = append(without, "retransmit_synack")
		missing = append(missing, "no SYN-ACK retransmissions (tracepoint tcp_retransmit_synack)")
	}
	if p.reasons == nil || !env.Features.HasTracepoint("kfree_skb", 3) {
		p.reasons = nil
		without = append(without, "drop")
		missing = append(missing, "no drops (the kernel gives no reasons before Linux 5.17)")
	}
	spec, err := loadBpf()
	if err != nil {
		return nil, status, err
	}
	if p.Object, err = kernel.Load(env, Name, spec, kernel.Options{Without: without}); err != nil {
		return nil, status, err
	}
	if err := p.Attach(); err != nil {
		return nil, status, errors.Join(err, p.Close())
	}
	if len(missing) > 0 {
		status.State, status.Why = probe.Degraded, strings.Join(missing, "; ")
	}
	return p, status, nil
}

// SetListeners says which local ports belong to which slot, beside what the probe
// learns from connects.
func (p *Probe) SetListeners(ports map[uint16]uint32) error {
	for port, slot := range ports {
		if err := p.Map("ports").Put(port, slot); err != nil {
			return fmt.Errorf("set owner of port %d: %w", port, err)
		}
	}
	return nil
}

// Read returns retransmissions by owner and remote end, and drops by reason.
func (p *Probe) Read() (probe.Reading, error) {
	var r probe.Reading
	err := kernel.Each(p.Object, "retransmits", func(k bpfRetransmit, cpus []uint64) {
		r.Counts = append(r.Counts, probe.Count{
			Probe: Name, Kind: "retransmit", Owner: p.Owner(k.To.Slot), Cgroup: k.To.Cgroup,
			Target: kernel.Endpoint(k.To.Family, k.To.Addr, kernel.Port(k.To.Port)),
			Reason: kinds[min(int(k.Kind), len(kinds)-1)], N: kernel.Total(cpus),
		})
	})
	if err != nil {
		return r, err
	}
	if err := p.readDrops(&r); err != nil {
		return r, err
	}
	r.Lost, err = p.Lost()
	return r, err
}

func (p *Probe) readDrops(r *probe.Reading) error {
	if p.reasons == nil {
		return nil
	}
	m := p.Map("drops")
	for i := range m.MaxEntries() {
		var cpus []uint64
		if err := m.Lookup(i, &cpus); err != nil {
			return fmt.Errorf("read drops: %w", err)
		}
		if n := kernel.Total(cpus); n > 0 {
			r.Counts = append(r.Counts, probe.Count{Probe: Name, Kind: "drop", Reason: p.reason(i), N: n})
		}
	}
	return nil
}

// reason names a drop as the kernel does, without its prefix.
func (p *Probe) reason(i uint32) string {
	name, ok := p.reasons[uint64(i)]
	if !ok {
		return "other"
	}
	return strings.ToLower(strings.TrimPrefix(strings.TrimPrefix(name, "SKB_DROP_REASON_"), "SKB_"))
}

// Forget drops what was counted for a slot that will get a new owner.
func (p *Probe) Forget(slot uint32) error {
	return kernel.DeleteIf(p.Object, "retransmits", func(k bpfRetransmit) bool { return k.To.Slot == slot })
}

// Exemplars waits until ctx is done: a retransmission has no duration of its own.
func (p *Probe) Exemplars(ctx context.Context, use func(probe.Exemplar)) error {
	return p.Object.Exemplars(ctx, nil, use)
}
