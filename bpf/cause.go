package bpf

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/tracegate/tracegate/bpf/probe"
)

// Cause is a sentence that may explain why a pool is slow or fails, for the "why" of a
// decision.
type Cause struct {
	Owner probe.Owner `json:"owner"`
	Text  string      `json:"text"`
	// Weight orders causes: how many times over what is expected.
	Weight float64 `json:"weight"`
}

// causes returns what is out of the ordinary in a window, worst first.
func causes(latencies []Latency, counters []Counter, queues []probe.Queue, names map[string]string, window time.Duration) []Cause {
	var out []Cause
	connects := map[alertKey]uint64{}
	for _, l := range latencies {
		if l.Kind == "connect" {
			connects[alertKey{"connect", l.Owner, l.Target}] += l.Count
		}
		if over(l) {
			out = append(out, Cause{Owner: l.Owner, Text: describe(l, names), Weight: float64(l.P95) / float64(l.Threshold)})
		}
	}
	failed := map[alertKey]uint64{}
	for _, c := range counters {
		if c.Kind == "connect_failed" {
			failed[alertKey{"connect", c.Owner, c.Target}] += c.Count
		}
	}
	for _, c := range counters {
		if c.Kind != "connect_failed" || c.Count < minEvents {
			continue
		}
		k := alertKey{"connect", c.Owner, c.Target}
		if all := connects[k] + failed[k]; c.Count*10 >= all { // a tenth of all
			out = append(out, Cause{
				Owner: c.Owner, Weight: 10 * float64(c.Count) / float64(all),
				Text: fmt.Sprintf("%d of %d connects to %s failed in %v: %s", c.Count, all, name(c.Target, names), window, c.Reason),
			})
		}
	}
	for _, q := range queues {
		if q.Limit > 0 && q.Length > q.Limit {
			out = append(out, Cause{
				Owner: q.Owner, Weight: 5,
				Text: fmt.Sprintf("the accept queue of %s is full (%d of %d, %d dropped so far)", q.Listen, q.Length, q.Limit, q.Drops),
			})
		}
	}
	slices.SortStableFunc(out, func(a, b Cause) int { return cmp.Compare(b.Weight, a.Weight) })
	return out
}

// CausesOf returns the causes that concern a service's pool, worst first.
func (s Snapshot) CausesOf(service, pool string) []Cause {
	var out []Cause
	for _, c := range s.Causes {
		if c.Owner.Service == service && c.Owner.Pool == pool {
			out = append(out, c)
		}
	}
	return out
}

// describe says in one sentence how slow a series is.
func describe(l Latency, names map[string]string) string {
	what := map[string]string{
		"connect":        "connects to " + name(l.Target, names) + " take",
		"wakeup":         "threads wait for a CPU after waking for",
		"preempted":      "preempted threads wait for a CPU for",
		"goroutine_wait": "goroutines wait for a thread for",
		"accept":         "connections to " + name(l.Target, names) + " wait to be accepted for",
		"stopped":        "the Go runtime stops the world for",
		"gc_pause":       "the garbage collector stops the world for",
	}[l.Kind]
	if what == "" {
		what = l.Kind + " takes"
	}
	return fmt.Sprintf("%s %v (P95 of %d, threshold %v)", what, round(l.P95), l.Count, l.Threshold)
}

func name(target string, names map[string]string) string {
	if n := names[target]; n != "" {
		return n + " (" + target + ")"
	}
	return target
}

// round keeps two digits.
func round(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 100 {
		unit *= 10
	}
	return d.Round(unit)
}
