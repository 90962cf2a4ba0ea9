package dashboards_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/console"
	"github.com/tracegate/tracegate/observability/dashboards"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

// waiting is a span that waits for another part.
type waiting struct {
	service, pool, kind string
	entry               bool
	attributes          map[string]string
	took                time.Duration
	status              string
}

// callSpans are of every verb, with a record that is received and processed, an address that is
// a service, one that is not, and targets without a name.
func callSpans() []waiting {
	kafka := func(operation string) map[string]string {
		return map[string]string{"messaging.system": "kafka", "messaging.destination.name": "messages", "messaging.operation.type": operation}
	}
	return []waiting{
		{"edge", "baseline", "Server", true, nil, 12 * time.Millisecond, "Ok"}, {"edge", "baseline", "Server", true, nil, 30 * time.Millisecond, "Ok"},
		{"edge", "canary", "Server", true, nil, 400 * time.Millisecond, "Error"}, {"edge", "", "Server", true, nil, time.Millisecond, "Error"},
		{"core", "baseline", "Server", true, nil, 3 * time.Millisecond, "Ok"}, // a command over an open socket
		{"core", "baseline", "Producer", false, kafka("send"), 5 * time.Millisecond, "Ok"},
		{"core", "baseline", "Consumer", false, kafka("receive"), time.Millisecond, "Ok"}, {"core", "baseline", "Consumer", false, kafka("process"), 9 * time.Millisecond, "Error"},
		{"push", "", "Consumer", false, kafka("receive"), time.Millisecond, "Ok"},
		{"core", "canary", "Client", false, map[string]string{"db.system.name": "postgresql", "db.namespace": "chat"}, 2 * time.Millisecond, "Ok"},
		{"push", "", "Client", false, map[string]string{"db.system.name": "redis"}, time.Millisecond, "Ok"},
		{"core", "baseline", "Client", false, map[string]string{"server.address": "push.shop.svc.cluster.local"}, 7 * time.Millisecond, "Ok"},
		{"core", "baseline", "Client", false, map[string]string{"server.address": "api.example.com"}, 140 * time.Millisecond, "Ok"},
		{"push", "", "Client", false, nil, 4 * time.Millisecond, "Ok"},
	}
}

func insert(t *testing.T, s *store.Store, at time.Time) {
	t.Helper()
	g := group.Group{Color: 7, Env: "prod", Tenant: "search"}
	spans := make([]store.Span, 0, len(callSpans()))
	for i, w := range callSpans() {
		spans = append(spans, store.Span{
			Timestamp: at, TraceID: fmt.Sprintf("%032x", i+1), SpanID: fmt.Sprintf("%016x", i+1), Name: "s", Kind: w.kind, Service: w.service, Status: w.status, Duration: w.took,
			Resource: map[string]string{"service.name": w.service}, Attributes: w.attributes,
			Traffic: store.Traffic{Group: g.ID(), Color: g.Color, Env: g.Env, Tenant: g.Tenant, Service: "core", Pool: w.pool, Route: "core", Entry: w.entry},
		})
	}
	if err := s.InsertSpans(t.Context(), "calls", spans); err != nil {
		t.Fatal(err)
	}
}

// edge is a line of the map.
type edge struct {
	Source, Target   string
	Requests, Errors uint64
	P95              float64
}

// TestServiceMapIsThatOfTheConsole: the same lines with the same figures, between nodes that
// are all there. Pools are nodes to Grafana and rows of a box to the console.
func TestServiceMapIsThatOfTheConsole(t *testing.T) {
	s, addr := migrated(t)
	now := time.Now().UTC().Truncate(store.CallStep)
	insert(t, s, now.Add(-time.Minute))
	calls, leftOut, err := s.Calls(t.Context(), sli.Window{From: now.Add(-2 * time.Minute), To: now})
	if err != nil || leftOut > 0 {
		t.Fatal(err, leftOut)
	}
	type answer[T any] struct{ Data []T }
	var edges answer[struct {
		ID, Source, Target string
		Requests           uint64  `json:"detail__requests,string"`
		Errors             uint64  `json:"detail__errors,string"`
		P95                float64 `json:"secondarystat"`
		Thickness          float64
	}]
	var nodes answer[struct {
		ID, Title, Subtitle string
		Good                float64 `json:"arc__good"`
		Bad                 float64 `json:"arc__bad"`
		Rate                float64 `json:"mainstat"`
	}]
	read(t, addr, replaced(dashboards.EdgesSQL, now), &edges)
	read(t, addr, replaced(dashboards.NodesSQL, now), &nodes)

	m := console.NewServiceMap(calls, 0, 15*time.Minute)
	parts := map[string]console.Part{}
	for _, p := range m.Parts {
		parts[p.ID] = p
	}
	id := func(part, pool string) string {
		p := parts[part]
		if p.System != "" {
			pool = p.System
		}
		return fmt.Sprintf("%s:%s/%s", p.Kind, p.Name, pool)
	}
	want, wantNodes := map[string]edge{}, map[string]bool{}
	for _, l := range m.Links {
		e := edge{id(l.From, l.FromPool), id(l.To, l.ToPool), l.Requests, l.Errors, l.P95}
		sum := want[e.Source+" "+e.Target]
		e.Requests, e.Errors, e.P95 = e.Requests+sum.Requests, e.Errors+sum.Errors, max(e.P95, sum.P95)
		want[e.Source+" "+e.Target] = e
		wantNodes[e.Source], wantNodes[e.Target] = true, true
	}
	got, gotNodes := map[string]edge{}, map[string]bool{}
	for _, e := range edges.Data {
		got[e.ID] = edge{e.Source, e.Target, e.Requests, e.Errors, e.P95}
		if e.Thickness < 1 || e.Thickness > 4 {
			t.Errorf("%s is %v thick", e.ID, e.Thickness)
		}
	}
	for _, n := range nodes.Data {
		gotNodes[n.ID] = true
		if n.Title == "" || n.Subtitle == "" || n.Rate <= 0 || n.Good+n.Bad < 0.999 || n.Good+n.Bad > 1.001 {
			t.Errorf("node %+v", n)
		}
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateApprox(0.02, 0.02)); diff != "" {
		t.Errorf("lines (-console +Grafana):\n%s", diff)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(wantNodes)), slices.Sorted(maps.Keys(gotNodes))); diff != "" {
		t.Errorf("parts (-console +Grafana):\n%s", diff)
	}
}

func read(t *testing.T, addr, sql string, into any) {
	t.Helper()
	raw, err := ask(t, addr, sql+" FORMAT JSON SETTINGS output_format_json_quote_64bit_integers = 1")
	if err != nil {
		t.Fatalf("%v\n%s", err, sql)
	}
	if err := json.Unmarshal([]byte(raw), into); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
}

// TestLinks: each leads from a column that its panel has; what it opens in Explore runs, and
// finds what was clicked; the rest are pages of the console, and dashboards that there are.
func TestLinks(t *testing.T) {
	s, addr := migrated(t)
	now := time.Now().UTC().Truncate(time.Second)
	insert(t, s, now.Add(-time.Minute))
	g := group.Group{Color: 7, Env: "prod", Tenant: "search"}
	values := map[string]string{"TrafficGroup": string(g.ID()), "TraceId": fmt.Sprintf("%032x", 1)}
	pages := map[string]string{"TrafficGroup": "${console:raw}/console/#/group/", "TraceId": "${console:raw}/console/#/trace/"}
	explored := map[string]int{}
	for _, b := range dashboards.All() {
		for _, r := range b.Rows {
			for _, p := range r.Panels {
				for _, l := range p.Links {
					if !strings.Contains(p.Queries[0].Text, l.Column) || values[l.Column] == "" {
						t.Errorf("%s: a link from %s, which is no column", p.Title, l.Column)
					}
					to := strings.NewReplacer("${__value.raw}", values[l.Column], "${__from}", "1", "${__to}", "2").Replace(l.URL)
					u, err := url.Parse(to)
					switch {
					case strings.HasPrefix(l.URL, pages[l.Column]), strings.HasPrefix(l.URL, "/d/tracegate-groups?"):
					case err != nil || u.Path != "/explore":
						t.Errorf("%s: a link to %s, %v", p.Title, to, err)
					default:
						explored[l.Column]++
						opens(t, addr, u.Query().Get("panes"), values[l.Column], now)
					}
				}
			}
		}
	}
	if explored["TrafficGroup"] != 3 || explored["TraceId"] != 1 {
		t.Errorf("links into Explore: %v", explored)
	}
}

// opens runs what a link opens in Explore.
func opens(t *testing.T, addr, panes, value string, now time.Time) {
	t.Helper()
	var left map[string]struct {
		Datasource string
		Queries    []struct{ RawSQL string }
		Range      struct{ From, To string }
	}
	if err := json.Unmarshal([]byte(panes), &left); err != nil {
		t.Fatalf("%v: %s", err, panes)
	}
	pane := left["tracegate"]
	if pane.Datasource != string(dashboards.ClickHouse) || pane.Range.From != "1" || pane.Range.To != "2" || len(pane.Queries) != 1 {
		t.Fatalf("pane %+v", pane)
	}
	answer, err := ask(t, addr, replaced(pane.Queries[0].RawSQL, now))
	if err != nil || answer == "" || !strings.Contains(pane.Queries[0].RawSQL, value) {
		t.Errorf("%q, %v:\n%s", answer, err, pane.Queries[0].RawSQL)
	}
}
