package remotewrite

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tracegate/tracegate/edge/artifact/engine"
	"github.com/tracegate/tracegate/mesh/freeport"
)

// counted is a registry with a group's counter and histogram, and a metric of no group.
func counted(requests float64) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "traffic_group_requests_total"}, []string{"group"})
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "traffic_group_duration_seconds", Buckets: []float64{0.1, 1}}, []string{"group"})
	other := prometheus.NewCounter(prometheus.CounterOpts{Name: "other_total"})
	reg.MustRegister(c, h, other)
	c.WithLabelValues("127d33").Add(requests)
	for _, v := range []float64{0.05, 0.5, 0.5, 5} {
		h.WithLabelValues("127d33").Observe(v)
	}
	return reg
}

func writer(t *testing.T, to string, from prometheus.Gatherer) (*Writer, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	w, err := New(Config{URL: to, Token: "secret", Every: 10 * time.Second, Labels: map[string]string{"instance": "here"}}, from, reg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return w, reg
}

// TestPrometheusTakesIt writes to a real Prometheus and asks it.
func TestPrometheusTakesIt(t *testing.T) {
	base := startPrometheus(t)
	w, reg := writer(t, base+"/api/v1/write", counted(42))
	now := time.Now()
	if err := w.Write(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if n := testutil.ToFloat64(w.sent); n != 6 {
		t.Errorf("samples written = %v, want 6", n)
	}
	for query, want := range map[string]string{
		`traffic_group_requests_total{group="127d33",instance="here"}`:    "42",
		`traffic_group_duration_seconds_bucket{le="1"}`:                   "3",
		`traffic_group_duration_seconds_bucket{le="+Inf"}`:                "4",
		`traffic_group_duration_seconds_sum`:                              "6.05",
		`histogram_quantile(0.5, traffic_group_duration_seconds_bucket)`:  "0.55",
		`count({__name__=~".+"}) - count({__name__=~"traffic_group_.+"})`: "0",
	} {
		if got := ask(t, base, query); got != want {
			t.Errorf("%s = %q, want %s", query, got, want)
		}
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %v", problems, err)
	}
}

// ask gives the value of a query that has one result.
func ask(t *testing.T, base, query string) string {
	t.Helper()
	resp, err := http.Get(base + "/api/v1/query?query=" + url.QueryEscape(query)) //nolint:noctx // bounded by the test
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	if len(out.Data.Result) != 1 {
		return ""
	}
	value, _ := out.Data.Result[0].Value[1].(string)
	return value
}

func startPrometheus(t *testing.T) string {
	t.Helper()
	e, err := engine.Prometheus(t.Context(), slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	addr := freeport.ForTest(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, []byte("global: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(e.Bin, "prometheus"), "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+addr, "--web.enable-remote-write-receiver", "--log.level=warn")
	cmd.Env = append(os.Environ(), e.Env...)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	deadline := time.Now().Add(60 * time.Second)
	for {
		resp, err := http.Get("http://" + addr + "/-/ready") //nolint:noctx // bounded by the test
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return "http://" + addr
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("prometheus is not ready: %v", err)
		}
		time.Sleep(20 * time.Millisecond) // polling a condition with a deadline
	}
}

// TestFailuresAreCounted has the other side refuse: that is counted, the token was sent, and
// the next time makes up for it.
func TestFailuresAreCounted(t *testing.T) {
	var token string
	code := http.StatusBadRequest
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token = r.Header.Get("Authorization")
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(code)
	}))
	defer server.Close()
	w, _ := writer(t, server.URL+"/write", counted(1))
	if err := w.Write(t.Context(), time.Now()); err == nil || !strings.Contains(err.Error(), "400") {
		t.Errorf("error = %v, want one with 400", err)
	}
	code = http.StatusNoContent
	if err := w.Write(t.Context(), time.Now()); err != nil {
		t.Error(err)
	}
	if token != "Bearer secret" || testutil.ToFloat64(w.failed) != 1 || testutil.ToFloat64(w.sent) != 6 {
		t.Errorf("token %q, failed %v, sent %v", token, testutil.ToFloat64(w.failed), testutil.ToFloat64(w.sent))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestConfigValidateNamesTheKey(t *testing.T) {
	for key, c := range map[string]Config{
		"url":   {URL: "localhost:9090", Every: time.Second},
		"every": {URL: "http://localhost:9090/api/v1/write"},
	} {
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), key) {
			t.Errorf("error = %v, want one about %s", err, key)
		}
	}
	if err := (Config{URL: "http://u:p@h/w", Every: time.Second}).Validate(); err == nil || strings.Contains(err.Error(), ":p@") {
		t.Errorf("error = %v, want one without the password", err)
	}
}
