package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// MaxTraceSpans bounds how much of one trace is read.
const MaxTraceSpans = 10_000

// TraceQuery chooses traces by their entry span.
type TraceQuery struct {
	Group       group.ID // any where empty
	Window      sli.Window
	MinDuration time.Duration
	ErrorsOnly  bool
	Limit       int // 1 to 1000
}

// Traces returns the entry spans that q chooses, newest first, without events and links.
func (s *Store) Traces(ctx context.Context, q TraceQuery) ([]Span, error) {
	if q.Limit < 1 || q.Limit > 1000 {
		return nil, fmt.Errorf("find traces: limit %d is not between 1 and 1000", q.Limit)
	}
	where := []string{"TrafficEntry", "Timestamp >= fromUnixTimestamp64Nano(?)", "Timestamp < fromUnixTimestamp64Nano(?)"}
	args := []any{q.Window.From.UnixNano(), q.Window.To.UnixNano()}
	if q.Group != "" {
		where, args = append(where, "TrafficGroup = ?"), append(args, string(q.Group))
	}
	if q.MinDuration > 0 {
		where, args = append(where, "Duration >= ?"), append(args, uint64(q.MinDuration))
	}
	if q.ErrorsOnly {
		where = append(where, "StatusCode = 'Error'")
	}
	sql := "SELECT " + spanFields + " FROM otel_traces WHERE " + strings.Join(where, " AND ") + fmt.Sprintf(" ORDER BY Timestamp DESC LIMIT %d", q.Limit)
	spans, err := s.spans(ctx, sql, args...)
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

const spanFields = `Timestamp, TraceId, SpanId, ParentSpanId, TraceState, SpanName, SpanKind, ServiceName, ResourceAttributes, ScopeName, ScopeVersion,
 SpanAttributes, Duration, StatusCode, StatusMessage, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool, TrafficRoute, TrafficEntry,
 Events.Timestamp, Events.Name, Events.Attributes`

func (s *Store) spans(ctx context.Context, sql string, args ...any) ([]Span, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
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

// Node is a span with the spans it caused.
type Node struct {
	Span
	Children []*Node `json:"children,omitempty"`
}

// Tree arranges the spans of one trace under their parents. A span whose parent is not
// among them is a root, and so is one that would close a circle.
func Tree(spans []Span) []*Node {
	nodes := make([]*Node, len(spans))
	byID := make(map[string]*Node, len(spans))
	for i := range spans {
		nodes[i] = &Node{Span: spans[i]}
		if _, taken := byID[spans[i].SpanID]; !taken {
			byID[spans[i].SpanID] = nodes[i]
		}
	}
	parent := func(n *Node) *Node { return byID[n.ParentSpanID] }
	var roots []*Node
	for _, n := range nodes {
		if p := parent(n); p != nil && !circular(n, parent, len(nodes)) {
			p.Children = append(p.Children, n)
			continue
		}
		roots = append(roots, n)
	}
	return roots
}

// circular says whether n is its own ancestor; limit is the longest way without one.
func circular(n *Node, parent func(*Node) *Node, limit int) bool {
	p := parent(n)
	for range limit {
		if p == nil {
			return false
		}
		if p == n {
			return true
		}
		p = parent(p)
	}
	return false
}
