package store

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/observability/contrast"
)

func TestSelf(t *testing.T) {
	span := func(id, parent string, from, took int) Span {
		return Span{SpanID: id, ParentSpanID: parent, Timestamp: time.UnixMilli(int64(from)), Duration: time.Duration(took) * time.Millisecond}
	}
	for _, tc := range []struct {
		name  string
		spans []Span
		want  int // milliseconds of the first span's own
	}{
		{"alone", []Span{span("a", "", 0, 100)}, 100},
		{"one child", []Span{span("a", "", 0, 100), span("b", "a", 10, 30)}, 70},
		{"children overlap", []Span{span("a", "", 0, 100), span("b", "a", 10, 30), span("c", "a", 20, 40)}, 50},
		{"a child in another's time", []Span{span("a", "", 0, 100), span("b", "a", 10, 80), span("c", "a", 20, 10)}, 20},
		{"a child that goes on", []Span{span("a", "", 0, 100), span("b", "a", 90, 500)}, 90},
		{"a child that begins later", []Span{span("a", "", 0, 100), span("b", "a", 200, 50)}, 100},
		{"a child whose clock is behind", []Span{span("a", "", 50, 100), span("b", "a", 0, 80)}, 70},
		{"a grandchild", []Span{span("a", "", 0, 100), span("b", "a", 0, 50), span("c", "b", 0, 50)}, 50},
	} {
		if got := Tree(tc.spans)[0].Self; got != time.Duration(tc.want)*time.Millisecond {
			t.Errorf("%s: self %s, want %d ms", tc.name, got, tc.want)
		}
	}
}

func TestHop(t *testing.T) {
	for want, s := range map[string]Span{
		"edge":              {Service: "edge", Kind: "Server"},
		"server":            {Service: "core", Kind: "Server"},
		"kafka publish":     {Kind: "Producer", Attributes: map[string]string{"messaging.system": "kafka", "messaging.operation": "publish"}},
		"kafka receive":     {Kind: "Consumer", Attributes: map[string]string{"messaging.system": "kafka", "messaging.operation.type": "receive", "messaging.operation": "poll"}},
		"kafka process":     {Kind: "Consumer", Attributes: map[string]string{"messaging.system": "kafka"}},
		"postgresql INSERT": {Kind: "Client", Attributes: map[string]string{"db.system.name": "postgresql", "db.operation.name": "INSERT"}},
		"sqlite":            {Kind: "Client", Attributes: map[string]string{"db.system": "sqlite"}},
	} {
		if got := Hop(s); got != want {
			t.Errorf("hop %q, want %q", got, want)
		}
	}
}

func TestFeatures(t *testing.T) {
	start := time.UnixMilli(0)
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	got := Features([]Span{
		{
			SpanID: "1", Timestamp: start, Duration: ms(700), Service: "edge", Kind: "Server", Resource: map[string]string{"service.name": "edge", "log_name": "edge_access"},
			Attributes: map[string]string{"http.response.status_code": "200", "traffic.group": "abcdef", "upstream.host": "10.0.0.7:80", "duration_ms": "700", "http.route": "/r"},
			Traffic:    Traffic{Entry: true, Pool: "canary", Route: "/r", Service: "core"},
		},
		{SpanID: "2", ParentSpanID: "1", Timestamp: start, Duration: ms(690), Service: "core", Kind: "Server", Resource: map[string]string{"service.version": "2", "telemetry.sdk.name": "x"}},
		{SpanID: "3", ParentSpanID: "2", Timestamp: start, Duration: ms(650), Service: "core", Kind: "Client", Attributes: map[string]string{"db.system": "postgresql", "server.address": "db1"}},
		{SpanID: "4", ParentSpanID: "2", Timestamp: start.Add(ms(650)), Duration: ms(2), Service: "core", Kind: "Client", Attributes: map[string]string{"db.system": "postgresql", "server.address": "db1"}},
		{SpanID: "5", ParentSpanID: "2", Timestamp: start.Add(ms(652)), Duration: ms(5), Status: "Error", Service: "core", Kind: "Producer", Attributes: map[string]string{"messaging.system": "kafka", "messaging.destination.name": "messages"}},
	})
	want := contrast.Sample{
		"pool": "canary", "route": "/r", "service": "core", "http.response.status_code": "200", "upstream.host": "10.0.0.7:80",
		"edge: log_name": "edge_access", "core: service.version": "2",
		"dependency postgresql db1": "100 ms to 1 s", "dependency kafka publish messages": "an error", "slowest hop": "core postgresql db1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("features (-want +got):\n%s", diff)
	}
	if got := Features(nil); len(got) != 0 {
		t.Errorf("features of nothing: %v", got)
	}
}

func TestTraceQueryValidateNamesTheField(t *testing.T) {
	if err := (TraceQuery{Limit: 1}).Validate(); err != nil {
		t.Error(err)
	}
	many := map[string]string{}
	for i := range 9 {
		many[strings.Repeat("k", i+1)] = "v"
	}
	for word, q := range map[string]TraceQuery{
		"limit 0":    {},
		"limit 1001": {Limit: 1001},
		"attributes": {Limit: 1, Attributes: many},
		"name":       {Limit: 1, Attributes: map[string]string{"": "x"}},
		"text":       {Limit: 1, Route: strings.Repeat("x", 513)},
		"quality":    {Limit: 1, Quality: "odd"},
		"duration":   {Limit: 1, MinDuration: -1},
	} {
		if err := q.Validate(); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("error = %v, want one about %q", err, word)
		}
	}
}
