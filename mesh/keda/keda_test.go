package keda_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/keda"
	"github.com/tracegate/tracegate/mesh/metricsapi"
	"github.com/tracegate/tracegate/observability/sli"
)

const (
	kedaModule = "github.com/kedacore/keda/v2@v2.17.0"
	kedaSum    = "h1:Msot3UuN6WOhaOaOcVmokmVM0cu3uqSGvnDgg1LkESU="
)

// client builds a program of KEDA's own stubs, which the go tool fetches and verifies.
func client(t *testing.T) (path string) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds a client")
	}
	dir := t.TempDir()
	home, err := download(t.Context(), dir)
	if err != nil {
		if os.Getenv("CI") == "" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	stubs := filepath.Join(dir, "externalscaler")
	if err := os.Mkdir(stubs, 0o700); err != nil {
		t.Fatal(err)
	}
	// The requirements are ours, so that nothing is fetched or compiled twice.
	copyFile(t, "testdata/client.txt", filepath.Join(dir, "main.go"))
	copyFile(t, "../../go.sum", filepath.Join(dir, "go.sum"))
	for _, name := range []string{"externalscaler.pb.go", "externalscaler_grpc.pb.go"} {
		copyFile(t, filepath.Join(home, "pkg", "scalers", "externalscaler", name), filepath.Join(stubs, name))
	}
	ours, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(ours), "module github.com/tracegate/tracegate\n", "module kedaclient\n", 1)
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "client")
	build := exec.CommandContext(t.Context(), "go", "build", "-mod=mod", "-o", path, ".")
	build.Dir, build.Env = dir, append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build client: %v: %s", err, out)
	}
	return path
}

func download(ctx context.Context, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", kedaModule)
	cmd.Dir = dir
	out, runErr := cmd.Output()
	var got struct{ Dir, Sum, Error string }
	if err := json.Unmarshal(out, &got); err != nil {
		return "", fmt.Errorf("fetch KEDA: %w", runErr)
	}
	if got.Error != "" || got.Sum != kedaSum {
		return "", fmt.Errorf("fetch KEDA: %s, sum %s", got.Error, got.Sum)
	}
	return got.Dir, nil
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

type answer struct {
	Spec           []any
	Value          float64
	Active, Pushed bool
	Codes          []string
}

// TestKEDAsOwnClient asks as KEDA's operator does.
func TestKEDAsOwnClient(t *testing.T) {
	path := client(t)
	now := time.Now()
	s := keda.Scaler{
		Last: func() metricsapi.Snapshot {
			return metricsapi.Snapshot{Window: sli.Window{From: now.Add(-2 * time.Second), To: now}, Stats: []sli.Stats{
				{Group: "aaaaaa", Service: "chat", Pool: "baseline", Requests: 301, Errors: 100, P95: 40 * time.Millisecond, Newest: now},
				{Group: "bbbbbb", Service: "chat", Pool: "baseline", Requests: 100, P95: 90 * time.Millisecond, Newest: now},
				{Group: "aaaaaa", Service: "broken", Pool: "baseline", Requests: 10, Errors: 10, Newest: now},
			}}
		},
		Group: func(_ context.Context, namespace, name string) (group.ID, bool) {
			return "aaaaaa", namespace == "shop" && name == "acme"
		},
		StaleAfter: time.Hour, Now: time.Now,
	}
	stale := s
	stale.Now = func() time.Time { return now.Add(2 * time.Hour) }
	fresh, old := serve(t, s), serve(t, stale)
	const ok = "OK: "
	for _, c := range []struct {
		name, addr, metadata string
		want                 answer
	}{
		{"group", fresh, `{"scalerAddress": "here:1", "service": "chat", "pool": "baseline", "group": "acme", "qpsPerPod": "200"}`, answer{
			Spec: []any{"traffic_group_qps", 200.0, 200.0}, Value: 150.5, Active: true, Pushed: true, Codes: []string{ok, ok, ok, ok},
		}},
		{"error-free", fresh, `{"service": "chat", "errorFreeQPSPerPod": "150"}`, answer{
			Spec: []any{"traffic_group_error_free_qps", 150.0, 150.0}, Value: 150.5, Active: true, Pushed: true, Codes: []string{ok, ok, ok, ok},
		}},
		{"all fail", fresh, `{"service": "broken", "errorFreeQPSPerPod": "150"}`, answer{
			Spec: []any{"traffic_group_error_free_qps", 150.0, 150.0}, Active: true, Pushed: true, Codes: []string{ok, ok, ok, ok},
		}},
		{"latency", fresh, `{"service": "chat", "group": "acme", "p95Milliseconds": "25"}`, answer{
			Spec: []any{"traffic_group_p95_milliseconds", 25.0, 25.0}, Value: 40, Active: true, Pushed: true, Codes: []string{ok, ok, ok, ok},
		}},
		{"two targets", fresh, `{"service": "chat", "qpsPerPod": "1", "p95Milliseconds": "1"}`, answer{Codes: refused("InvalidArgument: ")}},
		{"latency of hours", fresh, `{"service": "chat", "p95Milliseconds": "4e6"}`, answer{Codes: refused("InvalidArgument: p95Milliseconds: \"4e6\" is not a number from 1 to 3600000")}},
		{"nothing", fresh, `{"service": "chat", "pool": "canary", "qpsPerPod": "200"}`, answer{
			Spec: []any{"traffic_group_qps", 200.0, 200.0}, Codes: []string{ok, ok, ok, ok},
		}},
		{"stale", old, `{"service": "chat", "qpsPerPod": "50"}`, answer{Spec: []any{"traffic_group_qps", 50.0, 50.0}, Codes: []string{ok, "Unavailable: telemetry is stale", "Unavailable: telemetry is stale"}}},
		{"no such group", fresh, `{"group": "nobody", "qpsPerPod": "1"}`, answer{Codes: refused("NotFound: group: there is no TrafficGroup \"nobody\"")}},
		{"misspelt", fresh, `{"servce": "chat", "qpsPerPod": "1"}`, answer{Codes: refused("InvalidArgument: servce: unknown")}},
		{"no target", fresh, `{"service": "chat"}`, answer{Codes: refused("InvalidArgument: qpsPerPod: missing")}},
		{"bad target", fresh, `{"service": "chat", "qpsPerPod": "NaN"}`, answer{Codes: refused("InvalidArgument: qpsPerPod: \"NaN\"")}},
		{"whose", fresh, `{"qpsPerPod": "1"}`, answer{Codes: refused("InvalidArgument: service: missing")}},
	} {
		out, err := exec.CommandContext(t.Context(), path, c.addr, c.metadata).Output()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var got answer
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Codes) == len(c.want.Codes) {
			for i, code := range got.Codes {
				if strings.HasPrefix(code, c.want.Codes[i]) { // the rest is words
					got.Codes[i] = c.want.Codes[i]
				}
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func refused(why string) []string { return []string{why, why, why} }

func serve(t *testing.T, s keda.Scaler) (addr string) {
	t.Helper()
	server := grpc.NewServer()
	if err := s.Register(server); err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(lis) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return lis.Addr().String()
}
