package console

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/anomaly"
	"github.com/tracegate/tracegate/observability/sli"
)

// What is out of the ordinary is found in days of minutes, which nobody should read anew
// each second. So the past is read once, a piece at each poll, kept for as many groups as
// the memory is bounded by, and then a minute a minute is added. To ask for all of it every
// few minutes lost: it is as much work, and what is found comes later. The whole is read
// again each hour, since other groups may be the busiest then.
const (
	watchedGroups = 20               // the busiest; 1.2 MB each
	pastDays      = 7                // as `tracegate ctl anomalies` takes
	pastPiece     = 6 * time.Hour    // of one question
	pastKept      = time.Hour        // until it is read anew
	lookedAt      = time.Hour        // what is found is that old at most
	busyWindow    = 10 * time.Minute // in which groups are compared
	minuteSettle  = 5 * time.Second  // until a minute is complete in the store
)

// How far the anomalies are.
const (
	AnomaliesReading = "reading" // the past, for the first time
	AnomaliesReady   = "ready"
	AnomaliesAway    = "away" // the store does not answer
)

// Anomalies is the panel: what was out of the ordinary in the last hour for the busiest
// groups. Known is for how many of them there is a past to compare with.
type Anomalies struct {
	State  string         `json:"state"`
	At     time.Time      `json:"at,omitzero"` // end of the last minute that was looked at
	Groups int            `json:"groups"`
	Active int            `json:"active"` // groups there are
	Known  int            `json:"known"`
	Found  Shown[Anomaly] `json:"found"`
}

// Anomaly is what was found in windows one after the other: as a whole what it was in the
// one that is furthest from the usual.
type Anomaly struct {
	Group   group.ID  `json:"group"`
	Env     string    `json:"env"`
	Tenant  string    `json:"tenant"`
	Measure string    `json:"measure"`
	Kind    string    `json:"kind"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"`
	Lasts   bool      `json:"lasts"` // in the last minute too
	Seen    float64   `json:"seen"`
	Usual   float64   `json:"usual"`
	Words   string    `json:"words"`
}

// NewAnomalies joins findings, oldest first, of series that end at a time: what lasts comes
// first, then the newest.
func NewAnomalies(found []anomaly.Unusual, at time.Time) []Anomaly {
	type key struct {
		group         group.ID
		measure, kind string
	}
	type run struct {
		Anomaly
		score float64
	}
	var runs []*run
	last := map[key]*run{}
	for _, f := range found {
		k := key{f.Group, string(f.Measure), f.Kind}
		end := f.Time.Add(f.Length)
		r := last[k]
		if r == nil || f.Time.After(r.Until.Add(f.Length)) { // one window between them is not an end
			r = &run{Anomaly: Anomaly{Group: f.Group, Env: f.Env, Tenant: f.Tenant, Measure: k.measure, Kind: f.Kind, Since: f.Time}}
			runs, last[k] = append(runs, r), r
		}
		r.Until = end
		if r.Words == "" || math.Abs(f.Score) > math.Abs(r.score) {
			r.Seen, r.Usual, r.Words, r.score = f.Value, f.Usual, f.Words, f.Score
		}
	}
	out := make([]Anomaly, 0, len(runs))
	for _, r := range runs {
		r.Lasts = r.Kind != "change" && !r.Until.Before(at) // a change is a moment
		out = append(out, r.Anomaly)
	}
	slices.SortStableFunc(out, func(a, b Anomaly) int {
		if a.Lasts != b.Lasts {
			return map[bool]int{true: -1, false: 1}[a.Lasts]
		}
		return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Measure, b.Measure))
	})
	return out
}

// past is what is kept of the minutes of some groups.
type past struct {
	groups       []group.ID
	active       int
	series       map[group.ID]*anomaly.Series
	began, until time.Time // when it was begun to be read, and up to when it was
}

// askAnomalies asks the store one question a call at most, and none where the last minute
// was looked at.
func (c *Console) askAnomalies() func(context.Context) Anomalies {
	var p past
	shown := Anomalies{State: AnomaliesReading, Found: first([]Anomaly{}, linesShown)}
	return func(ctx context.Context) Anomalies {
		to := c.deps.Now().Add(-minuteSettle).Truncate(time.Minute)
		asked, err := p.read(ctx, c.deps.Stats, to)
		if asked {
			c.count("anomalies", err)
		}
		switch {
		case err != nil: // without what was found: old findings would look alive
			return Anomalies{State: AnomaliesAway, At: shown.At, Found: first([]Anomaly{}, linesShown)}
		case asked && p.until.Equal(to):
			settings := anomaly.DefaultSettings()
			settings.Zone = time.Local
			found, known := anomaly.Look(settings, p.series, to.Add(-lookedAt))
			shown = Anomalies{State: AnomaliesReady, At: to, Groups: len(p.groups), Active: p.active, Known: known, Found: first(NewAnomalies(found, to), linesShown)}
		}
		return shown
	}
}

// read asks for what comes next, up to a time.
func (p *past) read(ctx context.Context, stats Stats, to time.Time) (asked bool, err error) {
	old := to.Sub(p.began) >= pastKept || len(p.groups) == 0
	switch {
	case !p.until.Before(to):
		return false, nil
	case old:
		s, err := stats.GroupStats(ctx, sli.Window{From: to.Add(-busyWindow), To: to})
		if err != nil {
			return true, err
		}
		*p = past{began: to, until: to.Add(-lookedAt).AddDate(0, 0, -pastDays), series: map[group.ID]*anomaly.Series{}}
		if p.groups, p.active = busiest(s, watchedGroups); p.active == 0 {
			p.until = to
		}
		return true, nil
	}
	end := p.until.Add(pastPiece)
	if end.After(to) {
		end = to
	}
	s, err := stats.GroupSeries(ctx, sli.Window{From: p.until, To: end}, time.Minute, p.groups...)
	if err != nil {
		return true, err
	}
	anomaly.Join(p.series, anomaly.Of(s))
	p.until = end
	return true, nil
}

// busiest gives the groups with most requests, and of how many they are.
func busiest(stats []sli.Stats, most int) (ids []group.ID, of int) {
	requests := map[group.ID]uint64{}
	for _, s := range stats {
		if requests[s.Group] == 0 {
			ids = append(ids, s.Group)
		}
		requests[s.Group] += s.Requests
	}
	slices.SortFunc(ids, func(a, b group.ID) int { return cmp.Or(cmp.Compare(requests[b], requests[a]), cmp.Compare(a, b)) })
	return ids[:min(len(ids), most)], len(ids)
}
