package console

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// Row is a group as the table shows it: what the control plane knows of it and what
// was measured. Either part may be missing; Measured and Known say which is there.
type Row struct {
	Group  group.ID `json:"group"`
	Color  string   `json:"color"`
	Env    string   `json:"env"`
	Tenant string   `json:"tenant"`

	Known  bool      `json:"known"` // by the control plane
	Cohort string    `json:"cohort"`
	Pool   string    `json:"pool"` // that should serve it
	Home   string    `json:"home"`
	State  string    `json:"state"`
	Since  time.Time `json:"since,omitzero"`
	Until  time.Time `json:"until,omitzero"`
	By     string    `json:"by,omitempty"`
	Held   string    `json:"held,omitempty"`
	Share  uint32    `json:"share,omitempty"` // percent of its users who are home again
	Limit  uint32    `json:"limit,omitempty"` // requests a second at each edge; 0: any

	Measured bool    `json:"measured"`
	QPS      float64 `json:"qps"`
	Requests uint64  `json:"requests"`
	Errors   uint64  `json:"errors"`
	// P50 to P99 are in milliseconds, of the worst pool: quantiles of several pools
	// cannot be merged, and the worst is what a user may get.
	P50   float64 `json:"p50"`
	P95   float64 `json:"p95"`
	P99   float64 `json:"p99"`
	Pools []Share `json:"pools"` // that did serve it, the largest first
}

// Share is a pool's part of a group's requests. Pool is empty where no upstream answered.
type Share struct {
	Pool     string `json:"pool"`
	Requests uint64 `json:"requests"`
	Errors   uint64 `json:"errors"`
}

// Rows joins both sources, sorted by tenant, env and color so that rows keep their
// place while figures change.
func Rows(groups []ctlapi.Group, stats []sli.Stats) []Row {
	rows := map[group.ID]*Row{}
	row := func(id group.ID, color group.Color, env, tenant string) *Row {
		if rows[id] == nil {
			rows[id] = &Row{Group: id, Color: color.String(), Env: env, Tenant: tenant, Pools: []Share{}}
		}
		return rows[id]
	}
	for _, g := range groups {
		r := row(g.Group, g.Color, g.Env, g.Tenant)
		r.Known, r.Cohort, r.Pool, r.Home, r.State = true, g.Cohort, g.Pool, g.Home, g.State
		r.Since, r.Until, r.By, r.Held = g.Since, g.Until, g.By, g.Held
		r.Share, r.Limit = g.Share, g.Limit
	}
	for _, s := range stats {
		row(s.Group, s.Color, s.Env, s.Tenant).measure(s)
	}
	out := make([]Row, 0, len(rows))
	for _, r := range rows {
		slices.SortFunc(r.Pools, func(a, b Share) int {
			return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Pool, b.Pool))
		})
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Env, b.Env), cmp.Compare(a.Color, b.Color), cmp.Compare(a.Group, b.Group))
	})
	return out
}

func (r *Row) measure(s sli.Stats) {
	r.Measured = true
	r.QPS += s.QPS()
	r.Requests += s.Requests
	r.Errors += s.Errors
	r.P50, r.P95, r.P99 = max(r.P50, ms(s.P50)), max(r.P95, ms(s.P95)), max(r.P99, ms(s.P99))
	i := slices.IndexFunc(r.Pools, func(p Share) bool { return p.Pool == s.Pool })
	if i < 0 {
		i = len(r.Pools)
		r.Pools = append(r.Pools, Share{Pool: s.Pool})
	}
	r.Pools[i].Requests += s.Requests
	r.Pools[i].Errors += s.Errors
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Chart is the recent past of all groups, in steps.
type Chart struct {
	From   time.Time           `json:"from"`
	Step   float64             `json:"step"` // seconds
	Points int                 `json:"points"`
	Groups map[group.ID]*Lines `json:"groups"`
}

// Lines are one group's. A step without requests has 0 requests, no errors and no P95
// (null): no data is not a good latency.
type Lines struct {
	QPS    []float64  `json:"qps"`
	Errors []float64  `json:"errors"` // errors per second
	P95    []*float64 `json:"p95"`    // milliseconds
}

// NewChart arranges stats of [from, from+points*step) into lines; what lies outside is
// left out.
func NewChart(stats []sli.Stats, from time.Time, step time.Duration, points int) Chart {
	c := Chart{From: from, Step: step.Seconds(), Points: points, Groups: map[group.ID]*Lines{}}
	for _, s := range stats {
		i := int(s.Window.From.Sub(from) / step)
		if s.Window.From.Before(from) || i >= points {
			continue
		}
		l := c.Groups[s.Group]
		if l == nil {
			l = &Lines{QPS: make([]float64, points), Errors: make([]float64, points), P95: make([]*float64, points)}
			c.Groups[s.Group] = l
		}
		l.QPS[i] += float64(s.Requests) / step.Seconds()
		l.Errors[i] += float64(s.Errors) / step.Seconds()
		if p := ms(s.P95); l.P95[i] == nil || *l.P95[i] < p {
			l.P95[i] = &p
		}
	}
	return c
}

// Entry is a decision as the timeline shows it.
type Entry struct {
	ID         string    `json:"id"`
	Time       time.Time `json:"time"`
	Action     string    `json:"action"`
	Group      group.ID  `json:"group"`
	Color      string    `json:"color"`
	Env        string    `json:"env"`
	Tenant     string    `json:"tenant"`
	From       string    `json:"from"`
	To         string    `json:"to"`
	Reason     string    `json:"reason"`
	Causes     []string  `json:"causes,omitempty"`          // worst first
	MoreCauses int       `json:"causes_left_out,omitempty"` // how many are not among Causes
	By         string    `json:"by"`
	Stats      *Figures  `json:"stats"`
	Baseline   *Figures  `json:"baseline"`
	FirstBad   time.Time `json:"first_bad,omitzero"`
	Programmed time.Time `json:"programmed,omitzero"`
	Version    string    `json:"version,omitempty"`

	Before   string  `json:"version_before,omitempty"`
	Advice   string  `json:"advice,omitempty"` // what a person may confirm
	Share    uint32  `json:"share,omitempty"`
	Requests uint32  `json:"requests,omitempty"`
	Test     string  `json:"test,omitempty"` // what was counted, and the chance of it
	Chance   float64 `json:"chance,omitempty"`
	Limits   string  `json:"limits,omitempty"` // thresholds in words
	Full     string  `json:"full,omitempty"`   // how full the pools were, in words
	Outcome  string  `json:"outcome,omitempty"`
	Better   bool    `json:"better,omitempty"`
	Undo     string  `json:"undo,omitempty"`
	Mode     string  `json:"mode,omitempty"` // of the policy then
	For      float64 `json:"for,omitempty"`  // milliseconds it is meant to last
	Confirms string  `json:"confirms,omitempty"`
	Room     string  `json:"room,omitempty"`     // what pools will get, in words
	Revision string  `json:"revision,omitempty"` // what was rolled back, in words
}

// Figures are what a decision looked at.
type Figures struct {
	Pool     string    `json:"pool"`
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Seconds  float64   `json:"seconds"`
	Requests uint64    `json:"requests"`
	Errors   uint64    `json:"errors"`
	QPS      float64   `json:"qps"`
	P50      float64   `json:"p50"`
	P95      float64   `json:"p95"`
	P99      float64   `json:"p99"`
}

const causesShown = 5

// Entries gives decisions newest first.
func Entries(decisions []decide.Decision) []Entry {
	out := make([]Entry, 0, len(decisions))
	for _, d := range decisions {
		e := Entry{
			ID: d.ID, Time: d.Time, Action: string(d.Action), Group: d.Group, Color: d.Color.String(), Env: d.Env, Tenant: d.Tenant,
			From: d.FromPool, To: d.ToPool, Reason: d.Reason, By: d.By, FirstBad: d.FirstBad, Programmed: d.Programmed, Version: d.Version,
		}
		e.record(d)
		causes := first(d.Causes, causesShown)
		e.Causes, e.MoreCauses = causes.Rows, causes.LeftOut
		if d.Stats.Requests > 0 {
			e.Stats = figures(d.Stats)
		}
		if d.Baseline != nil {
			e.Baseline = figures(*d.Baseline)
		}
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(a, b Entry) int { return b.Time.Compare(a.Time) })
	return out
}

// record is what only the details show.
func (e *Entry) record(d decide.Decision) {
	e.Before, e.Advice, e.Share, e.Requests, e.Undo = d.VersionBefore, string(d.Advice), d.Share, d.Requests, d.Undo
	e.For, e.Confirms = ms(d.For), d.Confirms
	for i, l := range d.Room {
		if i > 0 {
			e.Room += ", "
		}
		e.Room += fmt.Sprintf("%s/%s %.3g a second", l.Service, l.Pool, l.Requests)
	}
	if r := d.Revision; r != nil {
		e.Revision = fmt.Sprintf("%s, revision %d to %d", r.What(), r.From, r.To)
	}
	if d.Evidence != nil {
		e.Test, e.Chance = d.Evidence.Test, d.Evidence.Chance
	}
	if t := d.Thresholds; t != nil {
		windows := fmt.Sprintf("%s and %s", t.ShortWindow, t.LongWindow)
		if t.QuickWindow > 0 {
			windows = fmt.Sprintf("%s, %s", t.QuickWindow, windows)
		}
		latency := fmt.Sprintf("P95 %s, %.3g times its baseline", t.MaxP95, t.P95Factor)
		if t.MaxP99 > 0 {
			latency = fmt.Sprintf("P99 %s, %s", t.MaxP99, latency)
		}
		e.Mode = string(t.Mode)
		e.Limits = fmt.Sprintf("errors %.3g%%, %s or %.3g%% more errors, chance %.1g, windows %s, %d requests",
			100*t.MaxErrorRatio, latency, 100*t.ErrorRatioDifference, t.Significance, windows, t.MinRequests)
		if t.PrewarmSaturation > 0 {
			e.Limits += fmt.Sprintf(", pools %.3g%% full", 100*t.PrewarmSaturation)
		}
	}
	var full []string
	for _, s := range d.Saturation {
		full = append(full, fmt.Sprintf("%s/%s: %.0f%% of %s, its fullest instance %.0f%%", s.Service, s.Pool, 100*s.Mean, s.Resource, 100*s.Highest))
	}
	e.Full = strings.Join(full, "; ")
	if d.Outcome != nil {
		e.Outcome, e.Better = d.Outcome.Words, d.Outcome.Better
	}
}

func figures(s sli.Stats) *Figures {
	return &Figures{
		Pool: s.Pool, From: s.Window.From, To: s.Window.To, Seconds: s.Window.To.Sub(s.Window.From).Seconds(), Requests: s.Requests, Errors: s.Errors, QPS: s.QPS(),
		P50: ms(s.P50), P95: ms(s.P95), P99: ms(s.P99),
	}
}
