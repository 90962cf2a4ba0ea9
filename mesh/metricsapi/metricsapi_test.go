package metricsapi_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	external "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/kubetest"
	"github.com/tracegate/tracegate/mesh/metricsapi"
	"github.com/tracegate/tracegate/mesh/operator"
	"github.com/tracegate/tracegate/mesh/operator/render"
	"github.com/tracegate/tracegate/observability/sli"
)

// measured is two groups of one service in two seconds.
func measured(now time.Time) metricsapi.Snapshot {
	return metricsapi.Snapshot{
		Window: sli.Window{From: now.Add(-2 * time.Second), To: now},
		Stats: []sli.Stats{
			{Group: "aaaaaa", Service: "chat", Pool: "baseline", Requests: 300, Errors: 3, P95: 40 * time.Millisecond, Newest: now.Add(-time.Second)},
			{Group: "bbbbbb", Service: "chat", Pool: "baseline", Requests: 100, Errors: 1, P95: 90 * time.Millisecond, Newest: now.Add(-2 * time.Second)},
			{Group: "aaaaaa", Service: "chat", Pool: "canary", Requests: 10, P95: 10 * time.Millisecond, Newest: now.Add(-2 * time.Second)},
		},
	}
}

func TestValues(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := measured(now)
	for _, c := range []struct {
		metric string
		of     metricsapi.Selection
		milli  int64
	}{
		{metricsapi.QPS, metricsapi.Selection{Service: "chat"}, 205_000},
		{metricsapi.QPS, metricsapi.Selection{Service: "chat", Pool: "baseline"}, 200_000},
		{metricsapi.QPS, metricsapi.Selection{Group: "aaaaaa"}, 155_000},
		{metricsapi.QPS, metricsapi.Selection{Service: "chat", Pool: "isolated"}, 0}, // fresh, and nothing of it
		{metricsapi.P95, metricsapi.Selection{Service: "chat"}, 90_000},
		{metricsapi.P95, metricsapi.Selection{Service: "chat", Group: "aaaaaa"}, 40_000},
		{metricsapi.ErrorRatio, metricsapi.Selection{Pool: "baseline"}, 10},
		{metricsapi.ErrorRatio, metricsapi.Selection{Pool: "isolated"}, 0},
	} {
		v, err := s.Value(c.metric, c.of, now, 5*time.Second)
		if err != nil || v.Milli != c.milli || !v.At.Equal(now.Add(-time.Second)) {
			t.Errorf("%s of %+v: %+v %v, want %d", c.metric, c.of, v, err, c.milli)
		}
	}
	if _, err := s.Value(metricsapi.QPS, metricsapi.Selection{Service: "chat"}, now.Add(10*time.Second), 5*time.Second); !errors.Is(err, metricsapi.ErrStale) {
		t.Errorf("stale: %v", err)
	}
	if _, err := (metricsapi.Snapshot{}).Value(metricsapi.QPS, metricsapi.Selection{Service: "chat"}, now, 5*time.Second); !errors.Is(err, metricsapi.ErrStale) {
		t.Errorf("nothing measured: %v", err)
	}
	if _, err := s.Value("traffic_group_p99", metricsapi.Selection{}, now, 5*time.Second); !errors.Is(err, metricsapi.ErrUnknown) {
		t.Errorf("unknown: %v", err)
	}
}

func api(now time.Time, last func() metricsapi.Snapshot) metricsapi.API {
	return metricsapi.API{
		Last: last, StaleAfter: 5 * time.Second, Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler),
		Group: func(_ context.Context, _, name string) (group.ID, bool) { return "aaaaaa", name == "acme" },
	}
}

func TestCalls(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	h := api(now, func() metricsapi.Snapshot { return measured(now) }).Handler()
	const ext, cus = "/apis/external.metrics.k8s.io/v1beta1", "/apis/custom.metrics.k8s.io/v1beta2"
	for _, c := range []struct {
		path string
		code int
		has  string
	}{
		{"/apis/external.metrics.k8s.io", 200, `"preferredVersion":{"groupVersion":"external.metrics.k8s.io/v1beta1"`},
		{ext, 200, `{"name":"traffic_group_qps","singularName":"","namespaced":true,"kind":"ExternalMetricValueList","verbs":["get"]}`},
		{cus, 200, `"name":"services/traffic_group_error_ratio"`},
		{ext + "/namespaces/shop/traffic_group_qps?labelSelector=service%3Dchat%2Cpool%3Dbaseline", 200, `"timestamp":"2027-01-15T07:59:59Z","value":"200"`},
		{ext + "/namespaces/shop/traffic_group_qps?labelSelector=group%3Dacme", 200, `"value":"155"`},
		{ext + "/namespaces/shop/traffic_group_qps?labelSelector=group%3Dnobody", 404, "there is no TrafficGroup nobody"},
		{ext + "/namespaces/shop/traffic_group_qps", 400, "names none of service, pool and group"},
		{ext + "/namespaces/shop/traffic_group_qps?labelSelector=color%3Dred", 400, "unknown key color"},
		{ext + "/namespaces/shop/traffic_group_qps?labelSelector=service+in+(a,b)", 400, "labelSelector: only key=value"},
		{ext + "/namespaces/shop/other?labelSelector=service%3Dchat", 404, "no such metric"},
		{cus + "/namespaces/shop/services/chat/traffic_group_p95_milliseconds?metricLabelSelector=pool%3Dcanary", 200, `"value":"10"`},
		{cus + "/namespaces/shop/services/chat/traffic_group_qps?metricLabelSelector=service%3Dother", 400, "service is named by the path"},
		{"/api", 404, "nothing is served"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, c.path, http.NoBody))
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.has) {
			t.Errorf("%s: %d %s\nwant %d %s", c.path, w.Code, w.Body, c.code, c.has)
		}
	}
	stale := api(now.Add(time.Minute), func() metricsapi.Snapshot { return measured(now) }).Handler()
	w := httptest.NewRecorder()
	stale.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, ext+"/namespaces/shop/traffic_group_qps?labelSelector=service%3Dchat", http.NoBody))
	if !strings.Contains(w.Body.String(), `"items":[]`) {
		t.Errorf("stale: %s", w.Body)
	}
}

type statsFunc func(sli.Window) ([]sli.Stats, error)

func (f statsFunc) GroupStats(_ context.Context, w sli.Window, _ ...string) ([]sli.Stats, error) {
	return f(w)
}

func TestPollerKeepsTheLastSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		p := &metricsapi.Poller{Log: slog.New(slog.DiscardHandler), Stats: statsFunc(func(w sli.Window) ([]sli.Stats, error) {
			if down.Load() {
				return nil, errors.New("away")
			}
			return []sli.Stats{{Service: "chat", Requests: 2, Newest: w.To}}, nil
		})}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		synctest.Wait()
		first := p.Last().Newest()
		time.Sleep(time.Second)
		synctest.Wait()
		if second := p.Last().Newest(); !second.After(first) {
			t.Error("nothing new after a second")
		}
		down.Store(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, err := p.Last().Value(metricsapi.QPS, metricsapi.Selection{Service: "chat"}, time.Now(), 5*time.Second); !errors.Is(err, metricsapi.ErrStale) {
			t.Errorf("statistics are away: %v", err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestAutoscalerFollowsTheMetric runs a real API server, which asks us as an
// aggregated one, and a real autoscaler.
func TestAutoscalerFollowsTheMetric(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Kubernetes")
	}
	c := kubetest.New(t, kubetest.Config{Controllers: true, AutoscalerSync: time.Second})
	s, err := operator.NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	cl, err := client.New(c.Admin(), client.Options{Scheme: s})
	if err != nil {
		t.Fatal(err)
	}
	var qps atomic.Int64
	var stale atomic.Bool
	qps.Store(100)
	a := api(time.Time{}, func() metricsapi.Snapshot {
		now := time.Now()
		newest := now
		if stale.Load() {
			newest = now.Add(-time.Minute)
		}
		return metricsapi.Snapshot{Window: sli.Window{From: now.Add(-time.Second), To: now}, Stats: []sli.Stats{
			{Service: "web", Pool: "baseline", Requests: uint64(qps.Load()), Newest: newest},
		}}
	})
	a.Now = time.Now
	aggregate(t, c, cl, a)

	var ms v1alpha1.MicroService
	if err := yaml.Unmarshal([]byte(`
metadata: {name: web, namespace: default}
spec:
  image: example.org/web:1
  ports: [{name: http, port: 80}]
  autoscaling: {minReplicas: 1, maxReplicas: 20, scaleDownSeconds: 0, metrics: [{qpsPerPod: 50}]}
`), &ms); err != nil {
		t.Fatal(err)
	}
	objects, err := render.Objects(&ms, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		o.SetOwnerReferences(nil)
		if err := kubetest.Apply(t.Context(), cl, "default", o); err != nil {
			t.Fatal(err)
		}
	}
	autoscaler := func() (hpa autoscalingv2.HorizontalPodAutoscaler) {
		if err := cl.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "web-baseline"}, &hpa); err != nil {
			t.Fatal(err)
		}
		return hpa
	}
	eventually(t, func() string {
		if n := autoscaler().Status.DesiredReplicas; n != 2 {
			return "want 2 pods, has " + strconv.Itoa(int(n))
		}
		return ""
	})
	qps.Store(400)
	begin := time.Now()
	eventually(t, func() string {
		if n := autoscaler().Status.DesiredReplicas; n != 8 {
			return "want 8 pods, has " + strconv.Itoa(int(n))
		}
		return ""
	})
	t.Log("8 pods wanted", time.Since(begin), "after the metric")

	stale.Store(true)
	qps.Store(0)
	eventually(t, func() string {
		hpa := autoscaler()
		for _, cond := range hpa.Status.Conditions {
			if cond.Type == autoscalingv2.ScalingActive && cond.Status == corev1.ConditionFalse {
				return ""
			}
		}
		return "the autoscaler goes on with a stale metric"
	})
	if n := autoscaler().Status.DesiredReplicas; n != 8 {
		t.Errorf("%d pods wanted with a stale metric, want 8 as before", n)
	}
}

func eventually(t *testing.T, check func() string) {
	t.Helper()
	deadline, tick := time.NewTimer(3*time.Minute), time.NewTicker(50*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for {
		said := check()
		if said == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal(said)
		}
	}
}

// aggregate serves the API and registers it.
func aggregate(t *testing.T, c *kubetest.Cluster, cl client.Client, a metricsapi.API) {
	t.Helper()
	cert, key, err := c.Sign("metrics", "metrics.default.svc", "localhost")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for name, data := range map[string][]byte{certFile: cert, keyFile: key} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config, err := metricsapi.TLS(t.Context(), c.Admin(), certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(a.Handler())
	server.TLS = config
	server.StartTLS()
	t.Cleanup(server.Close)
	refusesStrangers(t, c, server)

	if err := c.Aggregate(t.Context(), cl, "metrics", external.SchemeGroupVersion, server.Listener.Addr()); err != nil {
		t.Fatal(err)
	}
}

// refusesStrangers asks as an administrator of the cluster, but past the API server.
func refusesStrangers(t *testing.T, c *kubetest.Cluster, server *httptest.Server) {
	t.Helper()
	admin := c.Admin()
	admin.Host = server.URL
	admin.CAData = c.CA()
	web, err := rest.HTTPClientFor(admin)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://localhost:"+port+"/healthz", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := web.Do(req); err == nil {
		resp.Body.Close()
		t.Error("somebody who is not the API server was answered")
	}
}
