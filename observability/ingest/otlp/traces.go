package otlp

import (
	"time"

	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/store"
)

// Attribute names of OpenTelemetry that become columns.
const (
	serviceName = "service.name"
	httpRoute   = "http.route"
)

// source is what all spans of one resource and scope share.
type source struct {
	service, scopeName, scopeVersion string
	resource                         map[string]string
}

// Traces turns spans into rows.
func (c Converter) Traces(req *collectortrace.ExportTraceServiceRequest, now time.Time) *Result {
	r := newResult()
	for _, rs := range req.GetResourceSpans() {
		resource := r.attributes(rs.GetResource().GetAttributes(), c.Limits)
		src := source{service: r.clip(resource[serviceName], c.Limits.Name), resource: resource}
		for _, ss := range rs.GetScopeSpans() {
			src.scopeName = r.clip(ss.GetScope().GetName(), c.Limits.Name)
			src.scopeVersion = r.clip(ss.GetScope().GetVersion(), c.Limits.Name)
			for _, s := range ss.GetSpans() {
				r.Received++
				row, reason := c.span(r, src, s, now)
				if reason != "" {
					r.Dropped[reason]++
					continue
				}
				r.Spans = append(r.Spans, row)
			}
		}
	}
	return r
}

// span is one row, or the reason why there is none.
func (c Converter) span(r *Result, src source, s *tracev1.Span, now time.Time) (store.Span, Reason) {
	traceID, ok := id(s.GetTraceId(), 16)
	if !ok {
		return store.Span{}, BadTraceID
	}
	spanID, ok := id(s.GetSpanId(), 8)
	if !ok {
		return store.Span{}, BadSpanID
	}
	start, ok := nano(s.GetStartTimeUnixNano())
	if !ok {
		return store.Span{}, TooOld
	}
	if reason, late := c.late(start, now); late {
		return store.Span{}, reason
	}
	attrs := r.attributes(s.GetAttributes(), c.Limits)
	row := store.Span{
		Timestamp: start, TraceID: traceID, SpanID: spanID, ParentSpanID: c.parent(r, s), TraceState: r.clip(s.GetTraceState(), c.Limits.Value),
		Name: r.clip(s.GetName(), c.Limits.Name), Kind: kind(s.GetKind()), Service: src.service, Resource: src.resource,
		ScopeName: src.scopeName, ScopeVersion: src.scopeVersion, Attributes: attrs, Duration: r.duration(start, s.GetEndTimeUnixNano()),
		Status: status(s.GetStatus().GetCode()), StatusText: r.clip(s.GetStatus().GetMessage(), c.Limits.Value),
		Events: c.events(r, s.GetEvents()), Links: c.links(r, s.GetLinks()),
	}
	either := func(key string) string {
		if v := attrs[key]; v != "" {
			return v
		}
		return src.resource[key]
	}
	row.Traffic = c.place(traceID, either(semconv.Color), either(semconv.Env), either(semconv.Tenant))
	row.Traffic.Service = src.service
	row.Traffic.Pool = r.clip(either(semconv.Pool), c.Limits.Name)
	row.Traffic.Entry = attrs[semconv.Entry] == "true"
	row.Traffic.Route = r.clip(attrs[httpRoute], c.Limits.Name)
	if row.Traffic.Route == "" && row.Traffic.Entry {
		row.Traffic.Route = row.Name
	}
	return row, ""
}

func (c Converter) parent(r *Result, s *tracev1.Span) string {
	if len(s.GetParentSpanId()) == 0 {
		return ""
	}
	parent, ok := id(s.GetParentSpanId(), 8)
	if !ok {
		r.Cut[CutParent]++
	}
	return parent
}

func (r *Result) duration(start time.Time, end uint64) time.Duration {
	t, ok := nano(end)
	if !ok || t.Before(start) {
		r.Cut[CutDuration]++
		return 0
	}
	return t.Sub(start)
}

func (c Converter) events(r *Result, in []*tracev1.Span_Event) []store.Event {
	if len(in) > c.Limits.Events {
		r.Cut[CutEvents] += len(in) - c.Limits.Events
		in = in[:c.Limits.Events]
	}
	var out []store.Event
	for _, e := range in {
		t, ok := nano(e.GetTimeUnixNano())
		if !ok {
			t = time.Unix(0, 0).UTC()
		}
		out = append(out, store.Event{Timestamp: t, Name: r.clip(e.GetName(), c.Limits.Name), Attributes: r.attributes(e.GetAttributes(), c.Limits)})
	}
	return out
}

func (c Converter) links(r *Result, in []*tracev1.Span_Link) []store.Link {
	var out []store.Link
	for _, l := range in {
		traceID, ok := id(l.GetTraceId(), 16)
		spanID, ok2 := id(l.GetSpanId(), 8)
		if !ok || !ok2 || len(out) == c.Limits.Links {
			r.Cut[CutLinks]++
			continue
		}
		out = append(out, store.Link{TraceID: traceID, SpanID: spanID, TraceState: r.clip(l.GetTraceState(), c.Limits.Value), Attributes: r.attributes(l.GetAttributes(), c.Limits)})
	}
	return out
}

// kind and status are spelled as the collector's exporter does.
func kind(k tracev1.Span_SpanKind) string {
	switch k {
	case tracev1.Span_SPAN_KIND_INTERNAL:
		return "Internal"
	case tracev1.Span_SPAN_KIND_SERVER:
		return "Server"
	case tracev1.Span_SPAN_KIND_CLIENT:
		return "Client"
	case tracev1.Span_SPAN_KIND_PRODUCER:
		return "Producer"
	case tracev1.Span_SPAN_KIND_CONSUMER:
		return "Consumer"
	}
	return "Unspecified"
}

func status(c tracev1.Status_StatusCode) string {
	switch c {
	case tracev1.Status_STATUS_CODE_OK:
		return "Ok"
	case tracev1.Status_STATUS_CODE_ERROR:
		return "Error"
	}
	return "Unset"
}
