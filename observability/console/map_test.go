package console_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/observability/console"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

func call(caller, callerPool string, verb store.Verb, system, target, targetPool string, requests, errors uint64, took time.Duration) store.Call {
	return store.Call{
		Caller: caller, CallerPool: callerPool, Verb: verb, System: system, Target: target, TargetPool: targetPool,
		Requests: requests, Errors: errors, Latency: sli.NewHistogram(map[int16]uint64{sli.BucketOf(took): requests}),
	}
}

// exampleCalls are the product's own in half a minute, with one group isolated.
func exampleCalls() []store.Call {
	return []store.Call{
		call("edge", "", store.Serve, "", "core", "baseline", 2520, 0, 15*time.Millisecond),
		call("edge", "", store.Command, "", "core", "baseline", 1930, 0, 6*time.Millisecond),
		call("edge", "", store.Serve, "", "core", "isolated", 310, 96, 412*time.Millisecond),
		call("edge", "", store.Serve, "", "core", "", 4, 4, 2*time.Millisecond),
		call("core", "baseline", store.Publish, "kafka", "messages", "", 900, 0, 4*time.Millisecond),
		call("core", "isolated", store.Publish, "kafka", "messages", "", 61, 0, 5*time.Millisecond),
		call("core", "baseline", store.Receive, "kafka", "messages", "", 961, 0, time.Millisecond),
		call("core", "baseline", store.Process, "kafka", "messages", "", 961, 1, 9*time.Millisecond),
		call("core", "baseline", store.Query, "postgresql", "chat", "", 4200, 0, 2*time.Millisecond),
		call("core", "isolated", store.Query, "postgresql", "chat", "", 290, 0, 390*time.Millisecond),
		call("core", "baseline", store.Invoke, "", "push.shop.svc.cluster.local", "", 120, 2, 35*time.Millisecond),
		call("core", "baseline", store.Invoke, "", "api.example.com", "", 12, 0, 140*time.Millisecond),
		call("push", "", store.Query, "redis", "", "", 120, 0, time.Millisecond),
	}
}

func TestServiceMap(t *testing.T) {
	m := console.NewServiceMap(exampleCalls(), 3, 30*time.Second)
	parts, links := []string{}, []string{}
	for _, p := range m.Parts {
		parts = append(parts, fmt.Sprintf("%d %s %s %q", p.Depth, p.ID, p.Name, p.Pools))
	}
	for _, l := range m.Links {
		links = append(links, fmt.Sprintf("%s[%s] %s %s[%s] %.1f/s %d bad %.0f ms", l.From, l.FromPool, l.Verb, l.To, l.ToPool, l.QPS, l.Errors, l.P95))
	}
	wantParts := []string{
		`0 edge edge []`,
		`1 service:core core ["baseline" "isolated" ""]`,
		`2 database:postgresql/chat chat []`,
		`2 outside:api.example.com api.example.com []`,
		`2 queue:kafka/messages messages []`,
		`2 service:push push []`,
		`3 database:redis/ redis []`,
	}
	if diff := cmp.Diff(wantParts, parts); diff != "" {
		t.Errorf("parts (-want +got):\n%s", diff)
	}
	wantLinks := []string{
		"service:core[baseline] query database:postgresql/chat[] 140.0/s 0 bad 2 ms",
		"edge[] serve service:core[baseline] 84.0/s 0 bad 15 ms",
		"edge[] command service:core[baseline] 64.3/s 0 bad 6 ms",
		"queue:kafka/messages[] process service:core[baseline] 32.0/s 1 bad 9 ms",
		"service:core[baseline] publish queue:kafka/messages[] 30.0/s 0 bad 4 ms",
		"edge[] serve service:core[isolated] 10.3/s 96 bad 414 ms",
		"service:core[isolated] query database:postgresql/chat[] 9.7/s 0 bad 396 ms",
		"service:core[baseline] call service:push[] 4.0/s 2 bad 35 ms",
		"service:push[] query database:redis/[] 4.0/s 0 bad 1 ms",
		"service:core[isolated] publish queue:kafka/messages[] 2.0/s 0 bad 5 ms",
		"service:core[baseline] call outside:api.example.com[] 0.4/s 0 bad 140 ms",
		"edge[] serve service:core[] 0.1/s 4 bad 2 ms",
	}
	if diff := cmp.Diff(wantLinks, links); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	if m.LeftOut != 3 || m.Seconds != 30 {
		t.Errorf("left out %d of %v s", m.LeftOut, m.Seconds)
	}
}

// TestServiceMapIsBounded: of a thousand links the most frequent are shown, and every part
// has its place even where all call each other.
func TestServiceMapIsBounded(t *testing.T) {
	var calls []store.Call
	for i := range 1000 {
		calls = append(calls, call(fmt.Sprintf("s%03d", i%50), "", store.Invoke, "", fmt.Sprintf("s%03d", (i*7+1)%50), "", uint64(1+i%97), 0, time.Millisecond))
	}
	m := console.NewServiceMap(calls, 0, 30*time.Second)
	if len(m.Links) != 60 || m.LeftOut != 940 || m.Links[0].Requests != 97 || len(m.Parts) > 50 {
		t.Errorf("%d links, %d parts, %d left out", len(m.Links), len(m.Parts), m.LeftOut)
	}
	known := map[string]bool{}
	for _, p := range m.Parts {
		known[p.ID] = true
	}
	for _, l := range m.Links {
		if !known[l.From] || !known[l.To] {
			t.Errorf("%s to %s: a part is missing", l.From, l.To)
		}
	}
	if empty := console.NewServiceMap(nil, 0, time.Second); empty.Parts == nil || len(empty.Links) != 0 {
		t.Errorf("nothing: %+v", empty)
	}
}
