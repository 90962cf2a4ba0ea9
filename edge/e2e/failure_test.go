package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/observability/semconv"
)

// brokenFilters cannot run: none, one that is no module, one that refuses its
// configuration.
func brokenFilters(t *testing.T) map[string]func(*stack) {
	t.Helper()
	garbage := filepath.Join(t.TempDir(), "garbage.wasm")
	if err := os.WriteFile(garbage, []byte("\x00asm\x01\x00\x00\x00 no module"), 0o600); err != nil {
		t.Fatal(err)
	}
	return map[string]func(*stack){
		"missing file": func(s *stack) {
			s.edge.Wasm = plan.Wasm{Path: "/no/such/filter.wasm", SHA256: strings.Repeat("ab", 32)}
		},
		"garbage": func(s *stack) { s.edge.Wasm = plan.Wasm{Path: garbage, SHA256: strings.Repeat("cd", 32)} },
	}
}

// A filter that cannot run leaves everyone on baseline, and a counter says so.
func TestBrokenFilterFailsOpen(t *testing.T) {
	for name, spoil := range brokenFilters(t) {
		t.Run(name, func(t *testing.T) {
			s := newStackNoWait(t, spoil)
			waitFor(t, "an answer", func() bool { resp, _, err := s.try(request{}); return err == nil && resp.StatusCode == http.StatusOK })
			resp, got := s.do(request{header: header("X-Env", "canary", "X-Traffic-Group", "abcdef")})
			if resp.StatusCode != http.StatusOK || got.Pool != "baseline" || got.Header.Get(semconv.HeaderGroup) != "" {
				t.Errorf("status %d, served by %q, group %q", resp.StatusCode, got.Pool, got.Header.Get(semconv.HeaderGroup))
			}
			if n := s.stat(`^extension_config_discovery\..*traffic\.config_fail$`); n == 0 {
				t.Error("no counter of the filter shows it")
			}
			waitFor(t, "the counter of uncolored requests", func() bool { return s.stat(xds.UncoloredStat) >= 2 })
		})
	}
}

// With failure: closed nothing reaches the upstream uncolored.
func TestBrokenFilterFailsClosed(t *testing.T) {
	for name, spoil := range brokenFilters(t) {
		t.Run(name, func(t *testing.T) {
			s := newStackNoWait(t, func(s *stack) {
				s.policy = strings.Replace(s.policy, "failure: open", "failure: closed", 1)
				spoil(s)
			})
			waitFor(t, "an answer", func() bool { _, _, err := s.try(request{}); return err == nil })
			for range 20 {
				resp, got := s.do(request{header: header("X-Env", "canary", "X-Traffic-Group", "abcdef")})
				if resp.StatusCode != http.StatusServiceUnavailable {
					t.Fatalf("status %d, served by %q", resp.StatusCode, got.Pool)
				}
			}
		})
	}
}

// A filter that is spoiled later does not replace the one that works, and the edge
// is told apart by the control plane.
func testBrokenUpdate(t *testing.T, s *stack) {
	for name, spoil := range brokenFilters(t) {
		t.Run(name, func(t *testing.T) {
			good := s.edge.Wasm
			spoil(s)
			broken := s.snapshot()
			s.control.Set(broken)
			waitFor(t, "a NACK that names the filter", func() bool {
				for _, e := range s.control.Edges() {
					for _, n := range e.Nacks {
						if n.Version == broken.Version && strings.Contains(n.Resource, "traffic") {
							return true
						}
					}
				}
				return false
			})
			for range 20 {
				if resp, got := s.do(request{header: header("X-Env", "canary")}); resp.StatusCode != http.StatusOK || got.Pool != "canary" {
					t.Fatalf("status %d, served by %q", resp.StatusCode, got.Pool)
				}
			}
			s.edge.Wasm = good
			s.apply()
		})
	}
}

// A control plane that is gone is not missed; the one that comes back finds the edge
// and programs it without touching a listener.
func testControlPlaneAway(t *testing.T, s *stack) {
	send := request{header: header("X-Env", "canary")}
	before := s.counters()
	s.control.stop()
	for range 50 {
		if resp, got := s.do(send); resp.StatusCode != http.StatusOK || got.Pool != "canary" {
			t.Fatalf("without control plane: status %d, served by %q", resp.StatusCode, got.Pool)
		}
	}
	s.control = startControlPlane(s.root, s.control.addr)
	s.apply()
	if after := s.counters(); after != before {
		t.Errorf("the same configuration again touched the edge:\nbefore %+v\nafter  %+v", before, after)
	}
	s.moves[canary.ID()] = semconv.PoolIsolated
	s.apply()
	waitFor(t, "a move by the new one", func() bool { _, got := s.do(send); return got.Pool == "isolated" })
	if after := s.counters(); after.listeners != before.listeners {
		t.Errorf("listeners: before %+v, after %+v", before.listeners, after.listeners)
	}
}
