package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

// request is a trace of an edge, a core and a database span.
func request(n int, color group.Color, instance, route string, start time.Time, database time.Duration, code string) []store.Span {
	root := entry(color, "prod", "search", "baseline", start, database+5*time.Millisecond, "Unset")
	root.TraceID = fmt.Sprintf("%s%024x", color, n+1)
	root.Traffic.Route = route
	root.Attributes = map[string]string{"http.response.status_code": code, "user.id": fmt.Sprint("user ", n)}
	if code >= "500" {
		root.Status = "Error"
	}
	served := root
	served.SpanID, served.ParentSpanID, served.Service, served.Timestamp = fmt.Sprintf("%016x", 2*n+1), root.SpanID, "core", start.Add(time.Millisecond)
	served.Resource, served.Attributes = map[string]string{"service.name": "core", "service.instance.id": instance}, map[string]string{}
	served.Duration, served.Traffic.Entry = database+3*time.Millisecond, false
	query := served
	query.SpanID, query.ParentSpanID, query.Timestamp, query.Kind = fmt.Sprintf("%016x", 2*n+2), served.SpanID, start.Add(2*time.Millisecond), "Client"
	query.Duration, query.Attributes = database, map[string]string{"db.system": "postgresql", "server.address": "db1", "db.operation": "INSERT"}
	return []store.Span{root, served, query}
}

// traffic has 400 requests of group 1: those that core-3 serves are slow in the database,
// and one in fifty fails. Group 2 has 50, on another route.
func traffic(t *testing.T) (*store.Store, sli.Window, [2]group.ID) {
	t.Helper()
	s, _, _ := open(t)
	var spans []store.Span
	for i := range 400 {
		database, code := 2*time.Millisecond, "200"
		if i%4 == 3 {
			database = 700 * time.Millisecond
		}
		if i%50 == 0 {
			code = "503"
		}
		spans = append(spans, request(i, 1, fmt.Sprint("core-", i%4), []string{"GET /a", "POST /b"}[i/4%2], at(time.Duration(i)*100*time.Millisecond), database, code)...)
	}
	for i := range 50 {
		spans = append(spans, request(1000+i, 2, "core-0", "GET /c", at(time.Duration(i)*time.Second), 20*time.Millisecond, "200")...)
	}
	if err := s.InsertSpans(t.Context(), "traffic", spans); err != nil {
		t.Fatal(err)
	}
	return s, sli.Window{From: at(0), To: at(time.Minute)}, [2]group.ID{spans[0].Traffic.Group, spans[len(spans)-1].Traffic.Group}
}

func TestTracesAreFound(t *testing.T) {
	s, w, groups := traffic(t)
	attrs := func(kv ...string) map[string]string { return map[string]string{kv[0]: kv[1]} }
	for name, tc := range map[string]struct {
		q    store.TraceQuery
		want int
	}{
		"everything":                    {store.TraceQuery{}, 450},
		"a group":                       {store.TraceQuery{Group: groups[1]}, 50},
		"a route":                       {store.TraceQuery{Route: "GET /c"}, 50},
		"all routes but two":            {store.TraceQuery{NotRoutes: []string{"GET /c", "it's \\ odd", "POST /b"}}, 200},
		"a tenant":                      {store.TraceQuery{Tenant: "search", Env: "prod", Pool: "baseline", Service: "core"}, 450},
		"another tenant":                {store.TraceQuery{Tenant: "payment"}, 0},
		"slow":                          {store.TraceQuery{MinDuration: 500 * time.Millisecond}, 100},
		"errors":                        {store.TraceQuery{ErrorsOnly: true}, 8},
		"bad":                           {store.TraceQuery{Quality: store.Bad, Slow: 500 * time.Millisecond}, 108},
		"bad by errors only":            {store.TraceQuery{Quality: store.Bad}, 8},
		"good":                          {store.TraceQuery{Quality: store.Good, Slow: 500 * time.Millisecond, Group: groups[0]}, 292},
		"an attribute of the entry":     {store.TraceQuery{Attributes: attrs("http.response.status_code", "503")}, 8},
		"an attribute of another span":  {store.TraceQuery{Attributes: attrs("db.system", "postgresql"), Group: groups[1]}, 50},
		"an attribute of a resource":    {store.TraceQuery{Attributes: attrs("service.instance.id", "core-3")}, 100},
		"attributes of different spans": {store.TraceQuery{Attributes: map[string]string{"service.instance.id": "core-0", "http.response.status_code": "503"}}, 4},
		"an empty value that none has":  {store.TraceQuery{Attributes: attrs("nothing", "")}, 0},
		"SQL in a name":                 {store.TraceQuery{Attributes: attrs("'] = '' OR 1 = 1 OR SpanAttributes['", "x")}, 0},
		"SQL in a value":                {store.TraceQuery{Attributes: attrs("db.system", `\' OR 1 = 1 -- `)}, 0},
		"SQL in a route":                {store.TraceQuery{Route: "' OR '' = '"}, 0},
		"SQL in a tenant":               {store.TraceQuery{Tenant: `x\' OR 1 = 1 --`}, 0},
	} {
		tc.q.Window, tc.q.Limit = w, 1000
		if got, err := s.Traces(t.Context(), tc.q); err != nil || len(got) != tc.want {
			t.Errorf("%s: %d traces, %v; want %d", name, len(got), err, tc.want)
		}
	}
}

func TestSlowestRoutes(t *testing.T) {
	s, w, groups := traffic(t)
	got, err := s.SlowestRoutes(t.Context(), groups[0], w, 10)
	if err != nil || len(got) != 2 {
		t.Fatalf("routes: %+v, %v", got, err)
	}
	for _, r := range got {
		if r.Requests != 200 || r.Errors != 4 || r.Classes != [6]uint64{2: 196, 5: 4} || r.P50 > 10*time.Millisecond || r.P95 < 690*time.Millisecond || r.P95 > 720*time.Millisecond {
			t.Errorf("%+v", r)
		}
		if want := 50*705*time.Millisecond + 150*7*time.Millisecond; r.Time < want*98/100 || r.Time > want*102/100 {
			t.Errorf("%s took users %s, want about %s", r.Route, r.Time, want)
		}
	}
	if got, err := s.SlowestRoutes(t.Context(), groups[0], w, 1); err != nil || len(got) != 1 {
		t.Errorf("at most one: %+v, %v", got, err)
	}
	if _, err := s.SlowestRoutes(t.Context(), groups[0], w, 0); err == nil {
		t.Error("a limit of none")
	}
	if got, err := s.SlowestRoutes(t.Context(), "' OR 1", w, 10); err != nil || len(got) != 0 {
		t.Errorf("SQL for a group: %+v, %v", got, err)
	}
}

func TestCompare(t *testing.T) {
	s, w, groups := traffic(t)
	q := store.TraceQuery{Group: groups[0], Window: w, Slow: 500 * time.Millisecond, Quality: store.Bad, Limit: 200}
	good := q
	good.Quality = store.Good
	c, err := s.Compare(t.Context(), q, good, 5)
	if err != nil {
		t.Fatal(err)
	}
	if c.First != 108 || c.Second != 200 {
		t.Errorf("%d bad and %d good traces, want 108 and 200", c.First, c.Second)
	}
	var names []string
	for _, sep := range c.Causes {
		names = append(names, fmt.Sprintf("%s=%s", sep.Attribute, sep.Value))
		if sep.V < 0.9 || sep.First < 0.9 || sep.Second > 0.01 {
			t.Errorf("%s", sep)
		}
	}
	want := []string{"dependency postgresql INSERT db1=100 ms to 1 s", "slowest hop=core postgresql INSERT db1", "core: service.instance.id=core-3"}
	if diff := cmp.Diff(want[:1], names[:min(1, len(names))]); diff != "" || len(names) != 2 && len(names) != 3 {
		t.Errorf("causes %q, want %q", names, want)
	}
	if len(c.Outcomes) != 1 || c.Outcomes[0].Attribute != "http.response.status_code" || c.Outcomes[0].Value != "503" {
		t.Errorf("outcomes: %v", c.Outcomes)
	}
	a, b := store.TraceQuery{Group: groups[0], Window: w, Limit: 100}, store.TraceQuery{Group: groups[1], Window: w, Limit: 100}
	if c, err = s.Compare(t.Context(), a, b, 1); err != nil || c.Second != 50 || len(c.Causes) != 1 || c.Causes[0].Attribute != "route" {
		t.Errorf("two groups: %+v, %v", c, err)
	}
	if _, err := s.Compare(t.Context(), store.TraceQuery{Window: w, Limit: 1}, a, 1); err == nil {
		t.Error("a comparison without a group")
	}
}
