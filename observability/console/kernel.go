package console

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	latenciesShown = 100
	linesShown     = 20  // of each other list
	textShown      = 300 // bytes of a sentence that the probes wrote
	// oldAfter is twice the longest time between two readings of the probes.
	oldAfter = 2 * time.Minute
)

var errOldReading = errors.New("the last reading is more than two minutes old")

// KernelReport is what the kernel probes have read: the parts of package bpf's answer
// at /v1/probes that the panel shows, under the same names. Times are in seconds.
type KernelReport struct {
	At        time.Time       `json:"at"`
	Window    float64         `json:"window_seconds"` // what counts and quantiles cover
	Watched   int             `json:"watched"`        // processes
	Probes    []KernelProbe   `json:"probes"`
	Latencies []KernelLatency `json:"latencies"`
	Counters  []KernelCount   `json:"counters"`
	Queues    []KernelQueue   `json:"queues"`
	Alerts    []KernelAlert   `json:"alerts"`
	Causes    []KernelCause   `json:"causes"`
	Problems  []string        `json:"problems"` // what could not be read
}

// KernelProbe is how well a probe works, what it costs and what it has lost.
type KernelProbe struct {
	Probe     string            `json:"probe"`
	State     string            `json:"state"` // on, degraded, off
	Why       string            `json:"why,omitempty"`
	Share     float64           `json:"core_share"` // of one core
	Rate      float64           `json:"events_per_second"`
	EventCost float64           `json:"event_cost_seconds"`
	Estimated bool              `json:"cost_estimated,omitempty"`
	Sampling  int               `json:"sampling"` // it looks at one event in so many
	Lost      map[string]uint64 `json:"lost"`     // events, by reason
}

// KernelOwner is who something was measured of. The zero value: the machine.
type KernelOwner struct {
	Service string `json:"service,omitempty"`
	Pool    string `json:"pool,omitempty"`
	Name    string `json:"name,omitempty"` // of the process or pod
}

// KernelLatency is one series over the window.
type KernelLatency struct {
	Kind      string      `json:"kind"`
	Owner     KernelOwner `json:"owner"`
	Target    string      `json:"target,omitempty"`
	Count     uint64      `json:"count"`
	Threshold float64     `json:"threshold_seconds"` // 0: none
	P50       float64     `json:"p50_seconds"`
	P95       float64     `json:"p95_seconds"`
	P99       float64     `json:"p99_seconds"`
}

// KernelCount is one counter over the window.
type KernelCount struct {
	Kind   string      `json:"kind"`
	Owner  KernelOwner `json:"owner"`
	Target string      `json:"target,omitempty"`
	Reason string      `json:"reason,omitempty"`
	Count  uint64      `json:"count"`
}

// KernelQueue is a listener's accept queue.
type KernelQueue struct {
	Owner  KernelOwner `json:"owner"`
	Listen string      `json:"listen"`
	Length uint32      `json:"length"`
	Limit  uint32      `json:"limit"`
	Drops  uint32      `json:"drops"` // since the listener began
}

// KernelAlert is a series that is over its threshold.
type KernelAlert struct {
	Owner KernelOwner `json:"owner"`
	Since time.Time   `json:"since"`
	Text  string      `json:"text"`
}

// KernelCause is a sentence that may explain why a pool is slow or fails.
type KernelCause struct {
	Owner  KernelOwner `json:"owner"`
	Text   string      `json:"text"`
	Weight float64     `json:"weight"` // how many times over what is expected
}

// How the probes are, as a whole.
const (
	KernelRunning = "running"
	KernelOff     = "off"    // none of them is on, or nothing listens
	KernelSilent  = "silent" // no answer
)

// Kernel is the panel: the last reading, each list worst first and bounded. Unless
// State is running, Why says why not; Since is then when the answers ended, as far as
// was seen, and zero where the probes themselves say that they are off.
type Kernel struct {
	State     string               `json:"state"`
	Why       string               `json:"why,omitempty"`
	Since     time.Time            `json:"since,omitzero"`
	At        time.Time            `json:"at,omitzero"`
	Window    float64              `json:"window_seconds"`
	Watched   int                  `json:"watched"`
	Probes    Shown[KernelProbe]   `json:"probes"`
	Findings  Shown[KernelFinding] `json:"findings"`
	Latencies Shown[KernelLatency] `json:"latencies"`
	Counters  Shown[KernelCount]   `json:"counters"`
	Queues    Shown[KernelQueue]   `json:"queues"`
	Problems  Shown[string]        `json:"problems"`
}

// KernelFinding is a suggested cause. Since is set where it is an alert as well.
type KernelFinding struct {
	Owner KernelOwner `json:"owner"`
	Text  string      `json:"text"`
	Since time.Time   `json:"since,omitzero"`
}

// Shown is the beginning of a list, and how many more there were.
type Shown[T any] struct {
	Rows    []T `json:"rows"`
	LeftOut int `json:"left_out"`
}

func first[T any](rows []T, most int) Shown[T] {
	n := min(len(rows), most)
	return Shown[T]{Rows: append(make([]T, 0, n), rows[:n]...), LeftOut: len(rows) - n}
}

// NewKernel arranges a report, which it leaves as it is. Series and counters of which
// nothing happened in the window are left out and not counted as such.
func NewKernel(r KernelReport) Kernel {
	probes := slices.Clone(r.Probes)
	for i := range probes {
		probes[i].Why = clip(probes[i].Why)
	}
	problems := make([]string, 0, len(r.Problems))
	for _, p := range r.Problems {
		problems = append(problems, clip(p))
	}
	k := Kernel{
		State: KernelRunning, At: r.At, Window: r.Window, Watched: r.Watched,
		Probes: first(probes, linesShown), Findings: first(findings(r), linesShown),
		Latencies: first(slowest(r.Latencies), latenciesShown), Counters: first(most(r.Counters), linesShown),
		Queues: first(fullest(r.Queues), linesShown), Problems: first(problems, linesShown),
	}
	if why := allOff(probes); why != "" {
		k.State, k.Why = KernelOff, why
	}
	return k
}

// NoKernel is the panel while the probes do not answer: without figures, for old ones
// would look alive.
func NoKernel(err error, since time.Time) Kernel {
	k := NewKernel(KernelReport{})
	k.State, k.Why, k.Since = KernelSilent, clip(err.Error()), since
	if errors.Is(err, syscall.ECONNREFUSED) {
		k.State = KernelOff
	}
	return k
}

// allOff says why no probe is on, or nothing where one is.
func allOff(probes []KernelProbe) string {
	why := "no probe is loaded"
	for i, p := range probes {
		switch {
		case p.State != KernelOff:
			return ""
		case i == 0:
			why = cmp.Or(p.Why, "every probe is off")
		case p.Why != why:
			why = "every probe is off"
		}
	}
	return why
}

// findings are all causes, worst first, and alerts. Package bpf gives an alert and its
// cause the same text; they are shown as one.
func findings(r KernelReport) []KernelFinding {
	type key struct {
		owner KernelOwner
		text  string
	}
	since := make(map[key]time.Time, len(r.Alerts))
	for _, a := range r.Alerts {
		since[key{a.Owner, a.Text}] = a.Since
	}
	causes := slices.Clone(r.Causes)
	slices.SortStableFunc(causes, func(a, b KernelCause) int { return cmp.Compare(b.Weight, a.Weight) })
	explained := make([]KernelFinding, 0, len(causes))
	for _, c := range causes {
		k := key{c.Owner, c.Text}
		explained = append(explained, KernelFinding{Owner: c.Owner, Text: clip(c.Text), Since: since[k]})
		delete(since, k)
	}
	var out []KernelFinding
	for _, a := range r.Alerts {
		if _, left := since[key{a.Owner, a.Text}]; left {
			out = append(out, KernelFinding{Owner: a.Owner, Text: clip(a.Text), Since: a.Since})
		}
	}
	return append(out, explained...)
}

// slowest puts series first that are furthest over their threshold. That is compared
// by powers of two, so that rows keep their place while figures change.
func slowest(in []KernelLatency) []KernelLatency {
	out := slices.DeleteFunc(slices.Clone(in), func(l KernelLatency) bool { return l.Count == 0 })
	grade := func(l KernelLatency) float64 {
		switch {
		case l.Threshold <= 0 || l.P95 <= 0:
			return math.Inf(-1)
		case l.P95 <= l.Threshold: // so that none of them shares the grade of one that is over
			return math.Floor(math.Log2(l.P95/l.Threshold)) - 1
		}
		return math.Floor(math.Log2(l.P95 / l.Threshold))
	}
	slices.SortStableFunc(out, func(a, b KernelLatency) int {
		return cmp.Or(cmp.Compare(grade(b), grade(a)), cmp.Compare(a.Kind, b.Kind), compareOwners(a.Owner, b.Owner), cmp.Compare(a.Target, b.Target))
	})
	return out
}

func most(in []KernelCount) []KernelCount {
	out := slices.DeleteFunc(slices.Clone(in), func(c KernelCount) bool { return c.Count == 0 })
	slices.SortStableFunc(out, func(a, b KernelCount) int { return cmp.Compare(b.Count, a.Count) })
	return out
}

func fullest(in []KernelQueue) []KernelQueue {
	full := func(q KernelQueue) float64 { return float64(q.Length) / float64(max(q.Limit, 1)) }
	out := slices.Clone(in)
	slices.SortStableFunc(out, func(a, b KernelQueue) int {
		return cmp.Or(cmp.Compare(full(b), full(a)), cmp.Compare(b.Drops, a.Drops), compareOwners(a.Owner, b.Owner), cmp.Compare(a.Listen, b.Listen))
	})
	return out
}

func compareOwners(a, b KernelOwner) int {
	return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Name, b.Name))
}

func clip(text string) string {
	if len(text) <= textShown {
		return text
	}
	return strings.ToValidUTF8(text[:textShown], "") + "…"
}
