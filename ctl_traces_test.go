package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/backtest"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/engine/enginetest"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

// ctlStore is a store of its own, and a function that runs a command of tracegate on it.
func ctlStore(t *testing.T) (*store.Store, func(args ...string) (string, error)) {
	t.Helper()
	e := enginetest.Start(t)
	cfg := store.DefaultConfig()
	cfg.Addr, cfg.User, cfg.Password = e.Addr, enginetest.User, enginetest.Password
	s, err := store.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	set := fmt.Sprintf("clickhouse.addr=%s,clickhouse.user=%s,clickhouse.password=%s", e.Addr, enginetest.User, enginetest.Password)
	return s, func(args ...string) (string, error) {
		var out bytes.Buffer
		cmd := newCommand(&out, io.Discard)
		cmd.SetArgs(append([]string{"--data", t.TempDir(), "--set", set}, args...))
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
}

// faulty is a canary group whose pool waits for its database from a time on.
type faulty struct {
	store *store.Store
	r     *rand.Rand
	from  time.Time
	n     int
}

// second stores the traces of one second: 50 requests each of two groups in baseline and of
// one in a pool.
func (f *faulty) second(t *testing.T, at time.Time, pool string, database time.Duration) {
	t.Helper()
	var spans []store.Span
	for i := range 150 {
		g, p, waits := group.Group{Env: "prod", Tenant: []string{"payment", "search"}[i%2]}, semconv.PoolBaseline, 2*time.Millisecond
		if i%3 == 0 {
			g, p, waits = sickGroup(), pool, database
		}
		f.n++
		root := store.Span{
			Timestamp: at.Add(time.Duration(f.r.Int64N(int64(time.Second)))), TraceID: fmt.Sprintf("%s%024x", g.Color, f.n), SpanID: fmt.Sprintf("%016x", 3*f.n+1),
			Name: "POST /v1/messages", Kind: "Server", Service: semconv.ServiceEdge, Status: "Unset", Duration: waits + time.Duration(float64(20*time.Millisecond)*(0.5+f.r.Float64())),
			Attributes: map[string]string{"http.response.status_code": "202", "user.id": "u" + fmt.Sprint(f.n)}, Resource: map[string]string{"service.name": "edge"},
			Traffic: store.Traffic{Group: g.ID(), Color: g.Color, Env: g.Env, Tenant: g.Tenant, Service: semconv.ServiceCore, Pool: p, Route: "/v1/messages", Entry: true},
		}
		query := root
		query.SpanID, query.ParentSpanID, query.Service, query.Kind, query.Name = fmt.Sprintf("%016x", 3*f.n+2), root.SpanID, semconv.ServiceCore, "Client", "store\x1b[31m message"
		query.Timestamp, query.Duration = root.Timestamp.Add(time.Millisecond), waits
		query.Attributes, query.Traffic.Entry = map[string]string{"db.system": "postgresql", "db.operation": "INSERT", "server.address": "db1"}, false
		spans = append(spans, root, query)
	}
	if err := f.store.InsertSpans(t.Context(), at.String(), spans); err != nil {
		t.Fatal(err)
	}
}

func sickGroup() group.Group {
	return group.Group{Color: group.ColorOf("canary"), Env: "canary", Tenant: "payment"}
}

// TestCtlBacktestFindsTheFaultThatWas records a fault as it is lived: statistics of the
// store are decided on four times a second and the group is moved, and decisions are kept.
// Then the command finds the same isolation on what is stored, and none under a policy that
// allows the latency.
func TestCtlBacktestFindsTheFaultThatWas(t *testing.T) {
	s, run := ctlStore(t)
	p, err := policy.Parse(policy.Default)
	if err != nil {
		t.Fatal(err)
	}
	f := &faulty{store: s, r: rand.New(rand.NewPCG(1, 2)), from: time.Now().UTC().Truncate(time.Second).Add(-2 * time.Minute)}
	var state decide.State
	var was []decide.Decision
	pool := semconv.PoolCanary
	for i := range 20 {
		at, database := f.from.Add(time.Duration(i)*time.Second), 2*time.Millisecond
		if i >= 10 && pool == semconv.PoolCanary {
			database = 900 * time.Millisecond
		}
		f.second(t, at, pool, database)
		for look := range 4 {
			now := at.Add(time.Second + time.Duration(look)*250*time.Millisecond)
			in := decide.Input{Now: now, Newest: at.Add(time.Second), Homes: p.Homes(), Isolatable: p.Isolatable()}
			if in.Quick, err = s.GroupStats(t.Context(), sli.Window{From: at.Add(time.Second - p.Decide.QuickWindow), To: at.Add(time.Second)}); err != nil {
				t.Fatal(err)
			}
			if in.Short, err = s.GroupStats(t.Context(), sli.Window{From: at.Add(time.Second - p.Decide.ShortWindow), To: at.Add(time.Second)}); err != nil {
				t.Fatal(err)
			}
			if in.Long, err = s.GroupStats(t.Context(), sli.Window{From: at.Add(time.Second - p.Decide.LongWindow), To: at.Add(time.Second)}); err != nil {
				t.Fatal(err)
			}
			var ds []decide.Decision
			ds, state = decide.Decide(p.Decide, state, in)
			for _, d := range ds {
				d.ID = fmt.Sprint(len(was))
				if err := s.SaveDecision(t.Context(), d); err != nil {
					t.Fatal(err)
				}
				was, pool = append(was, d), d.ToPool
			}
		}
	}
	if len(was) != 1 || was[0].Action != decide.Isolate || was[0].Group != sickGroup().ID() {
		t.Fatalf("recorded %+v", was)
	}
	why, err := traceWhy{s}.Why(t.Context(), was[0], p.Decide)
	if err != nil || len(why) == 0 || !strings.HasPrefix(why[0], "dependency postgresql INSERT db1 is 100 ms to 1 s in 100% of bad and 0% of good requests") {
		t.Errorf("why: %q, %v", why, err)
	}

	file := filepath.Join(t.TempDir(), "policy.yaml")
	document := string(policy.Default)
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run("ctl", "backtest", file, "--since", "10m", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var r backtest.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r.Seconds != 20 || len(r.Rows) != 1 || r.Rows[0].Verdict != backtest.Same {
		t.Fatalf("report %s", out)
	}
	would, had := *r.Rows[0].Would, was[0]
	if would.Group != had.Group || would.FromPool != had.FromPool || would.ToPool != had.ToPool || would.Time.Sub(had.Time).Abs() > time.Second || would.Stats.Requests != had.Stats.Requests || would.Stats.P95 != had.Stats.P95 {
		t.Errorf("would be %+v\nwas %+v", would, had)
	}
	out, err = run("ctl", "backtest", file, "--since", "10m")
	if err != nil || !strings.Contains(out, "same") || !strings.Contains(out, "1 moves the same, 0 only would be, 0 only were") {
		t.Errorf("table %q, %v", out, err)
	}
	lax := filepath.Join(t.TempDir(), "lax.yaml")
	if err := os.WriteFile(lax, []byte(strings.Replace(document, "maxP95: 500ms", "maxP95: 5s", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err = run("ctl", "backtest", lax, "--since", "10m")
	if err != nil || !strings.Contains(out, "0 moves the same, 0 only would be, 1 only were") {
		t.Errorf("lax policy: %q, %v", out, err)
	}
	for _, args := range [][]string{{file, "--since", "-1s"}, {file, "--since", "1000h"}, {file, "-o", "xml"}, {"nowhere.yaml"}, {file, "--apart", "-1s"}} {
		if out, err := run(append([]string{"ctl", "backtest"}, args...)...); err == nil {
			t.Errorf("%q works: %s", args, out)
		}
	}
}

func TestCtlTraces(t *testing.T) {
	s, run := ctlStore(t)
	f := &faulty{store: s, r: rand.New(rand.NewPCG(3, 4)), from: time.Now().UTC().Truncate(time.Second).Add(-time.Minute)}
	for i := range 6 {
		f.second(t, f.from.Add(time.Duration(i)*time.Second), semconv.PoolCanary, []time.Duration{2, 900}[i%2]*time.Millisecond)
	}
	id := string(sickGroup().ID())
	for _, tt := range []struct {
		args  string
		lines int // of output, at least
		words []string
	}{
		{"ctl traces --group " + id + " --min-duration 500ms --limit 5", 6, []string{"TRACE", id, "/v1/messages", "canary", "202", "payment"}},
		{"ctl traces --attr db.system=postgresql,http.response.status_code=202 --tenant search", 21, []string{"baseline", "search"}},
		{"ctl traces --errors", 1, []string{"TRACE"}},
		{"ctl traces routes " + id, 2, []string{"/v1/messages", "300", "P95"}},
		{"ctl traces compare " + id, 4, []string{"150 traces bad, 150 good", "dependency postgresql INSERT db1", "100 ms to 1 s", "100%", "1.00"}},
	} {
		out, err := run(strings.Fields(tt.args)...)
		if err != nil {
			t.Errorf("%s: %v", tt.args, err)
			continue
		}
		if n := strings.Count(out, "\n"); n < tt.lines {
			t.Errorf("%s: %d lines, want %d or more:\n%s", tt.args, n, tt.lines, out)
		}
		for _, w := range tt.words {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in\n%s", tt.args, w, out)
			}
		}
	}
	out, err := run("ctl", "traces", "--group", id, "--limit", "1", "-o", "json")
	var found []store.Span
	if err != nil || json.Unmarshal([]byte(out), &found) != nil || len(found) != 1 {
		t.Fatalf("%s, %v", out, err)
	}
	out, err = run("ctl", "traces", "show", found[0].TraceID)
	if err != nil || !strings.Contains(out, "edge: POST /v1/messages") || !strings.Contains(out, "  core: store?[31m message") || !strings.Contains(out, "postgresql INSERT") {
		t.Errorf("tree %q, %v", out, err)
	}
	out, err = run("ctl", "traces", "show", found[0].TraceID, "-o", "json")
	var tree []*store.Node
	if err != nil || json.Unmarshal([]byte(out), &tree) != nil || len(tree) != 1 || len(tree[0].Children) != 1 || tree[0].Self != tree[0].Duration-tree[0].Children[0].Duration {
		t.Errorf("tree %s, %v", out, err)
	}
	if out, err := run("ctl", "traces", "--tenant", "nobody", "-o", "json"); err != nil || strings.TrimSpace(out) != "[]" {
		t.Errorf("none: %q, %v", out, err)
	}
	for _, args := range []string{"ctl traces --group x", "ctl traces --limit 0", "ctl traces --since 0s", "ctl traces show 12", "ctl traces show " + strings.Repeat("0", 32), "ctl traces compare x", "ctl traces compare " + id + " --sample 5000", "ctl traces routes ABCDEF", "ctl traces -o yaml"} {
		if out, err := run(strings.Fields(args)...); err == nil {
			t.Errorf("%s works: %s", args, out)
		}
	}
}

// TestAnomaliesCommand: four days as always, and minutes in the last hour that are not.
func TestAnomaliesCommand(t *testing.T) {
	s, run := ctlStore(t)
	g := group.Group{Env: "prod", Tenant: "payment"}
	now := time.Now().Truncate(time.Minute)
	n := 0
	var spans []store.Span
	for m := -4*24*60 - 59; m < 0; m++ {
		into := (m + 4*24*60 + 59) % (24 * 60)
		hour := into < 120 || into >= 23*60 // the hour that is asked for, of each day, and those beside it
		if !hour && m < -60 {
			continue
		}
		took := 20 * time.Millisecond
		if m >= -45 { // most of an hour: so long a window a group has that is quiet most of the day
			took = 400 * time.Millisecond
		}
		for i := range 30 {
			n++
			spans = append(spans, store.Span{
				Timestamp: now.Add(time.Duration(m)*time.Minute + time.Duration(i)*time.Second), TraceID: fmt.Sprintf("%s%024x", g.Color, n), SpanID: fmt.Sprintf("%016x", n),
				Name: "GET /v1/me", Kind: "Server", Service: semconv.ServiceEdge, Status: "Unset", Duration: took + time.Duration(n%5)*time.Millisecond,
				Attributes: map[string]string{"http.response.status_code": "200"}, Resource: map[string]string{"service.name": "edge"},
				Traffic: store.Traffic{Group: g.ID(), Color: g.Color, Env: g.Env, Tenant: g.Tenant, Service: semconv.ServiceCore, Pool: semconv.PoolBaseline, Route: "/", Entry: true},
			})
		}
	}
	if err := s.InsertSpans(t.Context(), "days", spans); err != nil {
		t.Fatal(err)
	}
	out, err := run("ctl", "anomalies", "--days", "4")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "P95 in milliseconds") || !strings.Contains(out, "is usual between") || !strings.Contains(out, string(g.ID())) {
		t.Errorf("output:\n%s", out)
	}
	if _, err := run("ctl", "anomalies", "--days", "1"); err == nil || !strings.HasPrefix(err.Error(), "days:") {
		t.Errorf("one day: %v", err)
	}
	if _, err := run("ctl", "anomalies", "XX"); err == nil {
		t.Error("a group that is none is taken")
	}
	if out, err := run("ctl", "anomalies", "ffffff", "--days", "4"); err != nil || !strings.Contains(out, "nothing is out of the ordinary") {
		t.Errorf("another group: %s, %v", out, err)
	}
}
