package api

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestLimiterForgetsOnlyWhatIsIdle(t *testing.T) {
	l := newLimiter(Rate{PerSecond: 1, Burst: 2})
	now := time.Unix(1000, 0)
	for range 2 {
		if !l.allow("busy", now) {
			t.Fatal("refused within the burst")
		}
	}
	if l.allow("busy", now) {
		t.Fatal("allowed beyond the burst")
	}
	if !l.allow("busy", now.Add(time.Second)) {
		t.Fatal("refused after a second")
	}
	for i := range maxBuckets + 1000 {
		l.allow(fmt.Sprint(i), now)
	}
	if n := len(l.buckets); n > maxBuckets {
		t.Errorf("%d buckets", n)
	}
}

func TestPanicIsAnErrorOfTheList(t *testing.T) {
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	s := &server{metrics: m, deps: Deps{Log: slog.New(slog.DiscardHandler)}}
	w := httptest.NewRecorder()
	s.catch(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") })).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 500 || !strings.Contains(w.Body.String(), `"code":"internal"`) || strings.Contains(w.Body.String(), "boom") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if n := testutil.ToFloat64(m.panics); n != 1 {
		t.Errorf("%v counted", n)
	}
}
