package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// keySQL is what statistics are by, beside a time.
const keySQL = "TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool"

// sumsSQL are the columns that sums and scanSums read; it has a place for the time.
const sumsSQL = "SELECT %s AS Start, " + keySQL + ", sum(Requests), sum(Errors), sumMap(Latency), max(Newest)::DateTime64(9, 'UTC') FROM traffic_group"

// statsSQL has a place for a key by time and for the rows to read. One thread is the
// quickest for some thousand rows; to be planned takes longer than to run, so it is plain
// and its answer is sorted here.
const statsSQL = sumsSQL + `
WHERE %s
GROUP BY Start, ` + keySQL + `
LIMIT %d
SETTINGS max_threads = 1`

// listSQL gives the rows that statsSQL adds up, at their second. For a few of them that is
// planned and read in half the time, and to add them up here costs a tenth of what is gained.
const listSQL = "SELECT Second, " + keySQL + ", Requests, Errors, Latency, Newest FROM traffic_group" + `
PREWHERE %s
LIMIT %d
SETTINGS max_threads = 1, optimize_use_projections = 0`

// maxRows is up to how many rows are added up here.
const maxRows = 100_000

// piece is seconds that are read from rows of a grain.
type piece struct{ grain, from, to int64 }

// pieces cuts [from, to) into as few rows as grains allow: minutes where they are whole,
// then tens of seconds, then seconds. Grains are given coarsest first, the last is 1.
func pieces(from, to int64, grains []int64) []piece {
	if from >= to {
		return nil
	}
	grain, finer := grains[0], grains[1:]
	low, high := (from+grain-1)/grain*grain, to/grain*grain
	if low >= high {
		return pieces(from, to, finer)
	}
	out := append(pieces(from, low, finer), piece{grain, low, high})
	return append(out, pieces(high, to, finer)...)
}

// grains are those of the rows that traffic_group has, coarsest first.
func grains() []int64 { return []int64{60, 10, 1} }

// maxListed is up to how many rows a piece is listed row by row, which is planned a fifth
// quicker than a range.
const maxListed = 60

// together is added to the grain of rows that are of all routes and status classes.
const together = 100

// rowsSQL is the condition on rows that make up w, of grains that divide step; of is 0 for
// those by route and status class, or [together]. It says whether all are listed.
func rowsSQL(w sli.Window, step, of int64) (where string, all bool) {
	usable := slices.DeleteFunc(grains(), func(g int64) bool { return step%g != 0 })
	var listed, conditions []string
	for _, p := range pieces(w.From.Unix(), w.To.Unix(), usable) {
		if (p.to-p.from)/p.grain > maxListed {
			conditions = append(conditions, fmt.Sprintf("Grain = %d AND Second BETWEEN %d AND %d", p.grain+of, p.from, p.to-1))
			continue
		}
		for at := p.from; at < p.to; at += p.grain {
			listed = append(listed, fmt.Sprintf("(%d,%d)", p.grain+of, at))
		}
	}
	if len(listed) > 0 {
		conditions = append(conditions, "(Grain, Second) IN ("+strings.Join(listed, ",")+")")
	}
	return strings.Join(conditions, " OR "), len(listed) > 0 && len(conditions) == 1
}

// MaxStats bounds how many rows GroupStats and GroupSeries give; they fail beyond.
const MaxStats = 100_000

// Whole widens w to whole seconds, the grain of the statistics.
func Whole(w sli.Window) sli.Window {
	to := w.To.Truncate(time.Second)
	if to.Before(w.To) {
		to = to.Add(time.Second)
	}
	return sli.Window{From: w.From.Truncate(time.Second), To: to}
}

// GroupStats counts what started in w, for each group, service and pool that had a
// request. The window is widened to whole seconds and given back in the statistics; a
// caller that wants complete seconds asks for a window that ends at one. Groups without
// requests are not there: no data is not zero. Requests of the routes to ignore are not
// counted: some are slow on purpose and say nothing about a group.
func (s *Store) GroupStats(ctx context.Context, w sli.Window, ignore ...string) ([]sli.Stats, error) {
	w = Whole(w)
	return s.stats(ctx, w, ignore, nil, steps{from: w.From.Unix(), length: int64(w.To.Sub(w.From) / time.Second)})
}

// GroupSeries is GroupStats for each step of w on its own, oldest first. Step must be
// whole seconds. Where groups are named it is of those only.
func (s *Store) GroupSeries(ctx context.Context, w sli.Window, step time.Duration, only ...group.ID) ([]sli.Stats, error) {
	seconds := int64(step / time.Second)
	if seconds < 1 || step%time.Second != 0 {
		return nil, fmt.Errorf("group series: step %s is not whole seconds", step)
	}
	return s.stats(ctx, Whole(w), nil, only, steps{length: seconds, grain: seconds})
}

// steps are what seconds are put together to: each so many, from a second on.
type steps struct {
	from, length int64
	grain        int64 // what the grain of rows must divide; zero: it may be any
}

// start is that of a row's step, in SQL: of many rows ClickHouse adds up those of a step.
func (s steps) start() string {
	return fmt.Sprintf("toDateTime(%[1]d + intDiv(toUnixTimestamp(Second) - %[1]d, %[2]d) * %[2]d, 'UTC')", s.from, s.length)
}

// of is the same of a second, or of the start of a step.
func (s steps) of(second time.Time) time.Time {
	return time.Unix(s.from+(second.Unix()-s.from)/s.length*s.length, 0).UTC()
}

func (s *Store) stats(ctx context.Context, w sli.Window, ignore []string, only []group.ID, by steps) ([]sli.Stats, error) {
	of := int64(together)
	if len(ignore) > 0 {
		of = 0
	}
	where, listed := rowsSQL(w, by.grain, of)
	if where == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	params := map[string]string{}
	if len(ignore) > 0 {
		where = "(" + where + ") AND NOT has({ignore:Array(String)}, TrafficRoute)"
		params["ignore"] = array(ignore)
	}
	if len(only) > 0 {
		where = "(" + where + ") AND has({only:Array(String)}, TrafficGroup)"
		params["only"] = array(only)
	}
	var sums totals
	read := func(most int, sql string, places ...any) (whole bool, err error) {
		sums = totals{by: by, of: map[sli.Stats]*total{}}
		rows, err := s.readSums(ctx, fmt.Sprintf(sql, append(places, where, most+1)...), params, sums.add)
		if err != nil {
			return false, fmt.Errorf("read group statistics: %w", err)
		}
		return rows <= most, nil
	}
	var whole bool
	var err error
	if listed {
		whole, err = read(maxRows, listSQL)
	}
	if err == nil && !whole {
		whole, err = read(MaxStats, statsSQL, by.start())
	}
	if err != nil {
		return nil, err
	}
	if !whole {
		return nil, fmt.Errorf("read group statistics: more than %d rows: ask for a shorter window", MaxStats)
	}
	return sums.stats(), nil
}

// totals adds up rows by step and by what statistics are by: those of the key have no numbers.
type totals struct {
	by steps
	of map[sli.Stats]*total
}

type total struct {
	requests, errors uint64
	newest           time.Time
	latency          sli.HistogramSum
}

func (t totals) add(row sli.Stats, latency sli.Histogram) {
	key := row
	key.Requests, key.Errors, key.Newest, key.Window.From = 0, 0, time.Time{}, t.by.of(row.Window.From)
	sum := t.of[key]
	if sum == nil {
		sum = &total{}
		t.of[key] = sum
	}
	sum.requests, sum.errors = sum.requests+row.Requests, sum.errors+row.Errors
	sum.latency.Add(latency)
	if row.Newest.After(sum.newest) {
		sum.newest = row.Newest
	}
}

// stats are in the order of their windows, then of their keys.
func (t totals) stats() []sli.Stats {
	var out []sli.Stats
	for st, sum := range t.of {
		st.Requests, st.Errors, st.Newest = sum.requests, sum.errors, sum.newest
		h := sum.latency.Histogram()
		st.P50, st.P95, st.P99 = h.Quantile(0.5), h.Quantile(0.95), h.Quantile(0.99)
		st.Window.To = st.Window.From.Add(time.Duration(t.by.length) * time.Second)
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b sli.Stats) int {
		return cmp.Or(a.Window.From.Compare(b.Window.From), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Color, b.Color), cmp.Compare(a.Env, b.Env),
			cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Pool, b.Pool))
	})
	return out
}

const secondsSQL = sumsSQL + `
WHERE Grain = 1 AND Second BETWEEN %d AND %d AND NOT has({ignore:Array(String)}, TrafficRoute)
GROUP BY Start, ` + keySQL + `
ORDER BY Start`

// secondsAtOnce is how much of a window Seconds asks for in one query, which bounds the
// memory that it takes of ClickHouse.
const secondsAtOnce = 300

// Seconds calls each with what was counted in every second of w, in the order of time, of
// every group, service and pool that had a request; not of the routes to ignore. It ends
// with the first error of each. One row at a time is held, however long w is.
func (s *Store) Seconds(ctx context.Context, w sli.Window, ignore []string, each func(sli.Second) error) error {
	w = Whole(w)
	for from := w.From.Unix(); from < w.To.Unix(); from += secondsAtOnce {
		if err := s.seconds(ctx, from, min(from+secondsAtOnce, w.To.Unix()), ignore, each); err != nil {
			return fmt.Errorf("read seconds: %w", err)
		}
	}
	return nil
}

func (s *Store) seconds(ctx context.Context, from, to int64, ignore []string, each func(sli.Second) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	ctx = clickhouse.Context(ctx, clickhouse.WithParameters(clickhouse.Parameters{"ignore": array(ignore)}))
	rows, err := s.conn.Query(ctx, fmt.Sprintf(secondsSQL, "Second", from, to-1))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		st, h, err := scanSums(rows)
		if err != nil {
			return err
		}
		if err := each(sli.Second{
			Group: st.Group, Color: st.Color, Env: st.Env, Tenant: st.Tenant, Service: st.Service, Pool: st.Pool,
			Start: st.Window.From, Requests: st.Requests, Errors: st.Errors, Latency: h, Newest: st.Newest,
		}); err != nil {
			return err
		}
	}
	return rows.Err()
}

// scanSums reads one row of sums: statistics without quantiles, and what those are of.
func scanSums(rows driver.Rows) (sli.Stats, sli.Histogram, error) {
	var st sli.Stats
	var id, color string
	var latency map[int16]uint64
	err := rows.Scan(&st.Window.From, &id, &color, &st.Env, &st.Tenant, &st.Service, &st.Pool, &st.Requests, &st.Errors, &latency, &st.Newest)
	st.Group = group.ID(id)
	st.Color, _ = group.ParseColor(color)
	return st, sli.NewHistogram(latency), err
}

// array writes a list of strings as ClickHouse reads a parameter of type Array(String).
func array[S ~string](list []S) string {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	var b strings.Builder
	for i, s := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("'" + quote.Replace(string(s)) + "'")
	}
	return "[" + b.String() + "]"
}
