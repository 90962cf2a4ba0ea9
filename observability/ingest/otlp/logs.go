package otlp

import (
	"cmp"
	"time"

	logsv1 "go.opentelemetry.io/proto/otlp/logs/v1"

	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/store"
)

// logs adds the rows of one scope to r.
func (c Converter) logs(r *Result, resource map[string]string, schema string, in *logsv1.ScopeLogs, now time.Time) {
	scope := in.GetScope()
	src := store.LogSource{
		Service: r.clip(resource[serviceName], c.Limits.Name), Resource: resource, ResourceSchema: r.clip(schema, c.Limits.Name),
		Scope: r.clip(scope.GetName(), c.Limits.Name), ScopeVersion: r.clip(scope.GetVersion(), c.Limits.Name),
		ScopeAttributes: r.attributes(scope.GetAttributes(), c.Limits), ScopeSchema: r.clip(in.GetSchemaUrl(), c.Limits.Name),
	}
	shared := rowSize + sizeOf(src.Resource) + sizeOf(src.ScopeAttributes)
	for _, rec := range in.GetLogRecords() {
		r.Received++
		if len(r.Logs) >= c.Limits.Logs { // before anything is made of it: an empty record is two bytes of a message
			r.Dropped[TooManyLogs]++
			continue
		}
		row, reason := c.log(r, src, rec, now)
		if size := shared + sizeOf(row.Attributes) + int64(len(row.Body)); reason == "" && r.Size+size > c.Limits.LogBytes {
			reason = TooManyLogs
		} else if reason == "" {
			r.Size += size
		}
		if reason != "" {
			r.Dropped[reason]++
			continue
		}
		r.Logs = append(r.Logs, row)
	}
}

// log is one row, or the reason why there is none. A record without a time, which is
// allowed, has that of its arrival.
func (c Converter) log(r *Result, src store.LogSource, rec *logsv1.LogRecord, now time.Time) (store.Log, Reason) {
	at, ok := nano(cmp.Or(rec.GetTimeUnixNano(), rec.GetObservedTimeUnixNano()))
	if !ok {
		at = now.UTC()
	}
	if reason, late := c.late(at, now); late {
		return store.Log{}, reason
	}
	row := store.Log{
		Timestamp: at, TraceID: r.idOf(rec.GetTraceId(), 16), SpanID: r.idOf(rec.GetSpanId(), 8), Flags: rec.GetFlags(),
		Severity: int32(min(max(rec.GetSeverityNumber(), 0), 24)), SeverityText: r.clip(rec.GetSeverityText(), c.Limits.Name),
		Source: src, Body: r.clip(text(rec.GetBody()), c.Limits.Body), Attributes: r.attributes(rec.GetAttributes(), c.Limits), Event: r.clip(rec.GetEventName(), c.Limits.Name),
	}
	either := func(key string) string { return cmp.Or(row.Attributes[key], src.Resource[key]) }
	row.Traffic = c.placeLoosely(row.TraceID, either)
	row.Traffic.Pool = r.clip(either(semconv.Pool), c.Limits.Name)
	return row, ""
}

// idOf is an id that a record may have, in hex; empty where there is none.
func (r *Result) idOf(b []byte, n int) string {
	if len(b) == 0 {
		return ""
	}
	s, ok := id(b, n)
	if !ok {
		r.Cut[CutTrace]++
	}
	return s
}
