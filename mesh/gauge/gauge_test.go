package gauge_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tracegate/tracegate/mesh/gauge"
)

func TestRead(t *testing.T) {
	answer := "# TYPE core_sockets gauge\ncore_sockets{kind=\"a\"} 3\ncore_sockets{kind=\"b\"} 4\n"
	code := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			t.Error(r.URL)
		}
		w.WriteHeader(code)
		_, _ = w.Write([]byte(answer))
	}))
	defer server.Close()
	ask := func() (float64, error) {
		return gauge.Read(t.Context(), server.Client(), strings.TrimPrefix(server.URL, "http://"), "core_sockets")
	}
	if v, err := ask(); v != 7 || err != nil {
		t.Error(v, err)
	}
	answer = "other 1\n"
	if _, err := ask(); err == nil || !strings.Contains(err.Error(), "no metric core_sockets") {
		t.Error(err)
	}
	answer = "{not metrics"
	if _, err := ask(); err == nil || !strings.Contains(err.Error(), "read metrics") {
		t.Error(err)
	}
	code = http.StatusServiceUnavailable
	if _, err := ask(); err == nil || !strings.Contains(err.Error(), "503") {
		t.Error(err)
	}
}
