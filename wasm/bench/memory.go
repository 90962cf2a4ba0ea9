package main

import (
	"context"
	"fmt"

	"github.com/tracegate/tracegate/mesh/procfs"
)

// memory is what Envoy holds, all of its listeners together, in MiB.
type memory struct {
	requests     int64 // that the filter has had by the last reading, since the first
	first, after float64
}

// grow sends requests through the filter, a tenth of them before the first reading.
func grow(ctx context.Context, c config, e *edge, at int) (m memory, err error) {
	p, err := dial(e.addr(at), c.connections)
	if err != nil {
		return m, err
	}
	defer p.close()
	send := func(n int64) (sent int64, err error) {
		for sent < n && err == nil {
			var answered int64
			answered, _, err = p.run(ctx, c.slice)
			sent += answered
		}
		return sent, err
	}
	if _, err := send(c.memory / 10); err != nil {
		return m, err
	}
	if m.first, err = e.resident(); err != nil {
		return m, err
	}
	if m.requests, err = send(c.memory); err != nil {
		return m, err
	}
	m.after, err = e.resident()
	return m, err
}

// resident is the memory that Envoy's process holds, in MiB.
func (e *edge) resident() (float64, error) {
	kb, err := procfs.Value(fmt.Sprintf("/proc/%d/status", e.process.PID()), "VmRSS:")
	if err != nil {
		return 0, fmt.Errorf("read Envoy's memory: %w", err)
	}
	return float64(kb) / 1024, nil
}

func (m memory) String() string {
	return fmt.Sprintf("Envoy holds %.1f MiB before, and %.1f MiB after %d requests through our filter.", m.first, m.after, m.requests)
}

func (m memory) figure() string {
	return fmt.Sprintf("figure memory_after_requests %.1f MiB vs before %.1f ratio %.3f\n", m.after, m.first, m.after/m.first)
}
