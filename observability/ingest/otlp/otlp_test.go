package otlp

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	logsv1 "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/store"
)

const (
	coloredTrace = "f3aa1c20c4a9e6f0d1b2c3d4e5f60718"
	spanID       = "00f067aa0ba902b7"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func converter() Converter {
	return Converter{Limits: DefaultLimits(), Env: "default", Tenant: "default"}
}

func str(s string) *commonv1.AnyValue {
	return &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: s}}
}

func pairs(kv ...string) []*commonv1.KeyValue {
	var out []*commonv1.KeyValue
	for i := 0; i < len(kv); i += 2 {
		out = append(out, &commonv1.KeyValue{Key: kv[i], Value: str(kv[i+1])})
	}
	return out
}

func bin(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func span(edit func(*tracev1.Span)) *tracev1.Span {
	s := &tracev1.Span{
		TraceId: bin(coloredTrace), SpanId: bin(spanID), ParentSpanId: bin("0000000000000001"), Name: "store message", Kind: tracev1.Span_SPAN_KIND_SERVER,
		StartTimeUnixNano: uint64(now.UnixNano()), EndTimeUnixNano: uint64(now.Add(time.Second).UnixNano()),
	}
	if edit != nil {
		edit(s)
	}
	return s
}

func tracesOf(resource []*commonv1.KeyValue, spans ...*tracev1.Span) *collectortrace.ExportTraceServiceRequest {
	return &collectortrace.ExportTraceServiceRequest{ResourceSpans: []*tracev1.ResourceSpans{{
		Resource: &resourcev1.Resource{Attributes: resource}, ScopeSpans: []*tracev1.ScopeSpans{{Scope: &commonv1.InstrumentationScope{Name: "lib", Version: "1"}, Spans: spans}},
	}}}
}

func convert(t *testing.T, c Converter, req *collectortrace.ExportTraceServiceRequest, now time.Time) *Result {
	t.Helper()
	raw, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Traces(string(raw), now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTracesConvertsASpan(t *testing.T) {
	r := convert(t, converter(), tracesOf(pairs("service.name", "core", "traffic.pool", "canary"), span(func(s *tracev1.Span) {
		s.Attributes = append(pairs("traffic.env", "canary", "traffic.tenant", "payment", "http.route", "ws send"),
			&commonv1.KeyValue{Key: "traffic.entry", Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_BoolValue{BoolValue: true}}})
		s.Status = &tracev1.Status{Code: tracev1.Status_STATUS_CODE_ERROR, Message: "boom"}
		s.Events = []*tracev1.Span_Event{{TimeUnixNano: uint64(now.UnixNano()), Name: "retry", Attributes: pairs("n", "1")}}
		s.Links = []*tracev1.Span_Link{{TraceId: bin(coloredTrace), SpanId: bin(spanID)}, {TraceId: []byte{1}}}
	})), now)
	want := store.Span{
		Timestamp: now, TraceID: coloredTrace, SpanID: spanID, ParentSpanID: "0000000000000001", Name: "store message", Kind: "Server", Service: "core",
		Resource: map[string]string{"service.name": "core", "traffic.pool": "canary"}, ScopeName: "lib", ScopeVersion: "1",
		Attributes: map[string]string{"traffic.env": "canary", "traffic.tenant": "payment", "http.route": "ws send", "traffic.entry": "true"},
		Duration:   time.Second, Status: "Error", StatusText: "boom",
		Events:  []store.Event{{Timestamp: now, Name: "retry", Attributes: map[string]string{"n": "1"}}},
		Links:   []store.Link{{TraceID: coloredTrace, SpanID: spanID, Attributes: map[string]string{}}},
		Traffic: store.Traffic{Group: "127d33", Color: 0xf3aa1c20, Env: "canary", Tenant: "payment", Service: "core", Pool: "canary", Route: "ws send", Entry: true},
	}
	if diff := cmp.Diff([]store.Span{want}, r.Spans); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[Cut]int{CutLinks: 1}, r.Cut); diff != "" {
		t.Errorf("cut (-want +got):\n%s", diff)
	}
}

func TestTracesDropsWhatHasNoIdentityOrTime(t *testing.T) {
	for _, tc := range []struct {
		name   string
		edit   func(*tracev1.Span)
		reason Reason
	}{
		{"zero trace id", func(s *tracev1.Span) { s.TraceId = make([]byte, 16) }, BadTraceID},
		{"short trace id", func(s *tracev1.Span) { s.TraceId = []byte{1, 2} }, BadTraceID},
		{"no span id", func(s *tracev1.Span) { s.SpanId = nil }, BadSpanID},
		{"long span id", func(s *tracev1.Span) { s.SpanId = make([]byte, 9) }, BadSpanID},
		{"no start", func(s *tracev1.Span) { s.StartTimeUnixNano = 0 }, TooOld},
		{"start beyond time", func(s *tracev1.Span) { s.StartTimeUnixNano = 1 << 63 }, TooOld},
		{"too old", func(s *tracev1.Span) { s.StartTimeUnixNano = uint64(now.Add(-73 * time.Hour).UnixNano()) }, TooOld},
		{"in the future", func(s *tracev1.Span) { s.StartTimeUnixNano = uint64(now.Add(11 * time.Minute).UnixNano()) }, InFuture},
	} {
		r := convert(t, converter(), tracesOf(nil, span(nil), span(tc.edit)), now)
		if len(r.Spans) != 1 || r.Received != 2 || r.Dropped[tc.reason] != 1 {
			t.Errorf("%s: stored %d, dropped %v; want one each, reason %s", tc.name, len(r.Spans), r.Dropped, tc.reason)
		}
	}
}

func TestGroupOfASpan(t *testing.T) {
	for _, tc := range []struct {
		name, color, env, tenant string
		want                     group.Group
	}{
		{"color stated", "00000007", "canary", "payment", group.Group{Color: 7, Env: "canary", Tenant: "payment"}},
		{"baseline stated", "00000000", "canary", "payment", group.Group{Env: "canary", Tenant: "payment"}},
		{"named by the edge", "", "canary", "payment", group.Group{Color: 0xf3aa1c20, Env: "canary", Tenant: "payment"}},
		{"nothing known: a random id is no group", "", "", "", group.Group{Env: "default", Tenant: "default"}},
		{"env only", "xyz", "canary", "", group.Group{Color: 0xf3aa1c20, Env: "canary", Tenant: "default"}},
		{"unusable names", "", "a|b", "x y", group.Group{Env: "default", Tenant: "default"}},
		{"too long a name", "", strings.Repeat("x", 65), "", group.Group{Env: "default", Tenant: "default"}},
	} {
		r := convert(t, converter(), tracesOf(nil, span(func(s *tracev1.Span) {
			s.Attributes = pairs("traffic.color", tc.color, "traffic.env", tc.env, "traffic.tenant", tc.tenant)
		})), now)
		got := r.Spans[0].Traffic
		if got.Group != tc.want.ID() || got.Color != tc.want.Color || got.Env != tc.want.Env || got.Tenant != tc.want.Tenant {
			t.Errorf("%s: traffic = %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

func TestLimits(t *testing.T) {
	c := converter()
	c.Limits.Attributes, c.Limits.Value, c.Limits.Key, c.Limits.Name, c.Limits.Events = 2, 5, 3, 4, 1
	r := convert(t, c, tracesOf(nil, span(func(s *tracev1.Span) {
		s.Name = "abcdef"
		s.Attributes = pairs("a", "123456", "abcdef", "éééé", "third", "x")
		s.Events = []*tracev1.Span_Event{{}, {}}
		s.ParentSpanId = []byte{1}
		s.EndTimeUnixNano = s.StartTimeUnixNano - 1
	})), now)
	got := r.Spans[0]
	if diff := cmp.Diff(map[string]string{"a": "12345", "abc": "éé"}, got.Attributes); diff != "" || got.Name != "abcd" || len(got.Events) != 1 || got.ParentSpanID != "" || got.Duration != 0 {
		t.Errorf("row = %+v, %s", got, diff)
	}
	if diff := cmp.Diff(map[Cut]int{CutText: 4 + 1, CutAttributes: 1, CutEvents: 1, CutParent: 1, CutDuration: 1}, r.Cut); diff != "" {
		t.Errorf("cut (-want +got):\n%s", diff)
	}
}

func TestText(t *testing.T) {
	list := func(v ...*commonv1.AnyValue) *commonv1.AnyValue {
		return &commonv1.AnyValue{Value: &commonv1.AnyValue_ArrayValue{ArrayValue: &commonv1.ArrayValue{Values: v}}}
	}
	deep := str("x")
	for range 100 {
		deep = list(deep)
	}
	for _, tc := range []struct {
		v    *commonv1.AnyValue
		want string
	}{
		{nil, ""},
		{&commonv1.AnyValue{}, ""},
		{&commonv1.AnyValue{Value: &commonv1.AnyValue_IntValue{IntValue: -5}}, "-5"},
		{&commonv1.AnyValue{Value: &commonv1.AnyValue_DoubleValue{DoubleValue: 0.5}}, "0.5"},
		{&commonv1.AnyValue{Value: &commonv1.AnyValue_BytesValue{BytesValue: []byte{1, 2}}}, "AQI="},
		{list(str("a"), nil, &commonv1.AnyValue{Value: &commonv1.AnyValue_KvlistValue{KvlistValue: &commonv1.KeyValueList{Values: pairs("k", "v")}}}), `["a",null,{"k":"v"}]`},
		{deep, "[[[[[[[[null]]]]]]]]"},
	} {
		if got := text(tc.v); got != tc.want {
			t.Errorf("text(%v) = %s, want %s", tc.v, got, tc.want)
		}
		raw, err := proto.Marshal(tc.v)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := anyText(string(raw)); got != tc.want || err != nil {
			t.Errorf("from the wire: %s, %v; want %s", got, err, tc.want)
		}
	}
}

func edgeLog(name string, attrs ...string) *collectorlogs.ExportLogsServiceRequest {
	return &collectorlogs.ExportLogsServiceRequest{ResourceLogs: []*logsv1.ResourceLogs{{
		Resource:  &resourcev1.Resource{Attributes: pairs("log_name", name, "service.name", "edge")},
		ScopeLogs: []*logsv1.ScopeLogs{{LogRecords: []*logsv1.LogRecord{{TimeUnixNano: uint64(now.Add(-time.Minute).UnixNano()), Attributes: pairs(attrs...)}}}},
	}}}
}

// served is a record as controlplane/xds has Envoy write it.
func served(edits ...string) []string {
	m := []string{
		"traceparent", "00-" + coloredTrace + "-" + spanID + "-03", "traffic.group", "127d33", "baggage", "traffic.env=canary,traffic.tenant=payment,x=y",
		"http.request.method", "POST", "url.path", "/v1/me", "http.route", "core", "http.response.status_code", "200", "server.address", "payment.local",
		"upstream.cluster", "core.canary", "upstream.host", "127.0.0.1:9102", "traffic.pool", "canary", "response.flags", "-",
		"start_time", "1772366399.123456789", "duration_us", "1500", "upgrade", "-",
	}
	for i := 0; i < len(edits); i += 2 {
		for j := 0; j < len(m); j += 2 {
			if m[j] == edits[i] {
				m[j+1] = edits[i+1]
			}
		}
	}
	return m
}

func fixed(n int) []byte { return bytes.Repeat([]byte{0xab}, n) }

func TestLogsMakesASpanOfTheEdge(t *testing.T) {
	r, _ := converter().Logs(edgeLog(EdgeLog, served()...), now, fixed)
	want := store.Span{
		Timestamp: time.Unix(1772366399, 123456789).UTC(), TraceID: coloredTrace, SpanID: spanID, Name: "POST core", Kind: "Server", Service: "edge",
		Resource: map[string]string{"log_name": EdgeLog, "service.name": "edge"}, ScopeName: EdgeLog, Duration: 1500 * time.Microsecond, Status: "Unset",
		Attributes: map[string]string{
			"traffic.group": "127d33", "http.request.method": "POST", "url.path": "/v1/me", "http.route": "core", "http.response.status_code": "200",
			"server.address": "payment.local", "upstream.cluster": "core.canary", "upstream.host": "127.0.0.1:9102", "traffic.pool": "canary", "duration_us": "1500",
		},
		Traffic: store.Traffic{Group: "127d33", Color: 0xf3aa1c20, Env: "canary", Tenant: "payment", Service: "core", Pool: "canary", Route: "core", Entry: true},
	}
	if diff := cmp.Diff([]store.Span{want}, r.Spans); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if len(r.Cut) != 0 {
		t.Errorf("cut = %v, want nothing", r.Cut)
	}
}

func TestEdgeSpans(t *testing.T) {
	baseline := group.Group{Env: "default", Tenant: "default"}.ID()
	for _, tc := range []struct {
		name  string
		attrs []string
		check func(store.Span) bool
		cut   Cut
	}{
		{"an upgrade is no entry", served("http.response.status_code", "101", "upgrade", "websocket"), func(s store.Span) bool { return !s.Traffic.Entry }, ""},
		{"a refused upgrade is one", served("http.response.status_code", "503", "upgrade", "websocket"), func(s store.Span) bool { return s.Traffic.Entry && s.Status == "Error" }, ""},
		{"no upstream", served("http.response.status_code", "503", "upstream.host", "-", "traffic.pool", "-", "response.flags", "UH"),
			func(s store.Span) bool {
				return s.Status == "Error" && s.StatusText == "UH" && s.Traffic.Pool == "" && s.Traffic.Service == "core"
			}, ""},
		{"no route", served("http.response.status_code", "404", "upstream.cluster", "-", "upstream.host", "-", "traffic.pool", "-", "response.flags", "NR", "http.route", "-"),
			func(s store.Span) bool { return s.Status == "Unset" && s.Traffic.Service == "edge" && s.Name == "POST" }, ""},
		{"the client left", served("http.response.status_code", "0", "response.flags", "DC", "duration_us", "-"),
			func(s store.Span) bool { return s.Status == "Unset" && s.Duration == now.Sub(s.Timestamp) }, CutDuration},
		{"no response", served("http.response.status_code", "0", "response.flags", "UC"), func(s store.Span) bool { return s.Status == "Error" }, ""},
		{"a service that does not name its pool", served("traffic.pool", "-"), func(s store.Span) bool { return s.Traffic.Pool == "canary" }, ""},
		{"the filter did not run", served("traffic.group", "-"), func(s store.Span) bool {
			return s.Traffic.Group == baseline && s.Traffic.Color == group.Baseline && s.TraceID == coloredTrace
		}, ""},
		{"no trace id", served("traceparent", "-", "traffic.group", "-"), func(s store.Span) bool {
			return s.TraceID == "00000000"+strings.Repeat("ab", 12) && s.SpanID == strings.Repeat("ab", 8) && s.Traffic.Group == baseline
		}, CutTrace},
		{"an upper-case trace id", served("traceparent", "00-"+strings.ToUpper(coloredTrace)+"-"+spanID+"-03"), func(s store.Span) bool { return s.TraceID != coloredTrace }, CutTrace},
		{"routed by another group", served("traffic.group", "aaaaaa"), func(s store.Span) bool { return s.Traffic.Group == "aaaaaa" }, CutGroup},
		{"no start time", served("start_time", "-"), func(s store.Span) bool { return s.Timestamp.Equal(now.Add(-time.Minute)) }, ""},
		{"a short fraction", served("start_time", "1772366399.5"), func(s store.Span) bool { return s.Timestamp.Equal(time.Unix(1772366399, 5e8)) }, ""},
		{"an odd method", served("http.request.method", "BREW"), func(s store.Span) bool { return s.Name == "HTTP core" }, ""},
	} {
		r, _ := converter().Logs(edgeLog(EdgeLog, tc.attrs...), now, fixed)
		if len(r.Spans) != 1 || !tc.check(r.Spans[0]) {
			t.Errorf("%s: rows = %+v", tc.name, r.Spans)
		}
		if tc.cut != "" && r.Cut[tc.cut] == 0 || tc.cut == "" && len(r.Cut) > 0 {
			t.Errorf("%s: cut = %v, want %q", tc.name, r.Cut, tc.cut)
		}
	}
	r, other := converter().Logs(edgeLog("another", served()...), now, fixed)
	if len(r.Spans) != 0 || len(other.Logs) != 1 || other.Received != 1 {
		t.Errorf("another log: spans %v, records %v", r.Spans, other.Logs)
	}
}

// TestEnvoyRecords converts what a real Envoy 1.40 sent for four requests: answered,
// upstream refused, no route, and client gone after 0.3 s.
func TestEnvoyRecords(t *testing.T) {
	raw, err := os.ReadFile("testdata/envoy_1.40.json")
	if err != nil {
		t.Fatal(err)
	}
	var req collectorlogs.ExportLogsServiceRequest
	if err := protojson.Unmarshal(raw, &req); err != nil {
		t.Fatal(err)
	}
	r, _ := converter().Logs(&req, time.Unix(1795510092, 0), fixed)
	var got []string
	for _, s := range r.Spans {
		got = append(got, fmt.Sprintf("%s %s %s code=%s status=%s%s served by %q pool %q entry=%v took %s", s.TraceID[:8], s.Traffic.Group, s.Name,
			s.Attributes["http.response.status_code"], s.Status, s.StatusText, s.Traffic.Service, s.Traffic.Pool, s.Traffic.Entry, s.Duration))
	}
	want := []string{
		`f3aa1c20 127d33 POST core code=200 status=Unset served by "core" pool "canary" entry=true took 2.901ms`,
		`00000000 187304 GET dead code=503 status=ErrorUF served by "core" pool "" entry=true took 445µs`,
		`00000000 187304 GET code=404 status=Unset served by "edge" pool "" entry=true took 93µs`,
		`f3aa1c20 187304 GET core code=0 status=Unset served by "core" pool "" entry=true took 305ms`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}

// FuzzTraces and FuzzLogs take any message that parses: nothing may panic, everything is
// accounted for, and what is stored fits the columns.
func FuzzTraces(f *testing.F) {
	add := func(m proto.Message) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	add(tracesOf(pairs("service.name", "core"), span(nil)))
	add(tracesOf(nil, span(func(s *tracev1.Span) { s.TraceId, s.Events = nil, []*tracev1.Span_Event{{}} })))
	add(&collectortrace.ExportTraceServiceRequest{ResourceSpans: []*tracev1.ResourceSpans{{}}})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := converter().Traces(string(raw), now)
		if err == nil {
			check(t, r)
		}
		var req collectortrace.ExportTraceServiceRequest
		if proto.Unmarshal(raw, &req) != nil {
			return
		}
		if err != nil {
			t.Fatalf("protobuf reads it, we do not: %v", err)
		}
		n := 0
		for _, rs := range req.GetResourceSpans() {
			for _, ss := range rs.GetScopeSpans() {
				n += len(ss.GetSpans())
			}
		}
		if r.Received != n {
			t.Errorf("received %d spans of %d", r.Received, n)
		}
	})
}

// TestMalformedTraces cuts a message at every place: none may panic, and what is not
// protobuf is an error.
func TestMalformedTraces(t *testing.T) {
	raw, err := proto.Marshal(tracesOf(pairs("service.name", "core"), span(nil)))
	if err != nil {
		t.Fatal(err)
	}
	for n := range raw {
		if _, err := converter().Traces(string(raw[:n]), now); err == nil && proto.Unmarshal(raw[:n], &collectortrace.ExportTraceServiceRequest{}) != nil {
			t.Errorf("the first %d bytes are read", n)
		}
	}
	if _, err := converter().Traces(string(raw)+"\x0b", now); err == nil {
		t.Error("a group without an end is read")
	}
	bad := tracesOf(nil, span(nil))
	raw, err = proto.Marshal(bad)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := converter().Traces(strings.Replace(string(raw), "store", "st\xffre", 1), now); err == nil {
		t.Error("a name that is not UTF-8 is read")
	}
}

func FuzzLogs(f *testing.F) {
	b, err := proto.Marshal(edgeLog(EdgeLog, served()...))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, "", "")
	f.Add(b, "start_time", "1.1")
	f.Add(b, "baggage", "traffic.env=%,;=")
	f.Fuzz(func(t *testing.T, raw []byte, key, value string) {
		var req collectorlogs.ExportLogsServiceRequest
		if proto.Unmarshal(raw, &req) != nil {
			return
		}
		for _, m := range []*collectorlogs.ExportLogsServiceRequest{&req, edgeLog(EdgeLog, served(key, value)...), edgeLog(key, served(key, value)...)} {
			edge, logs := converter().Logs(m, now, fixed)
			check(t, edge)
			checkLogs(t, logs)
		}
	})
}

func check(t *testing.T, r *Result) {
	t.Helper()
	if r.Received != len(r.Spans)+r.Rejected() {
		t.Errorf("received %d, stored %d, dropped %v", r.Received, len(r.Spans), r.Dropped)
	}
	for _, s := range r.Spans {
		if len(s.TraceID) != 32 || len(s.SpanID) != 16 || !s.Traffic.Group.Valid() || s.Duration < 0 ||
			s.Timestamp.Before(now.Add(-72*time.Hour)) || s.Timestamp.After(now.Add(10*time.Minute)) ||
			len(s.Name) > 300 || len(s.Service) > 256 || len(s.Attributes) > 128 || !named(s.Traffic.Env) || !named(s.Traffic.Tenant) {
			t.Errorf("row does not fit: %+v", s)
		}
	}
}
