package otlp

import (
	"cmp"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/baggage"
	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	logsv1 "go.opentelemetry.io/proto/otlp/logs/v1"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/store"
)

// EdgeLog is the log_name of the edge's access log (controlplane/xds writes it).
const EdgeLog = "edge_access"

// none is what Envoy writes for a value it does not have.
const none = "-"

// Random gives n random bytes.
type Random func(n int) []byte

// Logs turns records of the edge's access log into spans of service edge, and others into
// rows of logs.
func (c Converter) Logs(req *collectorlogs.ExportLogsServiceRequest, now time.Time, random Random) (edge, logs *Result) {
	edge, logs = newResult(Traces), newResult(Logs)
	for _, rl := range req.GetResourceLogs() {
		resource := logs.attributes(rl.GetResource().GetAttributes(), c.Limits)
		for _, sl := range rl.GetScopeLogs() {
			if resource["log_name"] != EdgeLog && sl.GetScope().GetName() != EdgeLog {
				c.logs(logs, resource, rl.GetSchemaUrl(), sl, now)
				continue
			}
			for _, rec := range sl.GetLogRecords() {
				edge.Received++
				row, reason := c.edge(edge, resource, rec, now, random)
				if reason != "" {
					edge.Dropped[reason]++
					continue
				}
				edge.Spans = append(edge.Spans, row)
			}
		}
	}
	return edge, logs
}

// edge is the span of one request as the edge saw it. Its id is that of traceparent as
// the filter left it, so the span of the service behind is its child.
func (c Converter) edge(r *Result, resource map[string]string, rec *logsv1.LogRecord, now time.Time, random Random) (store.Span, Reason) {
	attrs := r.attributes(rec.GetAttributes(), c.Limits)
	for k, v := range attrs {
		if v == none {
			delete(attrs, k)
		}
	}
	start, ok := seconds(attrs["start_time"])
	if !ok {
		start, ok = nano(cmp.Or(rec.GetTimeUnixNano(), rec.GetObservedTimeUnixNano()))
	}
	if !ok {
		start = now
	}
	if reason, late := c.late(start, now); late {
		return store.Span{}, reason
	}
	traceID, spanID, ok := parseTraceparent(attrs[semconv.HeaderTraceparent])
	if !ok { // the request was served all the same and must be counted
		r.Cut[CutTrace]++
		traceID = group.Baseline.String() + hex.EncodeToString(random(12))
		spanID = hex.EncodeToString(random(8))
	}
	code, _ := strconv.Atoi(attrs["http.response.status_code"])
	route := r.clip(attrs[httpRoute], c.Limits.Name)
	row := store.Span{
		Timestamp: start, TraceID: traceID, SpanID: spanID, Name: strings.TrimSpace(method(attrs["http.request.method"]) + " " + route), Kind: "Server",
		Service: semconv.ServiceEdge, Resource: resource, ScopeName: EdgeLog, Duration: r.edgeDuration(attrs, start, now),
		Status: edgeStatus(code, attrs["response.flags"]), Traffic: c.edgeTraffic(r, traceID, attrs),
	}
	if row.Status == "Error" {
		row.StatusText = attrs["response.flags"]
	}
	row.Traffic.Route = route
	row.Traffic.Entry = code != http.StatusSwitchingProtocols
	for _, k := range []string{semconv.HeaderTraceparent, "start_time", "baggage"} { // columns have them
		delete(attrs, k)
	}
	row.Attributes = attrs
	return row, ""
}

// edgeTraffic says whose request it was and who served it. A request without a group
// passed the edge without its filter and is baseline, whatever trace id its client sent.
func (c Converter) edgeTraffic(r *Result, traceID string, attrs map[string]string) store.Traffic {
	t := c.place("", "", "", "")
	if id := group.ID(attrs[semconv.Group]); id.Valid() {
		env, tenant := members(attrs["baggage"])
		t = c.place(traceID, "", env, tenant)
		if t.Group != id { // what the edge routed by counts
			r.Cut[CutGroup]++
			t.Group = id
		}
	}
	service, clusterPool, _ := strings.Cut(attrs["upstream.cluster"], ".")
	t.Service = r.clip(cmp.Or(service, semconv.ServiceEdge), c.Limits.Name)
	t.Pool = r.clip(attrs[semconv.Pool], c.Limits.Name)
	if t.Pool == "" && attrs["upstream.host"] != "" && attrs["response.flags"] == "" {
		t.Pool = r.clip(clusterPool, c.Limits.Name) // a service that does not name its pool
	}
	return t
}

// members reads env and tenant from baggage.
func members(header string) (env, tenant string) {
	b, err := baggage.Parse(header)
	if err != nil {
		return "", ""
	}
	return b.Member(semconv.Env).Value(), b.Member(semconv.Tenant).Value()
}

// edgeStatus calls an error what is the service's fault: 5xx, and no response at all
// unless the client went away first (flag DC).
func edgeStatus(code int, flags string) string {
	if code >= 500 || code == 0 && !strings.Contains(flags, "DC") {
		return "Error"
	}
	return "Unset"
}

// edgeDuration is in microseconds, or in milliseconds where Envoy had no end of the
// response to measure to because the client had gone. Without either it is the time
// until now, which is too long by what the record took to come here; zero would make a
// service that hangs look fast.
func (r *Result) edgeDuration(attrs map[string]string, start, now time.Time) time.Duration {
	for _, f := range []struct {
		key  string
		unit time.Duration
	}{{"duration_us", time.Microsecond}, {"duration_ms", time.Millisecond}} {
		if n, err := strconv.ParseInt(attrs[f.key], 10, 64); err == nil && n >= 0 && n < int64(30*24*time.Hour/f.unit) {
			return time.Duration(n) * f.unit
		}
	}
	r.Cut[CutDuration]++
	return max(0, now.Sub(start))
}

// method keeps span names few, as OpenTelemetry asks: unknown methods are HTTP.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return m
	}
	return "HTTP"
}

// seconds reads "<seconds>.<nanoseconds, 9 digits>" without the loss of a float.
func seconds(s string) (time.Time, bool) {
	whole, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || sec <= 0 || sec > 1<<33 || len(frac) > 9 {
		return time.Time{}, false
	}
	var ns int64
	if frac != "" {
		n, err := strconv.ParseUint(frac+strings.Repeat("0", 9-len(frac)), 10, 32)
		if err != nil {
			return time.Time{}, false
		}
		ns = int64(n)
	}
	return time.Unix(sec, ns).UTC(), true
}

// parseTraceparent reads the ids of a W3C traceparent.
func parseTraceparent(s string) (traceID, spanID string, ok bool) {
	if len(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return "", "", false
	}
	traceID, spanID = s[3:35], s[36:52]
	for _, x := range []string{traceID, spanID} {
		b, err := hex.DecodeString(x)
		if err != nil || strings.ToLower(x) != x {
			return "", "", false
		}
		if _, ok := id(b, len(b)); !ok {
			return "", "", false
		}
	}
	return traceID, spanID, true
}
