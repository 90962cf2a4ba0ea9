package bpf

import (
	"encoding/json"
	"time"

	"github.com/tracegate/tracegate/bpf/probe"
)

// Snapshot is what all probes said at one time. It is never changed once published.
type Snapshot struct {
	At        time.Time        `json:"at"`
	Window    time.Duration    `json:"-"` // what Count and quantiles cover
	Probes    []ProbeState     `json:"probes"`
	Latencies []Latency        `json:"latencies"`
	Counters  []Counter        `json:"counters"`
	Queues    []probe.Queue    `json:"queues"`
	Slow      []probe.Exemplar `json:"slow"` // newest first
	Alerts    []Alert          `json:"alerts"`
	Causes    []Cause          `json:"causes"` // worst first
	Watched   int              `json:"watched"`
	Problems  []string         `json:"problems,omitempty"` // what could not be read this time
}

// ProbeState is a probe's line, its own cost and its losses.
type ProbeState struct {
	probe.Status
	Share     float64                 `json:"core_share"` // of one core, since the last reading
	Rate      float64                 `json:"events_per_second"`
	EventCost time.Duration           `json:"-"`
	Estimated bool                    `json:"cost_estimated,omitempty"`
	Sampling  int                     `json:"sampling"` // it looks at one event in so many
	Lost      map[probe.Reason]uint64 `json:"lost"`
}

// Latency is one series over the window.
type Latency struct {
	Probe     string        `json:"probe"`
	Kind      string        `json:"kind"`
	Owner     probe.Owner   `json:"owner"`
	Target    string        `json:"target,omitempty"`
	Count     uint64        `json:"count"`
	Total     uint64        `json:"total"`
	Threshold time.Duration `json:"-"`
	Mean      time.Duration `json:"-"`
	P50       time.Duration `json:"-"`
	P95       time.Duration `json:"-"`
	P99       time.Duration `json:"-"`
}

// Counter is one counter over the window.
type Counter struct {
	Probe  string      `json:"probe"`
	Kind   string      `json:"kind"`
	Owner  probe.Owner `json:"owner"`
	Target string      `json:"target,omitempty"`
	Reason string      `json:"reason,omitempty"`
	Count  uint64      `json:"count"`
	Total  uint64      `json:"total"`
}

// The wire form gives durations in seconds, under names that say so.

type plainSnapshot Snapshot

type wireSnapshot struct {
	*plainSnapshot
	Seconds float64 `json:"window_seconds"`
}

// MarshalJSON implements json.Marshaler.
func (s Snapshot) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireSnapshot{(*plainSnapshot)(&s), s.Window.Seconds()})
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Snapshot) UnmarshalJSON(b []byte) error {
	w := wireSnapshot{plainSnapshot: (*plainSnapshot)(s)}
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	s.Window = seconds(w.Seconds)
	return nil
}

type plainLatency Latency

type wireLatency struct {
	*plainLatency
	Threshold float64 `json:"threshold_seconds"`
	Mean      float64 `json:"mean_seconds"`
	P50       float64 `json:"p50_seconds"`
	P95       float64 `json:"p95_seconds"`
	P99       float64 `json:"p99_seconds"`
}

// MarshalJSON implements json.Marshaler.
func (l Latency) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireLatency{(*plainLatency)(&l), l.Threshold.Seconds(), l.Mean.Seconds(), l.P50.Seconds(), l.P95.Seconds(), l.P99.Seconds()})
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *Latency) UnmarshalJSON(b []byte) error {
	w := wireLatency{plainLatency: (*plainLatency)(l)}
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	l.Threshold, l.Mean, l.P50, l.P95, l.P99 = seconds(w.Threshold), seconds(w.Mean), seconds(w.P50), seconds(w.P95), seconds(w.P99)
	return nil
}

type plainState ProbeState

type wireState struct {
	*plainState
	EventCost float64 `json:"event_cost_seconds"`
}

// MarshalJSON implements json.Marshaler.
func (p ProbeState) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireState{(*plainState)(&p), p.EventCost.Seconds()})
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *ProbeState) UnmarshalJSON(b []byte) error {
	w := wireState{plainState: (*plainState)(p)}
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	p.EventCost = seconds(w.EventCost)
	return nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
