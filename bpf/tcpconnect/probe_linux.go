//go:build linux && (amd64 || arm64)

package tcpconnect

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/tracegate/tracegate/bpf/hist"
	"github.com/tracegate/tracegate/bpf/kernel"
	"github.com/tracegate/tracegate/bpf/probe"
)

// Probe is loaded and attached.
type Probe struct{ *kernel.Object }

// Open loads and attaches the probe; connects at least slow long become exemplars.
// The caller closes it.
func Open(env *kernel.Env, slow time.Duration) (*Probe, probe.Status, error) {
	if !env.Features.HasTracepoint("inet_sock_set_state", 3) {
		return nil, probe.Status{}, errors.New("the kernel has no tracepoint inet_sock_set_state (Linux 4.16)")
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
	return &Probe{o}, probe.Status{Probe: Name, State: probe.On, Source: "tracepoint inet_sock_set_state"}, nil
}

// Read returns connect times and failures by destination.
func (p *Probe) Read() (probe.Reading, error) {
	var r probe.Reading
	err := kernel.Each(p.Object, "connects", func(d bpfDestination, cpus []hist.Histogram) {
		r.Series = append(r.Series, probe.Series{
			Probe: Name, Kind: "connect", Owner: p.Owner(d.Slot), Cgroup: d.Cgroup, Target: target(d), Hist: kernel.Sum(cpus),
		})
	})
	if err != nil {
		return r, err
	}
	err = kernel.Each(p.Object, "failures", func(f bpfFailure, cpus []uint64) {
		r.Counts = append(r.Counts, probe.Count{
			Probe: Name, Kind: "connect_failed", Owner: p.Owner(f.To.Slot), Cgroup: f.To.Cgroup, Target: target(f.To),
			Reason: reason(f.Err), N: kernel.Total(cpus),
		})
	})
	if err != nil {
		return r, err
	}
	r.Lost, err = p.Lost()
	return r, err
}

// Forget drops what was counted for a slot that will get a new owner.
func (p *Probe) Forget(slot uint32) error {
	return errors.Join(
		kernel.DeleteIf(p.Object, "connects", func(d bpfDestination) bool { return d.Slot == slot }),
		kernel.DeleteIf(p.Object, "failures", func(f bpfFailure) bool { return f.To.Slot == slot }),
	)
}

// Exemplars hands slow connects to use until ctx is done.
func (p *Probe) Exemplars(ctx context.Context, use func(probe.Exemplar)) error {
	return p.Object.Exemplars(ctx, func(r kernel.Raw) (string, string) {
		if r.Detail != 0 {
			return "connect", reason(r.Detail)
		}
		return "connect", ""
	}, use)
}

func target(d bpfDestination) string { return kernel.Endpoint(d.Family, d.Addr, kernel.Port(d.Port)) }

// reason names an errno as a label value. 0 is an application that stopped waiting.
func reason(err uint32) string {
	switch syscall.Errno(err) {
	case 0:
		return "given_up"
	case syscall.ECONNREFUSED:
		return "refused"
	case syscall.ETIMEDOUT:
		return "timeout"
	case syscall.EHOSTUNREACH:
		return "host_unreachable"
	case syscall.ENETUNREACH:
		return "network_unreachable"
	case syscall.ECONNRESET:
		return "reset"
	case syscall.ECONNABORTED:
		return "aborted"
	default:
		return "other"
	}
}
