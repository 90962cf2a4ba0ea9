package anomaly

import (
	"cmp"
	"slices"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// Series are one group's.
type Series struct {
	Group    group.ID
	Env      string
	Tenant   string
	Measures map[Measure][]Point
}

// Of makes series of statistics whose windows are steps, oldest first. Services and pools
// of a group are added up; P95 is that of the one with most requests, since percentiles
// cannot be added. A step without requests has none a second, no share and no P95.
func Of(stats []sli.Stats) map[group.ID]*Series {
	out, current := map[group.ID]*Series{}, map[group.ID]*step{}
	flush := func(id group.ID) {
		if s := current[id]; s != nil {
			out[id].add(*s)
			delete(current, id)
		}
	}
	for _, st := range stats {
		if out[st.Group] == nil {
			out[st.Group] = &Series{Group: st.Group, Env: st.Env, Tenant: st.Tenant, Measures: map[Measure][]Point{}}
		}
		if s := current[st.Group]; s != nil && !s.window.From.Equal(st.Window.From) {
			flush(st.Group)
		}
		s := current[st.Group]
		if s == nil {
			s = &step{window: st.Window}
			current[st.Group] = s
		}
		s.requests, s.errors = s.requests+st.Requests, s.errors+st.Errors
		if st.Requests >= s.most {
			s.most, s.p95 = st.Requests, st.P95
		}
	}
	for id := range out {
		flush(id)
	}
	return out
}

type step struct {
	window                 sli.Window
	requests, errors, most uint64
	p95                    time.Duration
}

func (s *Series) add(p step) {
	put := func(m Measure, v float64) {
		s.Measures[m] = append(s.Measures[m], Point{Time: p.window.From, Value: v, Of: float64(p.requests)})
	}
	put(Requests, float64(p.requests)/max(1, p.window.To.Sub(p.window.From).Seconds()))
	if p.requests > 0 {
		put(Errors, float64(p.errors)/float64(p.requests))
		put(Latency, float64(p.p95.Microseconds())/1000)
	}
}

// Join adds series of later steps to all.
func Join(all, later map[group.ID]*Series) {
	for id, s := range later {
		if all[id] == nil {
			all[id] = s
			continue
		}
		for m, points := range s.Measures {
			all[id].Measures[m] = append(all[id].Measures[m], points...)
		}
	}
}

// Unusual is a finding about a group.
type Unusual struct {
	Group  group.ID `json:"group"`
	Env    string   `json:"env"`
	Tenant string   `json:"tenant"`
	Finding
}

// Look is Find for each measure of all series, oldest first. Known is of how many of them
// enough of the past is known to say what is usual at their last minutes.
func Look(s Settings, all map[group.ID]*Series, since time.Time) (out []Unusual, known int) {
	for id, series := range all {
		for m, points := range series.Measures {
			found, usual := s.find(m, points, since)
			if m == Requests && usual {
				known++
			}
			for _, f := range found {
				out = append(out, Unusual{id, series.Env, series.Tenant, f})
			}
		}
	}
	slices.SortFunc(out, func(a, b Unusual) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Measure, b.Measure), cmp.Compare(a.Kind, b.Kind))
	})
	return out, known
}
