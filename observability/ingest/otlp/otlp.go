// Package otlp turns OTLP messages into rows: spans as services send them, spans of the
// edge made from Envoy's access log, and points of metrics. It is pure: time and
// randomness are arguments.
// observability/ingest receives the messages and stores the rows.
//
// Nothing a sender writes makes it fail: what has no usable identity or time is dropped
// and counted by reason, what is too long is cut and counted.
package otlp

import (
	"time"

	"github.com/tracegate/tracegate/mesh/group"
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
	UnsupportedLog    Reason = "unsupported_log"    // logs other than the edge's access log
	UnsupportedMetric Reason = "unsupported_metric" // a metric of none of OTLP's types
	NoName            Reason = "no_name"            // a metric without one
	NoTime            Reason = "no_time"            // a point without one
	NoValue           Reason = "no_value"           // a point that has none and does not say so
	BadBuckets        Reason = "bad_buckets"        // buckets, bounds and count, or quantiles, that contradict each other
	TooLarge          Reason = "too_large"          // name, attributes or buckets of a point beyond the limits
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
	CutTrace      Cut = "trace"    // edge record without a trace id: a random one is given
	CutGroup      Cut = "group"    // the edge's group differs from that of trace id and baggage
	CutDuration   Cut = "duration" // of a span that ends before it starts zero is stored, of an edge record an estimate
)

// Limits bound what one record may carry.
type Limits struct {
	Attributes int // of a resource, a scope, a span, an event, a link, a point, an exemplar
	Key        int // bytes of an attribute's key
	Value      int // bytes of an attribute's value, of a status message, of a metric's description
	Name       int // bytes of names of spans, events, services, scopes, routes, pools, metrics, units
	Events     int
	Links      int
	Buckets    int // of a histogram; quantiles of a summary
	Exemplars  int // of a point
	Points     int // of one message
	// PointBytes bounds what the points of one message become: each row has its
	// resource's attributes, so a message grows.
	PointBytes int64
	// Past and Future bound times of spans and points: the tables drop what is older, and a wrong
	// clock must not open a partition for each day of a century.
	Past, Future time.Duration
}

// DefaultLimits are OpenTelemetry's where it has one.
func DefaultLimits() Limits {
	return Limits{
		Attributes: 128, Key: 256, Value: 4096, Name: 256, Events: 128, Links: 128,
		Buckets: 512, Exemplars: 32, Points: 20_000, PointBytes: 64 << 20, Past: 72 * time.Hour, Future: 10 * time.Minute,
	}
}

// Converter holds what conversion needs besides the message.
type Converter struct {
	Limits Limits
	// Env and Tenant are those of spans, and of points with a color, that say neither.
	Env, Tenant string
}

// Result is what came of one message: Received = len(Spans) + len(Points) + all Dropped.
type Result struct {
	Received int
	Spans    []store.Span
	Points   []store.Point
	Size     int64 // about what the points take, in bytes
	Dropped  map[Reason]int
	Cut      map[Cut]int
}

func newResult() *Result {
	return &Result{Dropped: map[Reason]int{}, Cut: map[Cut]int{}}
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
	t.Group = group.Group{Color: t.Color, Env: t.Env, Tenant: t.Tenant}.ID()
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
