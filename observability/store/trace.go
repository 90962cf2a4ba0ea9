package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// Bounds of what is read of traces at once.
const (
	MaxTraceSpans  = 10_000 // of one trace
	MaxTraces      = 1000
	MaxSampleSpans = 50_000 // of the traces that are compared
	maxAttributes  = 8      // of a query
	maxRoutes      = 1000   // to leave out
	maxText        = 512    // of a query's text, bytes
	maxQueryMemory = 1 << 30
)

// Quality is whether a request went well.
type Quality string

// The qualities. A request is bad where it failed or took Slow or longer.
const (
	AnyQuality Quality = ""
	Bad        Quality = "bad"
	Good       Quality = "good"
)

// TraceQuery chooses traces by their entry span. What is empty or zero chooses nothing.
type TraceQuery struct {
	Group       group.ID
	Env, Tenant string
	Service     string // that served
	Pool, Route string
	Window      sli.Window
	MinDuration time.Duration
	ErrorsOnly  bool
	NotRoutes   []string // routes to leave out
	Quality     Quality
	Slow        time.Duration // for Quality; zero: only errors are bad
	// Attributes must all be those of some span of the trace, or of its resource; the
	// spans need not be the same.
	Attributes map[string]string
	Limit      int // 1 to MaxTraces
}

// Validate names the field that is wrong.
func (q TraceQuery) Validate() error {
	texts := append([]string{string(q.Group), q.Env, q.Tenant, q.Service, q.Pool, q.Route}, q.NotRoutes...)
	for k, v := range q.Attributes {
		if k == "" {
			return errors.New("attributes: a name is empty")
		}
		texts = append(texts, k, v)
	}
	switch {
	case q.Limit < 1 || q.Limit > MaxTraces:
		return fmt.Errorf("limit %d is not between 1 and %d", q.Limit, MaxTraces)
	case len(q.Attributes) > maxAttributes:
		return fmt.Errorf("attributes: more than %d", maxAttributes)
	case len(q.NotRoutes) > maxRoutes:
		return fmt.Errorf("routes to leave out: more than %d", maxRoutes)
	case slices.ContainsFunc(texts, func(s string) bool { return len(s) > maxText }):
		return fmt.Errorf("a text has more than %d bytes", maxText)
	case q.Quality != AnyQuality && q.Quality != Bad && q.Quality != Good:
		return fmt.Errorf("quality %q is neither %q nor %q", q.Quality, Bad, Good)
	case q.MinDuration < 0 || q.Slow < 0:
		return errors.New("a duration is negative")
	}
	return nil
}

// where is the condition on entry spans, and its arguments.
func (q TraceQuery) where() (string, []any) {
	c := conditions{}
	c.add("TrafficEntry")
	c.within(q.Window)
	for _, f := range []struct{ column, value string }{
		{"TrafficGroup", string(q.Group)}, {"TrafficEnv", q.Env}, {"TrafficTenant", q.Tenant},
		{"TrafficService", q.Service}, {"TrafficPool", q.Pool}, {"TrafficRoute", q.Route},
	} {
		if f.value != "" {
			c.add(f.column+" = ?", f.value)
		}
	}
	if len(q.NotRoutes) > 0 {
		c.add("NOT has(?, TrafficRoute)", q.NotRoutes)
	}
	if q.MinDuration > 0 {
		c.add("Duration >= ?", uint64(q.MinDuration))
	}
	if q.ErrorsOnly {
		c.add("StatusCode = 'Error'")
	}
	slow := uint64(math.MaxUint64)
	if q.Slow > 0 {
		slow = uint64(q.Slow)
	}
	switch q.Quality {
	case Bad:
		c.add("(StatusCode = 'Error' OR Duration >= ?)", slow)
	case Good:
		c.add("StatusCode != 'Error' AND Duration < ?", slow)
	}
	for _, k := range slices.Sorted(maps.Keys(q.Attributes)) {
		inner := conditions{}
		inner.within(lasting(q.Window))
		if q.Group != "" {
			inner.add("TrafficGroup = ?", string(q.Group))
		}
		inner.add("(SpanAttributes[?] = ? AND mapContains(SpanAttributes, ?) OR ResourceAttributes[?] = ? AND mapContains(ResourceAttributes, ?))", k, q.Attributes[k], k, k, q.Attributes[k], k)
		c.add("TraceId IN (SELECT TraceId FROM otel_traces WHERE "+inner.String()+")", inner.args...)
	}
	return c.String(), c.args
}

// lasting is w and as long after it as a trace that began in it may go on.
func lasting(w sli.Window) sli.Window {
	return sli.Window{From: w.From.Add(-time.Second), To: w.To.Add(5 * time.Minute)} // clocks of two machines differ
}

// conditions are joined by AND.
type conditions struct {
	sql  []string
	args []any
}

func (c *conditions) add(sql string, args ...any) {
	c.sql, c.args = append(c.sql, sql), append(c.args, args...)
}

func (c *conditions) within(w sli.Window) {
	c.add("Timestamp >= fromUnixTimestamp64Nano(?) AND Timestamp < fromUnixTimestamp64Nano(?)", w.From.UnixNano(), w.To.UnixNano())
}

func (c *conditions) String() string { return strings.Join(c.sql, " AND ") }

// Traces returns the entry spans that q chooses, newest first, without links.
func (s *Store) Traces(ctx context.Context, q TraceQuery) ([]Span, error) {
	if err := q.Validate(); err != nil {
		return nil, fmt.Errorf("find traces: %w", err)
	}
	where, args := q.where()
	spans, err := s.spans(ctx, fmt.Sprintf("SELECT %s FROM otel_traces WHERE %s ORDER BY Timestamp DESC LIMIT %d", spanFields, where, q.Limit), args...)
	if err != nil {
		return nil, fmt.Errorf("find traces: %w", err)
	}
	return spans, nil
}

// Trace returns the spans of one trace in the order of their start; none where the trace
// is not there (any more). Read at most MaxTraceSpans.
func (s *Store) Trace(ctx context.Context, traceID string) ([]Span, error) {
	sql := "SELECT " + spanFields + fmt.Sprintf(" FROM otel_traces WHERE TraceId = ? ORDER BY Timestamp LIMIT %d", MaxTraceSpans)
	spans, err := s.spans(ctx, sql, traceID)
	if err != nil {
		return nil, fmt.Errorf("read trace: %w", err)
	}
	return spans, nil
}

// Sample returns the spans of at most q.Limit traces of those that q chooses: whichever
// have the lowest hashes of their ids, so that they are spread over the window and the
// same each time. q must name a group. Beyond MaxSampleSpans spans, traces are left out.
func (s *Store) Sample(ctx context.Context, q TraceQuery) ([][]Span, error) {
	if err := q.Validate(); err != nil {
		return nil, fmt.Errorf("sample traces: %w", err)
	}
	if q.Group == "" {
		return nil, errors.New("sample traces: no group is named")
	}
	c := conditions{}
	c.add("TrafficGroup = ?", string(q.Group))
	c.within(lasting(q.Window))
	where, args := q.where()
	c.add(fmt.Sprintf("TraceId IN (SELECT TraceId FROM otel_traces WHERE %s ORDER BY cityHash64(TraceId) LIMIT %d)", where, q.Limit), args...)
	spans, err := s.spans(ctx, fmt.Sprintf("SELECT %s FROM otel_traces WHERE %s ORDER BY cityHash64(TraceId), TraceId, Timestamp LIMIT %d", spanFields, c.String(), MaxSampleSpans+1), c.args...)
	if err != nil {
		return nil, fmt.Errorf("sample traces: %w", err)
	}
	var out [][]Span
	for i, span := range spans {
		if i == 0 || span.TraceID != spans[i-1].TraceID {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], span)
	}
	if len(spans) > MaxSampleSpans {
		out = out[:len(out)-1] // it may not be whole
	}
	return out, nil
}

const spanFields = `Timestamp, TraceId, SpanId, ParentSpanId, TraceState, SpanName, SpanKind, ServiceName, ResourceAttributes, ScopeName, ScopeVersion,
 SpanAttributes, Duration, StatusCode, StatusMessage, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool, TrafficRoute, TrafficEntry,
 Events.Timestamp, Events.Name, Events.Attributes`

func (s *Store) spans(ctx context.Context, sql string, args ...any) ([]Span, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"max_execution_time": s.cfg.Timeout.Seconds(), "max_memory_usage": maxQueryMemory}))
	rows, err := s.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Span
	for rows.Next() {
		var sp Span
		var id, color string
		var duration uint64
		var times []time.Time
		var names []string
		var attrs []map[string]string
		t := &sp.Traffic
		if err := rows.Scan(&sp.Timestamp, &sp.TraceID, &sp.SpanID, &sp.ParentSpanID, &sp.TraceState, &sp.Name, &sp.Kind, &sp.Service, &sp.Resource, &sp.ScopeName, &sp.ScopeVersion,
			&sp.Attributes, &duration, &sp.Status, &sp.StatusText, &id, &color, &t.Env, &t.Tenant, &t.Service, &t.Pool, &t.Route, &t.Entry,
			&times, &names, &attrs); err != nil {
			return nil, err
		}
		sp.Duration, t.Group = time.Duration(duration), group.ID(id)
		t.Color, _ = group.ParseColor(color)
		for i := range times {
			sp.Events = append(sp.Events, Event{Timestamp: times[i], Name: names[i], Attributes: attrs[i]})
		}
		out = append(out, sp)
	}
	return out, rows.Err()
}
