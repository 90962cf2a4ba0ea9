package dashboards_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/edge/artifact/engine"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/dashboards"
	"github.com/tracegate/tracegate/observability/engine/enginetest"
	"github.com/tracegate/tracegate/observability/store"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// TestFilesAreGenerated holds the files against their source.
func TestFilesAreGenerated(t *testing.T) {
	files, err := filepath.Glob("provisioning/dashboards/*.json")
	if err != nil || len(files) != len(dashboards.All()) {
		t.Errorf("%d files of %d boards, %v", len(files), len(dashboards.All()), err)
	}
	for _, b := range dashboards.All() {
		d, err := dashboards.Render(b)
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.MarshalIndent(d, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("provisioning", "dashboards", b.UID+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want)+"\n", string(got)); diff != "" {
			t.Errorf("%s is not what `go generate` writes:\n%s", b.UID, diff)
		}
	}
}

// TestFilesAreAsGrafanaWantsThem reads them strictly by Grafana's schema, and asks of the
// layout what the schema cannot.
func TestFilesAreAsGrafanaWantsThem(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	uids := map[string]bool{}
	for _, b := range dashboards.All() {
		raw, err := os.ReadFile(filepath.Join("provisioning", "dashboards", b.UID+".json"))
		if err != nil {
			t.Fatal(err)
		}
		var d dashboard.Dashboard
		for _, err := range []error{d.UnmarshalJSONStrict(raw), d.Validate()} {
			if list, ok := errors.AsType[cog.BuildErrors](err); err != nil && (!ok || len(list) > 0) { // the SDK gives an empty list as an error
				t.Errorf("%s: %v", b.UID, err)
			}
		}
		if uids[b.UID] || len(b.UID) > 40 {
			t.Errorf("uid %q is taken or too long", b.UID)
		}
		uids[b.UID] = true
		rendered, err := dashboards.Render(b)
		if err != nil {
			t.Fatal(err)
		}
		layout(t, b.UID, rendered)
	}
}

// layout wants ids and places that are each panel's own.
func layout(t *testing.T, uid string, d dashboard.Dashboard) {
	t.Helper()
	ids, cells := map[uint32]bool{}, map[[2]uint32]string{}
	for _, p := range d.Panels {
		var id uint32
		var at *dashboard.GridPos
		var title string
		if p.RowPanel != nil {
			id, at, title = p.RowPanel.Id, p.RowPanel.GridPos, *p.RowPanel.Title
		} else {
			id, at, title = *p.Panel.Id, p.Panel.GridPos, *p.Panel.Title
		}
		if ids[id] || id == 0 {
			t.Errorf("%s: %s has id %d, as another", uid, title, id)
		}
		ids[id] = true
		for x := at.X; x < at.X+at.W; x++ {
			for y := at.Y; y < at.Y+at.H; y++ {
				if other := cells[[2]uint32{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s: %s lies on %q or outside at %d,%d", uid, title, other, x, y)
				}
				cells[[2]uint32{x, y}] = title
			}
		}
	}
}

// each calls f with all queries of a source.
func each(source dashboards.Source, f func(name, text string)) {
	for _, b := range dashboards.All() {
		for p, q := range b.Queries() {
			if b.Source == source {
				f(b.UID+"/"+p.Title+"/"+q.Legend, q.Text)
			}
		}
	}
}

// TestQueriesOfClickHouse runs each on migrated tables that have one of everything, with
// macros replaced as Grafana's plugin does.
func TestQueriesOfClickHouse(t *testing.T) {
	s, addr := migrated(t)
	now := time.Now().UTC().Truncate(time.Second)
	fill(t, s, now.Add(-time.Minute))
	run := func(name, text string) {
		for group, want := range map[string]bool{".*": true, "nobody": strings.Contains(name, "kernel") || strings.Contains(name, "Connects") || strings.HasPrefix(name, "tracegate-map/") || name == "groups"} {
			sql := replaced(strings.ReplaceAll(text, "${group:pipe}", group), now)
			if answer, err := ask(t, addr, sql); err != nil || (answer != "") != want {
				t.Errorf("%s, groups %s: %q, %v\n%s", name, group, answer, err, sql)
			}
		}
	}
	each(dashboards.ClickHouse, run)
	run("groups", dashboards.GroupsSQL)
	run("marks", dashboards.MarksSQL)
}

// replaced has what Grafana and its plugin put in the place of macros: a quarter of an hour
// up to now.
func replaced(sql string, now time.Time) string {
	return strings.NewReplacer("$__interval_s", "5",
		"$__fromTime", fmt.Sprintf("toDateTime(%d)", now.Add(-15*time.Minute).Unix()), "$__toTime", fmt.Sprintf("toDateTime(%d)", now.Unix())).Replace(sql)
}

// migrated is an engine with the product's tables.
func migrated(t *testing.T) (s *store.Store, addr string) {
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
	return s, e.Addr
}

// ask returns ClickHouse's answer, a line a row.
func ask(t *testing.T, addr, sql string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/?database=tracegate", strings.NewReader(sql))
	if err != nil {
		return "", err
	}
	req.SetBasicAuth(enginetest.User, enginetest.Password)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(res.Status)
	}
	return string(body), err
}

func fill(t *testing.T, s *store.Store, at time.Time) {
	t.Helper()
	g := group.Group{Color: 7, Env: "prod", Tenant: "search"}
	traffic := store.Traffic{Group: g.ID(), Color: g.Color, Env: g.Env, Tenant: g.Tenant, Service: "core", Pool: "canary", Route: "/v1/me", Entry: true}
	err := s.InsertSpans(t.Context(), "spans", []store.Span{{
		Timestamp: at, TraceID: strings.Repeat("1", 32), SpanID: strings.Repeat("2", 16), Name: "GET /v1/me", Kind: "Server", Service: "edge", Status: "Error",
		Duration: 30 * time.Millisecond, Resource: map[string]string{"service.name": "edge"}, Attributes: map[string]string{"http.response.status_code": "500"}, Traffic: traffic,
	}})
	if err != nil {
		t.Fatal(err)
	}
	err = s.InsertPoints(t.Context(), "points", []store.Point{{
		Kind: store.Histogram, Name: "traffic.kernel.duration", Unit: "s", Temporality: 2, Start: at.Add(-time.Second), Time: at,
		Source:     store.MetricSource{Service: "core", Resource: map[string]string{"service.name": "core"}},
		Attributes: map[string]string{"kind": "connect", "server.address": "127.0.0.1:9092"}, Count: 3, Sum: 1, Bounds: []float64{0.1, 1}, Buckets: []uint64{1, 2, 0}, Traffic: traffic,
	}})
	if err != nil {
		t.Fatal(err)
	}
	err = s.SaveDecision(t.Context(), decide.Decision{
		ID: "d1", Time: at, Action: decide.Isolate, Group: g.ID(), Color: g.Color, Env: g.Env, Tenant: g.Tenant, Service: "core", FromPool: "canary", ToPool: "isolated", Reason: "P95 300 ms", By: "policy",
		Programmed: at.Add(20 * time.Millisecond),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestExpressionsOfPrometheus has Prometheus' own tool read each, as the rule of an alert.
func TestExpressionsOfPrometheus(t *testing.T) {
	e, err := engine.Prometheus(t.Context(), slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	each(dashboards.Prometheus, func(_, text string) {
		rules = append(rules, rule{fmt.Sprintf("panel:%d", len(rules)), strings.ReplaceAll(text, "$__rate_interval", "20s")})
	})
	if len(rules) < 20 {
		t.Fatalf("only %d expressions", len(rules))
	}
	raw, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "panels", "rules": rules}}}) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "panels.yaml")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", "rules", file}, {"check", "config", "prometheus.yml"}} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(e.Bin, "promtool"), args...)
		cmd.Env = append(os.Environ(), e.Env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
