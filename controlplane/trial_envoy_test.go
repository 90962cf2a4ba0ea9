package controlplane

import (
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/grpc"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/edge/bootstrap"
	"github.com/tracegate/tracegate/edge/envoytest"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/observability/ingest/otlp"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

// accessLogs takes Envoys' access logs as the telemetry receiver does, and counts what is
// in them as the store does.
type accessLogs struct {
	collectorlogs.UnimplementedLogsServiceServer

	mu    sync.Mutex
	spans []store.Span
}

func (a *accessLogs) Export(_ context.Context, req *collectorlogs.ExportLogsServiceRequest) (*collectorlogs.ExportLogsServiceResponse, error) {
	random := func(n int) []byte { b := make([]byte, n); _, _ = rand.Read(b); return b }
	edge, _ := otlp.Converter{Limits: otlp.DefaultLimits()}.Logs(req, time.Now(), random)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.spans = append(a.spans, edge.Spans...)
	return &collectorlogs.ExportLogsServiceResponse{}, nil
}

func (a *accessLogs) stats(w sli.Window) []sli.EdgeStats {
	a.mu.Lock()
	defer a.mu.Unlock()
	sums := map[sli.EdgeStats]sli.EdgeStats{}
	for _, s := range a.spans {
		key := sli.EdgeStats{Edge: s.Resource["node_name"], Service: s.Traffic.Service, Route: s.Traffic.Route}
		if !s.Traffic.Entry || s.Timestamp.Before(w.From) || !s.Timestamp.Before(w.To) {
			continue
		}
		sum, found := sums[key]
		if !found {
			sum = key
		}
		sum.Requests++
		if s.Status == "Error" {
			sum.Errors++
		}
		sums[key] = sum
	}
	var out []sli.EdgeStats
	for _, s := range sums {
		out = append(out, s)
	}
	return out
}

// at counts what an edge got on routes with a rule's name.
func (a *accessLogs) at(edge, rule string) (n uint64) {
	for _, s := range a.stats(sli.Window{To: time.Now().Add(time.Hour)}) {
		if s.Edge == edge && strings.Contains(s.Route, rule) {
			n += s.Requests
		}
	}
	return n
}

func (a *accessLogs) serve(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", freeport.ForTest(t))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collectorlogs.RegisterLogsServiceServer(server, a)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return l.Addr().String()
}

// TestTrialAtRealEnvoys has two Envoys behind one address: a policy whose rule leads to a
// broken pool reaches only the first, and so does one that Envoy refuses; a good one
// reaches both.
func TestTrialAtRealEnvoys(t *testing.T) {
	envoytest.Binary(t)
	instance := func(status int) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(semconv.HeaderPool, semconv.PoolBaseline)
			if r.URL.Path != "/healthz" {
				w.WriteHeader(status)
			}
		}))
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	withRule := func(rule string) string {
		return "services:\n  - name: core\n    pools: [{name: baseline}, {name: canary}, {name: isolated}]\n    rules:\n      - " + rule + "\n    routes: [{prefix: /}]\n"
	}
	logs, w := &accessLogs{}, newWorld()
	w.edges = logs.stats
	cfg := trialConfig(t, 20*time.Second)
	cfg.AckTimeout = 5 * time.Second
	cfg.Edge.Listen, cfg.Edge.Observe = freeport.ForTest(t), logs.serve(t)
	sound := instance(http.StatusOK)
	write(t, cfg.Endpoints, strings.NewReplacer("127.0.0.1:9101", sound, "127.0.0.1:9102", sound, "127.0.0.1:9103", instance(http.StatusInternalServerError)).Replace(endpoints))
	replacePolicy(t, cfg, withRule("{name: none, match: [{path: /none}]}"))
	p := run(t, cfg, w)
	for _, id := range []string{"edge-1", "edge-2"} {
		boot := bootstrap.DefaultConfig()
		boot.XDS, boot.ID = p.xds, id
		envoytest.StartEdited(t, boot, strictly).WaitReady(t)
	}
	p.newest("first", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionInForce })

	// The kernel spreads connections over both Envoys, which listen on one port.
	ctx, stop := context.WithCancel(t.Context())
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var load sync.WaitGroup
	load.Go(func() {
		pause := time.NewTicker(10 * time.Millisecond)
		defer pause.Stop()
		for ctx.Err() == nil {
			for _, path := range []string{"/v1/me", "/try"} {
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+cfg.Edge.Listen+path, nil)
				if resp, err := client.Do(req); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}
			<-pause.C
		}
	})
	defer load.Wait()
	defer stop()
	eventually(t, "requests at both", func() bool { return logs.at("edge-1", "") > 20 && logs.at("edge-2", "") > 20 }, func() any { return logs.stats(sli.Window{To: time.Now()}) })

	replacePolicy(t, cfg, withRule("{name: broken, match: [{path: /try}], pool: isolated}"))
	r := p.newest("the broken one is taken back", func(r ctlapi.Revision) bool { return r.Number == 2 && r.State == ctlapi.RevisionRolledBack })
	p.status("taken back", func(s ctlapi.Status) bool { return acked(s) && s.RolledBack != nil && s.Edges[1].InSync })
	t.Log(r.Why)
	if !strings.Contains(r.Why, "edge edge-1") || !strings.Contains(r.Why, "errors in") {
		t.Errorf("history: %+v", r)
	}

	replacePolicy(t, cfg, withRule("{name: refused, match: [{regex: '/bad[a-z]{70}'}]}"))
	r = p.newest("the refused one is taken back", func(r ctlapi.Revision) bool { return r.Number == 3 && r.State == ctlapi.RevisionRolledBack })
	p.status("taken back", func(s ctlapi.Status) bool { return acked(s) && s.RolledBack != nil && s.Edges[1].InSync })
	t.Log(r.Why)
	if !strings.Contains(r.Why, "edge edge-1 refused rds") || !strings.Contains(r.Why, "policy.yaml:") {
		t.Errorf("history: %+v", r)
	}

	replacePolicy(t, cfg, withRule("{name: good, match: [{path: /try}], timeout: 3s}"))
	r = p.newest("the good one is in force", func(r ctlapi.Revision) bool { return r.Number == 4 && r.State == ctlapi.RevisionInForce })
	eventually(t, "the good one serves at both", func() bool { return logs.at("edge-1", "good") > 0 && logs.at("edge-2", "good") > 0 }, func() any { return logs.stats(sli.Window{To: time.Now()}) })
	if n := logs.at("edge-1", "broken"); n == 0 || logs.at("edge-2", "broken") > 0 {
		t.Errorf("the broken rule had %d requests at the first edge and %d at the other", n, logs.at("edge-2", "broken"))
	}
	for _, s := range p.status("edges", acked).Edges {
		if s.ID == "edge-2" && len(s.Nacks) > 0 {
			t.Errorf("the other edge refused %+v", s.Nacks)
		}
	}
	t.Logf("requests at the edges: %d and %d", logs.at("edge-1", ""), logs.at("edge-2", ""))
}
