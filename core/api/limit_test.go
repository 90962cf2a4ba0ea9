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

// TestAddressOfAClient: of IPv6 it is the network, in which a client has as many as it likes.
func TestAddressOfAClient(t *testing.T) {
	s := &server{cfg: DefaultConfig()}
	for _, c := range []struct{ peer, forwarded, want string }{
		{"192.0.2.7:1", "", "192.0.2.7"},
		{"[::ffff:192.0.2.7]:1", "", "192.0.2.7"},
		{"[2001:db8:1:2::1]:1", "", "2001:db8:1:2::/64"},
		{"[2001:db8:1:2:ffff::1]:1", "", "2001:db8:1:2::/64"},
		{"[fe80::1%eth0]:1", "", "fe80::/64"},
		{"[2001:db8:1:3::1]:1", "192.0.2.7", "2001:db8:1:3::/64"}, // no proxy that is trusted
		{"127.0.0.1:1", "192.0.2.7", "192.0.2.7"},
		{"[::1]:1", "192.0.2.1, 2001:db8:1:2:3::4", "2001:db8:1:2::/64"},
		{"127.0.0.1:1", "::ffff:192.0.2.7", "192.0.2.7"},
		{"127.0.0.1:1", "who knows", "127.0.0.1"},
		{"pipe", "", "pipe"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.peer
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if got := s.address(r); got != c.want {
			t.Errorf("%s for %q: %s, want %s", c.peer, c.forwarded, got, c.want)
		}
	}
}
