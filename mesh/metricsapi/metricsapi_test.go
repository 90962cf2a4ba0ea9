package metricsapi_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	external "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"

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
		{metricsapi.ErrorFree, metricsapi.Selection{Service: "chat"}, 203_000},
		{metricsapi.ErrorFree, metricsapi.Selection{Service: "chat", Group: "bbbbbb"}, 49_500},
		{metricsapi.ErrorFree, metricsapi.Selection{Service: "chat", Pool: "isolated"}, 0},
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

// measure is what stands for telemetry: statistics that a test sets.
type measure struct {
	mu    sync.Mutex
	stats map[string]sli.Stats // by service, of one second
	stale bool
}

func (m *measure) set(service string, s sli.Stats) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.Service, s.Pool = service, "baseline"
	m.stats[service] = s
}

func (m *measure) goStale() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stale = true
}

func (m *measure) last() metricsapi.Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	s := metricsapi.Snapshot{Window: sli.Window{From: now.Add(-time.Second), To: now}}
	for _, st := range m.stats {
		st.Newest = now
		if m.stale {
			st.Newest = now.Add(-time.Minute)
		}
		s.Stats = append(s.Stats, st)
	}
	return s
}

// scaled is a cluster whose autoscalers ask us.
type scaled struct {
	t       *testing.T
	client  client.Client
	measure *measure
}

func startScaled(t *testing.T) scaled {
	t.Helper()
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
	m := &measure{stats: map[string]sli.Stats{}}
	a := api(time.Time{}, m.last)
	a.Now = time.Now
	aggregate(t, c, cl, a)
	return scaled{t, cl, m}
}

// service makes what the operator makes of a service with these bounds and metrics.
func (s scaled) service(name string, least, most int32, metrics ...v1alpha1.ScaleMetric) {
	s.t.Helper()
	ms := &v1alpha1.MicroService{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: v1alpha1.MicroServiceSpec{
		Image: "example.org/web:1", Ports: []v1alpha1.Port{{Name: "http", Port: 80}},
		Autoscaling: &v1alpha1.Autoscaling{MinReplicas: least, MaxReplicas: most, Metrics: metrics},
	}}
	objects, err := render.Objects(ms, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, o := range objects {
		o.SetOwnerReferences(nil)
		if err := kubetest.Apply(s.t.Context(), s.client, "default", o); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s scaled) autoscaler(name string) (hpa autoscalingv2.HorizontalPodAutoscaler) {
	s.t.Helper()
	if err := s.client.Get(s.t.Context(), client.ObjectKey{Namespace: "default", Name: name + "-baseline"}, &hpa); err != nil {
		s.t.Fatal(err)
	}
	return hpa
}

// wants waits until the autoscaler wants that many pods, and has had its metric.
func (s scaled) wants(name string, pods int32) {
	s.t.Helper()
	eventually(s.t, func() string {
		hpa := s.autoscaler(name)
		if n := hpa.Status.DesiredReplicas; n != pods || len(hpa.Status.CurrentMetrics) == 0 {
			return fmt.Sprintf("%s: want %d pods, has %d by %d metrics", name, pods, n, len(hpa.Status.CurrentMetrics))
		}
		return ""
	})
}

// TestAutoscalerFollowsTheMetric runs a real API server, which asks us as an
// aggregated one, and a real autoscaler.
func TestAutoscalerFollowsTheMetric(t *testing.T) {
	s := startScaled(t)
	s.measure.set("web", sli.Stats{Requests: 100})
	s.service("web", 1, 20, v1alpha1.ScaleMetric{QPSPerPod: new(int64(50))})
	s.wants("web", 2)
	begin := time.Now()
	s.measure.set("web", sli.Stats{Requests: 400})
	s.wants("web", 8)
	t.Log("8 pods wanted", time.Since(begin), "after the metric")

	s.measure.goStale()
	s.measure.set("web", sli.Stats{})
	eventually(t, func() string {
		for _, cond := range s.autoscaler("web").Status.Conditions {
			if cond.Type == autoscalingv2.ScalingActive && cond.Status == corev1.ConditionFalse {
				return ""
			}
		}
		return "the autoscaler goes on with a stale metric"
	})
	if n := s.autoscaler("web").Status.DesiredReplicas; n != 8 {
		t.Errorf("%d pods wanted with a stale metric, want 8 as before", n)
	}
}

// TestAutoscalerFollowsLatencyAndErrors is about the other two metrics that a MicroService may have.
func TestAutoscalerFollowsLatencyAndErrors(t *testing.T) {
	s := startScaled(t)
	s.measure.set("slow", sli.Stats{Requests: 1, P95: 600 * time.Millisecond})
	s.service("slow", 1, 6, v1alpha1.ScaleMetric{P95Milliseconds: new(int64(200))})
	s.measure.set("failing", sli.Stats{Requests: 400, Errors: 300})
	s.service("failing", 1, 20, v1alpha1.ScaleMetric{ErrorFreeQPSPerPod: new(int64(50))})

	s.wants("failing", 2) // 8 by all requests
	s.measure.set("failing", sli.Stats{Requests: 400})
	s.wants("failing", 8)

	s.wants("slow", 6) // 3, then more, for it stays as slow
	if m := s.autoscaler("slow").Status.CurrentMetrics[0]; m.External == nil || m.External.Current.Value == nil || m.External.Current.Value.Value() != 600 {
		t.Errorf("the autoscaler goes by %+v", m.External)
	}
	s.measure.set("slow", sli.Stats{Requests: 1, P95: 60 * time.Millisecond})
	s.wants("slow", 1)
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
