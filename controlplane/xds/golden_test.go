package xds

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/tracegate/tracegate/controlplane/plan"
)

var update = flag.Bool("update", false, "rewrite the expected files of the golden cases")

// resources are [Messages] by their types.
type resources struct {
	listeners  []*listenerv3.Listener
	routes     []*routev3.RouteConfiguration
	hosts      []*routev3.VirtualHost
	clusters   []*clusterv3.Cluster
	endpoints  []*endpointv3.ClusterLoadAssignment
	extensions []*corev3.TypedExtensionConfig
	secrets    []*tlsv3.Secret
}

func render(p plan.Plan) (resources, error) {
	m, err := Messages(p)
	return resources{
		listeners:  as[*listenerv3.Listener](m[Listeners]),
		routes:     as[*routev3.RouteConfiguration](m[Routes]),
		hosts:      as[*routev3.VirtualHost](m[VirtualHosts]),
		clusters:   as[*clusterv3.Cluster](m[Clusters]),
		endpoints:  as[*endpointv3.ClusterLoadAssignment](m[Endpoints]),
		extensions: as[*corev3.TypedExtensionConfig](m[Extensions]),
		secrets:    as[*tlsv3.Secret](m[Secrets]),
	}, err
}

func as[M proto.Message](messages []proto.Message) []M {
	var out []M
	for _, m := range messages {
		out = append(out, m.(M))
	}
	return out
}

// TestGolden renders testdata/<case>/plan.yaml and compares with the files beside
// it, one a type. A new case is a folder with a plan.yaml and a run with -update.
func TestGolden(t *testing.T) {
	t.Parallel()
	cases, err := filepath.Glob("testdata/*/plan.yaml")
	if err != nil || len(cases) == 0 {
		t.Fatalf("cases: %v, %v", cases, err)
	}
	for _, in := range cases {
		dir := filepath.Dir(in)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			r, err := render(readPlan(t, in))
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]bool{"plan.yaml": true}
			golden(t, dir, "listeners.yaml", r.listeners, want)
			golden(t, dir, "routes.yaml", r.routes, want)
			golden(t, dir, "hosts.yaml", r.hosts, want)
			golden(t, dir, "clusters.yaml", r.clusters, want)
			golden(t, dir, "endpoints.yaml", r.endpoints, want)
			golden(t, dir, "extensions.yaml", r.extensions, want)
			if len(r.secrets) > 0 {
				golden(t, dir, "secrets.yaml", r.secrets, want)
			}
			goldenProxyless(t, dir, readPlan(t, in), want)
			stale(t, dir, want)
		})
	}
}

// goldenProxyless is what gRPC clients get, where a service is for them.
func goldenProxyless(t *testing.T, dir string, p plan.Plan, known map[string]bool) {
	t.Helper()
	var all []proto.Message
	c := Proxyless{Builder{rendered: func(_ Type, m proto.Message) { all = append(all, m) }}}
	if _, err := c.Build(p); err != nil {
		t.Fatal(err)
	}
	if len(all) > 0 {
		golden(t, dir, "proxyless.yaml", all, known)
	}
}

func golden[M proto.Message](t *testing.T, dir, name string, messages []M, known map[string]bool) {
	t.Helper()
	known[name] = true
	got := toYAML(t, messages)
	path := filepath.Join(dir, name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run with -update)", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got, rewrite with -update):\n%s", name, diff)
	}
}

// stale finds files that no type writes any more.
func stale(t *testing.T, dir string, known map[string]bool) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if known[e.Name()] {
			continue
		}
		if *update {
			os.Remove(filepath.Join(dir, e.Name()))
			continue
		}
		t.Errorf("%s is stale: nothing writes it", filepath.Join(dir, e.Name()))
	}
}

func readPlan(t *testing.T, path string) plan.Plan {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var p plan.Plan
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&p); err != nil {
		t.Fatalf("decode %s: %v", path, err)
	}
	return p
}

// toYAML goes by JSON, whose keys yaml.v3 then sorts.
func toYAML[M proto.Message](t *testing.T, messages []M) []byte {
	t.Helper()
	var out []any
	for _, m := range messages {
		data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(data, &v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(out); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
