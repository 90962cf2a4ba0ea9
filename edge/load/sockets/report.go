package sockets

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/tracegate/tracegate/edge/load"
)

// Schema names the form of [Report] in JSON.
const Schema = "tracegate.load.sockets/1"

// Report is the outcome of [Run].
type Report struct {
	Schema   string         `json:"schema"`
	OK       bool           `json:"ok"`
	Started  time.Time      `json:"started"`
	Ended    time.Time      `json:"ended"`
	Settings Settings       `json:"settings"`
	Opened   Opened         `json:"opened"`
	Memory   Memory         `json:"memory"`
	Pings    Pings          `json:"pings"`
	Lost     int            `json:"lost"` // connections that ended and should not have
	Example  string         `json:"example,omitempty"`
	Promises []load.Promise `json:"promises"`
}

// Settings is what was asked for.
type Settings struct {
	Door        string  `json:"door"`
	Connections int     `json:"connections"`
	PerUser     int     `json:"per_user"`
	Sources     int     `json:"sources"`
	Pings       float64 `json:"pings_per_second"`
	DurationMS  float64 `json:"duration_ms"`
}

func settings(c Config) Settings {
	return Settings{c.Door, c.Connections, c.PerUser, c.Sources, c.Pings, ms(c.Duration)}
}

// Opened is how connections came.
type Opened struct {
	Connections int     `json:"connections"`
	Refused     int64   `json:"refused"` // attempts that were told to come back, and did
	TookMS      float64 `json:"took_ms"`
}

// Memory is what a connection adds to core's processes after a collection, in KB.
type Memory struct {
	RSS        float64 `json:"kb_per_connection"`
	Heap       float64 `json:"heap_kb"`
	Stacks     float64 `json:"stacks_kb"`
	AfterPings float64 `json:"after_pings_kb"`
	// Kernel is of the whole machine and both ends; nil where it does not say.
	Kernel *float64 `json:"kernel_kb,omitempty"`
}

// Pings is what came of them. Times are from when a ping was due.
type Pings struct {
	Due         int     `json:"due"`
	Sent        int     `json:"sent"`
	Answered    int     `json:"answered"`
	PerSecond   float64 `json:"per_second"`
	P50         float64 `json:"p50_ms"`
	P99         float64 `json:"p99_ms"`
	Max         float64 `json:"max_ms"`
	Collections float64 `json:"collections_per_10s"`
	CPU         float64 `json:"cpu_us"` // of core, for a ping and its pong
}

func (p *Pings) answered(late []time.Duration, took time.Duration) {
	if p.Answered = len(late); p.Answered == 0 {
		return
	}
	late = slices.Sorted(slices.Values(late))
	at := func(q float64) float64 { return ms(late[min(int(q*float64(len(late))), len(late)-1)]) }
	p.P50, p.P99, p.Max = at(0.5), at(0.99), at(1)
	p.PerSecond = float64(p.Sent) / took.Seconds()
}

// cost puts what processes used into what a connection and a ping do. Only processes that
// have got connections count: the others' memory moves too.
func cost(base, idle, after snapshot, busy map[string]usage, connections int, p Pings) (m Memory, collections, cpu float64) {
	var first, open, pinged, work usage
	for pool, u := range idle.cores {
		if u.sockets > base.cores[pool].sockets {
			first, open, pinged = first.add(base.cores[pool]), open.add(u), pinged.add(after.cores[pool])
			work = work.add(busy[pool].sub(u))
		}
	}
	kb := float64(connections) * 1024
	idleCost := open.sub(first)
	m = Memory{RSS: idleCost.rss / kb, Heap: idleCost.heap / kb, Stacks: idleCost.stacks / kb, AfterPings: pinged.sub(first).rss / kb}
	if base.known && idle.known {
		kernel := (idle.kernel - base.kernel) / kb
		m.Kernel = &kernel
	}
	if p.PerSecond > 0 && p.Answered > 0 {
		collections = work.collections * 10 / (float64(p.Sent) / p.PerSecond)
		cpu = work.cpu * 1e6 / float64(p.Answered)
	}
	return m, collections, cpu
}

// judge holds what was measured against what is claimed.
func (r *Report) judge(c Config) {
	r.Promises = []load.Promise{
		{
			Key: "opened", Claim: "every connection opens, with its session",
			Measured: fmt.Sprintf("%d of %d in %.1f s, %d told to come back first", r.Opened.Connections, c.Connections, r.Opened.TookMS/1000, r.Opened.Refused),
			Held:     r.Opened.Connections == c.Connections,
		},
		{Key: "kept", Claim: "none is lost, idle or under pings", Measured: fmt.Sprintf("%d lost", r.Lost), Held: r.Lost == 0},
		{
			Key: "answered", Claim: "every ping is answered", Measured: fmt.Sprintf("%d of %d, P99 %.1f ms", r.Pings.Answered, r.Pings.Due, r.Pings.P99),
			Held: r.Pings.Answered == r.Pings.Due && r.Pings.Due > 0,
		},
	}
	if c.MaxKB > 0 && c.Connections >= few {
		r.Promises = append(r.Promises, load.Promise{
			Key: "memory", Claim: fmt.Sprintf("a connection costs core at most %.1f KB, after a collection", c.MaxKB),
			Measured: fmt.Sprintf("%.2f KB", r.Memory.RSS), Held: r.Memory.RSS <= c.MaxKB,
		})
	}
	r.OK = !slices.ContainsFunc(r.Promises, func(p load.Promise) bool { return !p.Held })
}

// Write prints the report as JSON or for people.
func (r Report) Write(out io.Writer, format string) error {
	if format == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	m, p := r.Memory, r.Pings
	kernel := "-"
	if m.Kernel != nil {
		kernel = fmt.Sprintf("%.1f KB", *m.Kernel)
	}
	fmt.Fprintf(w, "CONNECTIONS\tto\tusers\taddresses\topened in\t\n%d\t%s\t%d each\t%d\t%.1f s\t\n\n", r.Opened.Connections, r.Settings.Door, r.Settings.PerUser, r.Settings.Sources, r.Opened.TookMS/1000)
	fmt.Fprintf(w, "MEMORY a connection\tof which heap\tstacks\tafter pings\tkernel, both ends\t\n%.2f KB\t%.2f KB\t%.2f KB\t%.2f KB\t%s\t\n\n", m.RSS, m.Heap, m.Stacks, m.AfterPings, kernel)
	fmt.Fprintf(w, "PINGS\tanswered\ta second\tP50 ms\tP99 ms\tmax ms\tcollections in 10 s\tCPU a ping\t\n%d\t%d\t%.0f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f us\t\n\n", p.Sent, p.Answered, p.PerSecond, p.P50, p.P99, p.Max, p.Collections, p.CPU)
	if r.Example != "" {
		fmt.Fprintf(w, "lost: %s\n\n", r.Example)
	}
	load.PromiseTable(w, r.Promises)
	return w.Flush()
}
