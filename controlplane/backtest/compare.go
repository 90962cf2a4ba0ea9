package backtest

import (
	"cmp"
	"slices"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
)

// Verdict says how a move that would have been decided relates to one that was.
type Verdict string

// The verdicts.
const (
	Same      Verdict = "same"
	OnlyWould Verdict = "only would be"
	OnlyWas   Verdict = "only was"
	ByHand    Verdict = "by hand" // an operator's
)

// Row is one move of a group, or the same one on both sides.
type Row struct {
	Verdict Verdict          `json:"verdict"`
	Would   *decide.Decision `json:"would,omitempty"`
	Was     *decide.Decision `json:"was,omitempty"`
}

// Time is when it would have been decided, or where it would not, when it was.
func (r Row) Time() time.Time { return r.any().Time }

func (r Row) any() *decide.Decision {
	if r.Would != nil {
		return r.Would
	}
	return r.Was
}

// Decision is the one of either side, preferably what would have been.
func (r Row) Decision() decide.Decision { return *r.any() }

// Report is the whole comparison.
type Report struct {
	From    time.Time       `json:"from"`
	To      time.Time       `json:"to"`
	Seconds int             `json:"seconds"` // that had requests
	Counts  map[Verdict]int `json:"counts"`
	// Holds are how often a group would have been bad, and was, without being moved.
	HoldsWould int   `json:"holds_would"`
	HoldsWas   int   `json:"holds_was"`
	Rows       []Row `json:"rows"`
}

// Compare pairs moves of both sides: of the same group, the same kind and no more than
// apart from each other. Each is paired once, the earliest that would be with the nearest
// that was.
func Compare(would, was []decide.Decision, apart time.Duration) Report {
	r := Report{Counts: map[Verdict]int{}, Rows: []Row{}}
	left := []decide.Decision{}
	for _, d := range was {
		switch {
		case !d.Action.Moves():
			r.HoldsWas++
		case d.By != decide.ByPolicy:
			r.add(Row{Verdict: ByHand, Was: &d})
		default:
			left = append(left, d)
		}
	}
	for _, d := range would {
		if !d.Action.Moves() {
			r.HoldsWould++
			continue
		}
		i := nearest(d, left, apart)
		if i < 0 {
			r.add(Row{Verdict: OnlyWould, Would: &d})
			continue
		}
		pair := left[i]
		r.add(Row{Verdict: Same, Would: &d, Was: &pair})
		left = slices.Delete(left, i, i+1)
	}
	for _, d := range left {
		r.add(Row{Verdict: OnlyWas, Was: &d})
	}
	slices.SortStableFunc(r.Rows, func(a, b Row) int {
		return cmp.Or(a.Time().Compare(b.Time()), cmp.Compare(a.Decision().Group, b.Decision().Group))
	})
	return r
}

func (r *Report) add(row Row) {
	r.Rows = append(r.Rows, row)
	r.Counts[row.Verdict]++
}

// nearest is the index of what was decided alike and nearest to d, or -1.
func nearest(d decide.Decision, list []decide.Decision, apart time.Duration) int {
	best := -1
	for i, o := range list {
		between := d.Time.Sub(o.Time).Abs()
		if o.Group != d.Group || o.Action != d.Action || between > apart {
			continue
		}
		if best < 0 || between < d.Time.Sub(list[best].Time).Abs() {
			best = i
		}
	}
	return best
}
