package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// testRelease lets users of a moved group go home step by step: exactly those whose place
// is below the share, none of whom goes back as it grows; who is not known comes last; and
// nobody can choose his place.
func testRelease(t *testing.T, s *stack) {
	const users = 60
	send := make([]request, users)
	for i := range send {
		send[i] = request{header: header("X-Env", "canary", "Authorization", "Bearer "+s.token(jwt.MapClaims{"sub": user(i), "name": "n", "tenant": "public"}))}
	}
	_, got := s.do(send[0])
	id := group.ID(got.Header.Get(semconv.HeaderGroup))
	if got.Pool != "canary" || !id.Valid() {
		t.Fatalf("before: group %q is served by %s", id, got.Pool)
	}
	s.moves[id] = semconv.PoolIsolated
	for _, share := range []uint32{0, 1, 10, 50, 99} {
		s.home = map[group.ID]uint32{id: share}
		if share == 0 {
			s.home = nil
		}
		s.apply()
		want := func(i int) string {
			if group.Place(id, user(i)) < share {
				return semconv.PoolCanary
			}
			return semconv.PoolIsolated
		}
		waitFor(t, fmt.Sprintf("a share of %d%%", share), func() bool {
			for i, r := range send {
				if _, got := s.do(r); got.Pool != want(i) {
					return false
				}
			}
			return true
		})
		for i, r := range send {
			if _, got := s.do(r); got.Pool != want(i) || got.Header.Get("X-Traffic-Group") != string(id) {
				t.Errorf("at %d%% %s is served by %s, want %s", share, user(i), got.Pool, want(i))
			}
		}
		stranger := request{header: header("X-Env", "canary", "X-Traffic-Place", "00")}
		if _, got := s.do(stranger); got.Pool == "isolated" && got.Header.Get(semconv.HeaderPlace) != "" {
			t.Errorf("a client's own place came through: %v", got.Header)
		}
	}
	delete(s.moves, id)
	s.home = nil
	s.apply()
	waitFor(t, "the last step", func() bool { _, got := s.do(send[0]); return got.Pool == "canary" })
}

func user(i int) string { return fmt.Sprintf("user-%d", i) }

// testShed limits one group on every route, and no other.
func testShed(t *testing.T, s *stack) {
	send := request{header: header("X-Env", "canary")}
	before := s.counters()
	s.sheds = map[group.ID]uint32{canary.ID(): 5}
	s.apply()
	waitFor(t, "the limit", func() bool { resp, _ := s.do(send); return resp.StatusCode == http.StatusTooManyRequests })
	start, passed := time.Now(), 0
	for range 40 {
		switch resp, _ := s.do(send); resp.StatusCode {
		case http.StatusOK:
			passed++
		case http.StatusTooManyRequests:
		default:
			t.Errorf("status %d", resp.StatusCode)
		}
		if resp, _ := s.do(request{}); resp.StatusCode != http.StatusOK {
			t.Fatalf("another group is limited: %d", resp.StatusCode)
		}
	}
	if most := 5 + 5*int(1+time.Since(start)/time.Second); passed > most {
		t.Errorf("%d passed in %s, at most %d should", passed, time.Since(start), most)
	}
	s.sheds = nil
	s.apply()
	waitFor(t, "the end of the limit", func() bool {
		for range 20 {
			if resp, _ := s.do(send); resp.StatusCode != http.StatusOK {
				return false
			}
		}
		return true
	})
	if after := s.counters(); after.listeners != before.listeners || after.ecds != before.ecds {
		t.Errorf("a limit touched more than routes:\nbefore %+v\nafter  %+v", before, after)
	}
}
