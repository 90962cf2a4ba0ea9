package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const modulePath = "github.com/tracegate/tracegate/"

// pure packages decide in values: no adapter, no network, no clock of their own.
// They may import each other and the leaves.
var pure = map[string]bool{
	"mesh/group": true, "mesh/placement": true, "observability/semconv": true, "observability/sli": true, "observability/contrast": true, "observability/anomaly": true,
	"wasm/color": true, "wasm/route": true, "core/protocol": true, "core/protocol/wire": true, "core/protocol/tracegate/chat/v1": true, "core/chat": true, "core/bucket": true, "core/presence": true,
	"controlplane/policy": true, "controlplane/access": true, "controlplane/certificate": true, "controlplane/decide": true, "controlplane/decide/evaluate": true, "controlplane/backtest": true, "controlplane/trial": true, "controlplane/plan": true, "controlplane/xds": true, "controlplane/xds/parts": true, "controlplane/blame": true,
	"controlplane/ctl/ctlapi": true, "controlplane/explain": true, "edge/bootstrap": true,
	"mesh/scale": true, "mesh/forecast": true, "mesh/api/v1alpha1": true, "mesh/deploy": true, "mesh/operator/render": true,
	// small leaves that every folder may use
	"mesh/strict": true, "mesh/settings": true, "mesh/discovery": true, "mesh/webpage": true, "mesh/webhook": true, "mesh/secret": true, "mesh/identity": true, "mesh/tlsdial": true, "mesh/benchdoc": true, "mesh/freeport": true, "mesh/runtest": true, "mesh/gauge": true, "mesh/procfs": true,
}

// libraries says where a library may be imported, and why only there.
var libraries = map[string]struct {
	where []string
	why   string
}{
	"github.com/envoyproxy/go-control-plane":    {[]string{"controlplane/xds", "controlplane/server", "controlplane/bench", "edge/", "wasm/bench"}, "Envoy's types end where a plan begins"},
	"github.com/ClickHouse/":                    {[]string{"observability/store", "observability/engine", "observability/ingest/bench"}, "one place knows the trace store"},
	"github.com/tetratelabs/proxy-wasm-go-sdk":  {[]string{"wasm/filter", "wasm/stockgo"}, "the filter's thinking must run outside a filter"},
	"database/sql":                              {[]string{"core/store"}, "one place knows SQL"},
	"github.com/jackc/pgx":                      {[]string{"core/store"}, "one place knows SQL"},
	"github.com/twmb/franz-go":                  {[]string{"core/queue"}, "one place knows Kafka"},
	"github.com/blevesearch/":                   {[]string{"core/search"}, "one place knows the search index"},
	"github.com/minio/minio-go":                 {[]string{"core/file"}, "one place knows S3"},
	"github.com/redis/go-redis":                 {[]string{"core/fanout", "edge/ratelimit"}, "messages and limits know Redis"},
	"github.com/centrifugal/centrifuge":         {[]string{"core/bench"}, "a peer of benchmarks, no part of the product"},
	"github.com/grafana/grafana-foundation-sdk": {[]string{"observability/dashboards"}, "dashboards are files to the product"},
	"github.com/lxzan/gws":                      {[]string{"core/bench"}, "a peer of benchmarks, no part of the product"},
	"github.com/ebitengine/purego":              {[]string{"observability/engine"}, "one place calls C"},
	"k8s.io/":                                   {[]string{"mesh/", "controlplane/source"}, "Kubernetes ends where a source begins"},
}

type listed struct {
	ImportPath string
	Imports    []string
}

// TestImportRules holds docs/architecture.md: main -> adapters -> pure -> leaves.
func TestImportRules(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	packages := 0
	for {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages++
		from := strings.TrimPrefix(p.ImportPath, modulePath)
		for _, imported := range p.Imports {
			checkImport(t, from, imported)
		}
	}
	if packages < 20 {
		t.Errorf("only %d packages listed", packages)
	}
}

func checkImport(t *testing.T, from, imported string) {
	t.Helper()
	for lib, rule := range libraries {
		if strings.HasPrefix(imported, lib) && !allowed(from, rule.where) {
			t.Errorf("%s imports %s: %s", from, imported, rule.why)
		}
	}
	to, own := strings.CutPrefix(imported, modulePath)
	if !own || from == strings.TrimSuffix(modulePath, "/") || pure[to] {
		return
	}
	if pure[from] {
		t.Errorf("%s is pure and imports %s, which is not", from, to)
	}
	if folder(from) != folder(to) && !testOnly(from) {
		t.Errorf("%s imports %s: adapters of two folders meet in main only", from, to)
	}
}

func allowed(from string, where []string) bool {
	for _, w := range where {
		if strings.HasPrefix(from, w) {
			return true
		}
	}
	return false
}

func folder(pkg string) string { return strings.SplitN(pkg, "/", 2)[0] }

// testOnly packages are imported by tests and benchmarks, never by the product.
func testOnly(pkg string) bool {
	return strings.HasSuffix(pkg, "test") || strings.Contains(pkg, "/e2e") || strings.HasSuffix(pkg, "bench")
}

// TestNoKubernetes holds that a binary can do without the libraries that are two fifths of it.
func TestNoKubernetes(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-tags", "nokubernetes", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for p := range strings.Lines(string(out)) {
		if strings.HasPrefix(p, "k8s.io/") || strings.HasPrefix(p, "sigs.k8s.io/controller-runtime") {
			t.Errorf("tag nokubernetes leaves %s", p)
		}
	}
	if !strings.Contains(string(out), modulePath+"core\n") {
		t.Error("nothing was listed")
	}
}
