// Package otlp turns OTLP messages into rows: spans as services send them, spans of the
// edge made from Envoy's access log, points of metrics, and log records. It is pure: time
// and randomness are arguments.
// observability/ingest receives the messages and stores the rows.
//
// Nothing a sender writes makes it fail: what has no usable identity or time is dropped
// and counted by reason, what is too long is cut and counted.
package otlp

import (
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/store"
)

// Reason says why a record is not stored. The list is closed; each is a metric label.
type Reason string

// Reasons of this package.
const (
	BadTraceID        Reason = "bad_trace_id"
	BadSpanID         Reason = "bad_span_id"
	TooOld            Reason = "too_old"
	InFuture          Reason = "in_future"
	UnsupportedMetric Reason = "unsupported_metric" // a metric of none of OTLP's types
	NoName            Reason = "no_name"            // a metric without one
	NoTime            Reason = "no_time"            // a point without one
	NoValue           Reason = "no_value"           // a point that has none and does not say so
	BadBuckets        Reason = "bad_buckets"        // buckets, bounds and count, or quantiles, that contradict each other
	TooLarge          Reason = "too_large"          // name, attributes or buckets of a point beyond the limits
	TooManyLogs       Reason = "too_many_logs"      // in one message, see Limits.Logs and Limits.LogBytes
	TooManyPoints     Reason = "too_many_points"    // in one message, see Limits.Points and Limits.PointBytes
)

// Cut says what was shortened in a record that is stored.
type Cut string

// Cuts of this package.
const (
	CutAttributes Cut = "attributes" // more than Limits.Attributes
	CutText       Cut = "text"       // a name, key or value was too long
	CutEvents     Cut = "events"
	CutLinks      Cut = "links"
	CutExemplars  Cut = "exemplars"
	CutParent     Cut = "parent"   // parent id malformed: the span becomes a root
	CutTrace      Cut = "trace"    // edge record without a trace id: a random one is given; log record with one of the wrong length: it has none
	CutGroup      Cut = "group"    // the edge's group differs from that of trace id and baggage
	CutDuration   Cut = "duration" // of a span that ends before it starts zero is stored, of an edge record an estimate
)

// Limits bound what one record may carry.
type Limits struct {
	Attributes int // of a resource, a scope, a span, an event, a link, a point, an exemplar
	Key        int // bytes of an attribute's key
	Value      int // bytes of an attribute's value, of a status message, of a metric's description
	Name       int // bytes of names of spans, events, services, scopes, routes, pools, metrics, units
	Body       int // bytes of a log record's body
	Events     int
	Links      int
	Buckets    int // of a histogram; quantiles of a summary
	Exemplars  int // of a point
	Points     int // of one message
	// PointBytes bounds what the points of one message become: each row has its
	// resource's attributes, so a message grows.
	PointBytes int64
	// Logs and LogBytes are the same of log records.
	Logs     int
	LogBytes int64
	// Past and Future bound times of spans and points: the tables drop what is older, and a wrong
	// clock must not open a partition for each day of a century.
	Past, Future time.Duration
}

// DefaultLimits are OpenTelemetry's where it has one.
func DefaultLimits() Limits {
	return Limits{
		Attributes: 128, Key: 256, Value: 4096, Name: 256, Body: 64 << 10, Events: 128, Links: 128,
		Buckets: 512, Exemplars: 32, Points: 20_000, PointBytes: 64 << 20, Logs: 50_000, LogBytes: 64 << 20, Past: 72 * time.Hour, Future: 10 * time.Minute,
	}
}

// Converter holds what conversion needs besides the message.
type Converter struct {
	Limits Limits
	// Env and Tenant are those of spans, and of points with a color, that say neither.
	Env, Tenant string
}

// Table is where records go. Each has an account of its own.
type Table string

// The tables. Points go to one table for each type of metric, which are one here.
const (
	Traces  Table = "otel_traces"
	Metrics Table = "otel_metrics"
	Logs    Table = "otel_logs"
)

// Tables are all of them.
func Tables() []Table { return []Table{Traces, Metrics, Logs} }

// Result is what came of one message for one table; Received is all its rows and all
// Dropped.
type Result struct {
	Table    Table
	Received int
	Spans    []store.Span
	Points   []store.Point
	Logs     []store.Log
	Size     int64 // about what points or logs take, in bytes
	Dropped  map[Reason]int
	Cut      map[Cut]int
}

func newResult(t Table) *Result {
	return &Result{Table: t, Dropped: map[Reason]int{}, Cut: map[Cut]int{}}
}

// Rejected is how many records were dropped.
func (r *Result) Rejected() int {
	n := 0
	for _, d := range r.Dropped {
		n += d
	}
	return n
}

// late says whether a start time is outside what can be stored.
func (c Converter) late(start, now time.Time) (Reason, bool) {
	switch {
	case start.Before(now.Add(-c.Limits.Past)):
		return TooOld, true
	case start.After(now.Add(c.Limits.Future)):
		return InFuture, true
	}
	return "", false
}

// place gives a span its group. A color that the span states counts; without one it
// comes from the trace id where env or tenant are known, because only the edge's filter
// and the services behind it say those; a foreign random trace id must not open a group
// of its own, so it is baseline.
func (c Converter) place(traceID, color, env, tenant string) store.Traffic {
	return c.placeKnown(traceID, color, env, tenant, nil)
}

// placeKnown is place that keeps the ids of groups, which are hashes, in known.
func (c Converter) placeKnown(traceID, color, env, tenant string, known map[group.Group]group.ID) store.Traffic {
	t := store.Traffic{Color: group.Baseline, Env: c.Env, Tenant: c.Tenant}
	if stated, ok := group.ParseColor(color); ok {
		t.Color = stated
	} else if named(env) || named(tenant) {
		t.Color, _ = group.OfTrace(traceID)
	}
	if named(env) {
		t.Env = env
	}
	if named(tenant) {
		t.Tenant = tenant
	}
	g := group.Group{Color: t.Color, Env: t.Env, Tenant: t.Tenant}
	var ok bool
	if t.Group, ok = known[g]; !ok {
		t.Group = g.ID()
		if known != nil {
			known[g] = t.Group
		}
	}
	return t
}

// placeLoosely is the place of what need not be of a group, as most metrics and many log
// records are of a process, which serves many. It has one where it states a color, or where
// its trace (none: empty) was made in a group.
func (c Converter) placeLoosely(traceID string, either func(key string) string) store.Traffic {
	color, env, tenant := either(semconv.Color), either(semconv.Env), either(semconv.Tenant)
	if _, ok := group.ParseColor(color); ok || traceID != "" && (named(env) || named(tenant)) {
		return c.place(traceID, color, env, tenant)
	}
	var t store.Traffic
	if named(env) {
		t.Env = env
	}
	if named(tenant) {
		t.Tenant = tenant
	}
	return t
}

// maxName bounds env and tenant, which become columns of low cardinality.
const maxName = 64

// named says whether s can be an environment's or tenant's name.
func named(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == '|' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
