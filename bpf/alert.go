package bpf

import (
	"time"

	"github.com/tracegate/tracegate/bpf/probe"
)

// Alert is a series that is over its threshold.
type Alert struct {
	Kind   string      `json:"kind"`
	Owner  probe.Owner `json:"owner"`
	Target string      `json:"target,omitempty"`
	Since  time.Time   `json:"since"`
	Text   string      `json:"text"`
}

// minEvents is how many events a window must have before its P95 means anything.
const minEvents = 3

type alertKey struct {
	kind   string
	owner  probe.Owner
	target string
}

// over says whether a series is too slow. A window without enough events says
// nothing: it neither fires nor keeps an alert.
func over(l Latency) bool {
	return l.Threshold > 0 && l.Count >= minEvents && l.P95 > l.Threshold
}

// alerts returns the series that are too slow, with the time since when; before are
// those of the last reading.
func alerts(before []Alert, latencies []Latency, names map[string]string, now time.Time) []Alert {
	since := make(map[alertKey]time.Time, len(before))
	for _, a := range before {
		since[alertKey{a.Kind, a.Owner, a.Target}] = a.Since
	}
	var out []Alert
	for _, l := range latencies {
		if !over(l) {
			continue
		}
		a := Alert{Kind: l.Kind, Owner: l.Owner, Target: l.Target, Since: now, Text: describe(l, names)}
		if t, ok := since[alertKey{a.Kind, a.Owner, a.Target}]; ok {
			a.Since = t
		}
		out = append(out, a)
	}
	return out
}

// changes returns the alerts that are new and those that are gone.
func changes(before, after []Alert) (fired, resolved []Alert) {
	missing := func(from, in []Alert) []Alert {
		have := make(map[alertKey]bool, len(in))
		for _, a := range in {
			have[alertKey{a.Kind, a.Owner, a.Target}] = true
		}
		var out []Alert
		for _, a := range from {
			if !have[alertKey{a.Kind, a.Owner, a.Target}] {
				out = append(out, a)
			}
		}
		return out
	}
	return missing(after, before), missing(before, after)
}
