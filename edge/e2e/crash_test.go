package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/observability/semconv"
)

// crashing is a filter whose virtual machine dies at the word of a client.
func crashing(t *testing.T) plan.Wasm {
	t.Helper()
	return compiled(t, "github.com/tracegate/tracegate/edge/e2e/testdata/crash")
}

// A filter that panics at a request lets it pass without a group, which a counter shows,
// and colors the next one. Where the policy says closed, the routes refuse it.
func TestPanicHealsItself(t *testing.T) {
	for _, tt := range []struct {
		failure   string
		status    int
		uncolored uint64
	}{
		{"open", http.StatusOK, 20},
		{"closed", http.StatusServiceUnavailable, 0},
	} {
		t.Run(tt.failure, func(t *testing.T) {
			s := newStack(t, func(s *stack) {
				s.policy = strings.Replace(s.policy, "failure: open", "failure: "+tt.failure, 1)
				s.edge.Wasm = crashing(t)
			})
			for range 20 {
				resp, got := s.do(request{header: header("X-Crash", "panic")})
				if resp.StatusCode != tt.status || got.Header.Get(semconv.HeaderGroup) != "" {
					t.Fatalf("the panic gave status %d, group %q; want %d and none", resp.StatusCode, got.Header.Get(semconv.HeaderGroup), tt.status)
				}
				if resp, got := s.do(request{}); resp.StatusCode != http.StatusOK || got.Header.Get(semconv.HeaderGroup) != "abcdef" {
					t.Fatalf("the request after it has status %d, group %q", resp.StatusCode, got.Header.Get(semconv.HeaderGroup))
				}
			}
			waitFor(t, "the counter of uncolored requests", func() bool { return s.stat(xds.UncoloredStat) >= tt.uncolored })
			if got := s.stat(xds.UncoloredStat); got != tt.uncolored {
				t.Errorf("%d of %d uncolored requests are counted", got, tt.uncolored)
			}
			if n := s.stat(`^wasm\.traffic\.vm_reload_success$`); n != 0 {
				t.Errorf("%d virtual machines died", n)
			}
		})
	}
}

// A filter whose virtual machine dies costs the request it died of. After that its
// worker serves baseline, which a counter shows, and the next update heals it: nothing is
// refused, not even where it dies of each request.
func TestCrashFailsOpen(t *testing.T) {
	s := newStack(t, func(s *stack) { s.edge.Wasm = crashing(t) })
	if _, got := s.do(request{}); got.Header.Get(semconv.HeaderGroup) != "abcdef" {
		t.Fatalf("the filter does not run: group %q", got.Header.Get(semconv.HeaderGroup))
	}
	if n := s.stat(xds.UncoloredStat); n != 0 {
		t.Errorf("%d uncolored requests with a filter", n)
	}
	if resp, _ := s.do(request{header: header("X-Crash", "fatal")}); resp.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("the crash gave status %d", resp.StatusCode)
	}
	const n = 20
	for range n {
		if resp, got := s.do(request{}); resp.StatusCode != http.StatusOK || got.Pool != "baseline" || got.Header.Get(semconv.HeaderGroup) != "" {
			t.Fatalf("after the crash: status %d, served by %q, group %q", resp.StatusCode, got.Pool, got.Header.Get(semconv.HeaderGroup))
		}
	}
	waitFor(t, "the counter of uncolored requests", func() bool { return s.stat(xds.UncoloredStat) >= n })
	if got := s.stat(xds.UncoloredStat); got != n {
		t.Errorf("%d of %d uncolored requests are counted", got, n)
	}
	for range n {
		if resp, _ := s.do(request{header: header("X-Crash", "fatal")}); resp.StatusCode != http.StatusOK {
			t.Fatalf("after the crash another like it gave status %d", resp.StatusCode)
		}
	}
	s.policy = strings.Replace(s.policy, "tenant: public", "tenant: other", 1)
	s.apply()
	waitFor(t, "the filter to run again", func() bool {
		_, got := s.do(request{})
		return got.Header.Get(semconv.HeaderGroup) == "abcdef"
	})
}

// With failure: closed nothing passes uncolored, and the filter heals by itself.
func TestCrashFailsClosed(t *testing.T) {
	s := newStack(t, func(s *stack) {
		s.policy = strings.Replace(s.policy, "failure: open", "failure: closed", 1)
		s.edge.Wasm = crashing(t)
	})
	for range 3 {
		if resp, _ := s.do(request{header: header("X-Crash", "fatal")}); resp.StatusCode != http.StatusServiceUnavailable {
			t.Fatalf("the crash gave status %d", resp.StatusCode)
		}
		waitFor(t, "the filter to run again", func() bool {
			resp, got := s.do(request{})
			if resp.StatusCode == http.StatusOK && got.Header.Get(semconv.HeaderGroup) == "" {
				t.Fatal("a request passed uncolored")
			}
			return resp.StatusCode == http.StatusOK
		})
	}
	if n := s.stat(`^wasm\.traffic\.vm_reload_success$`); n != 3 {
		t.Errorf("%d reloads of the filter are counted, want 3", n)
	}
}
