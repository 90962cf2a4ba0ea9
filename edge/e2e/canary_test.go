package e2e

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/tracegate/tracegate/observability/semconv"
)

// users are named at random, so that each run tries others.
func users(t *testing.T, n int) []string {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("users of seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("u%x", rnd.Uint64())
	}
	return out
}

// asUser sends one request of a user, known by a header or a cookie.
func (r *rules) asUser(by, user string, more ...string) string {
	r.t.Helper()
	h := header(more...)
	switch by {
	case "header":
		h.Set("X-User", user)
	case "cookie":
		h.Set("Cookie", "a=b; user="+user+"; c=d")
	}
	return r.ask(ask{path: "/canary", header: h}).seen.Pool
}

// pick is the pool of a user, by the hash that Envoy has today. Another Envoy with
// another hash would still be sticky and yet flip users once, when edges are
// upgraded: that should be known before.
func pick(user string, canary, isolated float64) string {
	switch place := float64(xxhash.Sum64String(user)%10_000) / 100; {
	case place < canary:
		return "canary"
	case place >= 100-isolated:
		return "isolated"
	default:
		return "baseline"
	}
}

// near fails where share is further from want than six standard deviations of a
// fair draw.
func near(t *testing.T, what string, got, n int, percent float64) {
	t.Helper()
	p := percent / 100
	if off := math.Abs(float64(got) - p*float64(n)); off > 6*math.Sqrt(p*(1-p)*float64(n))+0.5 {
		t.Errorf("%s: %d of %d users, want about %v%%", what, got, n, percent)
	}
}

// testCanary holds the property that a user never flips while a canary grows: at
// each step only users of baseline come over, as many as the step says, and each
// request of a user goes where the one before went.
func testCanary(t *testing.T, r *rules) {
	rnd := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for _, by := range []string{"header", "cookie"} {
		t.Run(by, func(t *testing.T) {
			all := users(t, 300)
			known := map[string]string{"header": "header: X-User", "cookie": "cookie: user"}[by]
			steps := []float64{0, 5, 10, 100}
			for range 2 {
				steps = append(steps, float64(1000+rnd.IntN(8999))/100)
			}
			slices.Sort(steps)
			in := map[string]bool{}
			for _, percent := range steps {
				r.set(fmt.Sprintf("{name: canary, match: [{path: /canary}], canary: {%s, pools: [{pool: canary, percent: %v}]}}", known, percent))
				count := 0
				for _, u := range all {
					pool := r.asUser(by, u)
					if want := pick(u, percent, 0); pool != want {
						t.Errorf("at %v%% user %s is served by %s, want %s", percent, u, pool, want)
					}
					if again := r.asUser(by, u); again != pool {
						t.Fatalf("at %v%% user %s is served by %s and then by %s", percent, u, pool, again)
					}
					if in[u] && pool != "canary" {
						t.Errorf("at %v%% user %s fell out of the canary", percent, u)
					}
					if pool == "canary" {
						in[u] = true
						count++
					}
				}
				near(t, fmt.Sprintf("at %v%%", percent), count, len(all), percent)
			}
			// Who cannot be known stays where the product is proven.
			for range 20 {
				if pool := r.asUser("nothing", ""); pool != "baseline" {
					t.Errorf("a stranger is served by %s", pool)
				}
			}
		})
	}
	// A cohort and a moved group keep their pools under a canary of 0 and of 100.
	for _, percent := range []int{0, 100} {
		rule := fmt.Sprintf("{name: canary, match: [{path: /canary}], canary: {header: X-User, pools: [{pool: isolated, percent: %d}]}}", percent)
		r.set(rule)
		if pool := r.asUser("header", "u", "X-Env", "canary"); pool != "canary" {
			t.Errorf("the cohort is served by %s", pool)
		}
		r.moves[canary.ID()] = semconv.PoolBaseline
		r.set(rule)
		if pool := r.asUser("header", "u", "X-Env", "canary"); pool != "baseline" {
			t.Errorf("the moved group is served by %s", pool)
		}
		clear(r.moves)
	}
}

// testCanaryTwoPools: two canaries grow at the same time, towards each other, and
// neither takes users of the other.
func testCanaryTwoPools(t *testing.T, r *rules) {
	all := users(t, 300)
	at := map[string]string{}
	for _, step := range [][2]float64{{5, 0}, {5, 10}, {30, 10}, {30, 50}, {50, 50}} {
		r.set(fmt.Sprintf("{name: canary, match: [{path: /canary}], canary: {header: x-user, pools: [{pool: canary, percent: %v}, {pool: isolated, percent: %v}]}}", step[0], step[1]))
		count := map[string]int{}
		for _, u := range all {
			pool := r.asUser("header", u)
			if want := pick(u, step[0], step[1]); pool != want {
				t.Errorf("at %v user %s is served by %s, want %s", step, u, pool, want)
			}
			if was := at[u]; was != "" && was != "baseline" && was != pool {
				t.Errorf("at %v user %s went from %s to %s", step, u, was, pool)
			}
			at[u] = pool
			count[pool]++
		}
		near(t, fmt.Sprintf("canary at %v", step), count["canary"], len(all), step[0])
		near(t, fmt.Sprintf("isolated at %v", step), count["isolated"], len(all), step[1])
	}
}
