// Package probe is the vocabulary of the kernel probes: how well one works, what it
// has read, what an event cost. Values only, on every platform: packages that load
// programs produce them, package bpf judges and shows them.
package probe

import (
	"encoding/json"
	"time"

	"github.com/tracegate/tracegate/bpf/hist"
)

// State says how well a probe works.
type State string

// The states. Degraded means that it measures, but less than it could: Why says what
// is missing.
const (
	On       State = "on"
	Degraded State = "degraded"
	Off      State = "off"
)

// Status is the one line a probe has to say about itself.
type Status struct {
	Probe  string `json:"probe"`
	State  State  `json:"state"`
	Why    string `json:"why,omitempty"`
	Source string `json:"source"` // where its numbers come from
}

// Owner is who an event belongs to. The zero value: a process nobody has named.
type Owner struct {
	Service string `json:"service,omitempty"`
	Pool    string `json:"pool,omitempty"`
	Name    string `json:"name,omitempty"` // of the process or pod, e.g. core-canary
}

// Owners finds who a slot was given to.
type Owners interface {
	Owner(slot uint32) Owner
}

// Series is one histogram, cumulative since the probe began.
type Series struct {
	Probe  string
	Kind   string // what was timed, e.g. connect, wakeup
	Owner  Owner
	Cgroup uint64 // 0: not known
	Target string // the other end, e.g. 127.0.0.1:9092; empty if there is none
	Hist   hist.Histogram
}

// Count is one counter, cumulative since the probe began.
type Count struct {
	Probe  string
	Kind   string
	Owner  Owner
	Cgroup uint64
	Target string
	Reason string
	N      uint64
}

// Queue is a listener's accept queue at the time of reading.
type Queue struct {
	Owner  Owner  `json:"owner"`
	Listen string `json:"listen"`
	Length uint32 `json:"length"` // connections waiting to be accepted
	Limit  uint32 `json:"limit"`
	Drops  uint32 `json:"drops"` // connections refused for lack of room, since the listener began
}

// Reading is what a probe has counted so far.
type Reading struct {
	Series []Series
	Counts []Count
	Queues []Queue
	Lost   []Lost
}

// Reason says why something is missing from a reading. The list is closed.
type Reason string

// The reasons, in the order of the counters in headers/probe.h where they are
// counted there.
const (
	LostInflight  Reason = "inflight_full"  // too many events begun and not ended
	LostSeries    Reason = "series_full"    // too many destinations or owners
	LostRing      Reason = "exemplar_full"  // no room for a slow event; it is in the histogram
	LostLimited   Reason = "exemplar_limit" // too many slow events at once; they are in the histogram
	LostRecursion Reason = "recursion"      // the kernel did not run the program within itself
)

// Reasons lists all of them.
func Reasons() []Reason {
	return []Reason{LostInflight, LostSeries, LostRing, LostLimited, LostRecursion}
}

// Lost is the number of events that are missing for one reason.
type Lost struct {
	Reason Reason
	N      uint64
}

// Exemplar is one slow event.
type Exemplar struct {
	Probe   string        `json:"probe"`
	Kind    string        `json:"kind"`
	At      time.Time     `json:"at"`
	Latency time.Duration `json:"-"`
	Owner   Owner         `json:"owner"`
	PID     uint32        `json:"pid"`
	TID     uint32        `json:"tid"`
	Command string        `json:"command"`
	Target  string        `json:"target,omitempty"`
	Detail  string        `json:"detail,omitempty"`
}

type plainExemplar Exemplar

type wireExemplar struct {
	*plainExemplar
	Seconds float64 `json:"seconds"`
}

// MarshalJSON gives the latency in seconds, as metrics do.
func (e Exemplar) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireExemplar{(*plainExemplar)(&e), e.Latency.Seconds()})
}

// UnmarshalJSON reads what MarshalJSON has written.
func (e *Exemplar) UnmarshalJSON(b []byte) error {
	w := wireExemplar{plainExemplar: (*plainExemplar)(e)}
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	e.Latency = time.Duration(w.Seconds * float64(time.Second))
	return nil
}

// Cost is what a probe's programs have used since they were loaded.
type Cost struct {
	Events  uint64
	Runtime time.Duration
	// Estimated is true when the kernel does not measure run time for us: Runtime is
	// then Events times an assumed cost.
	Estimated bool
}
