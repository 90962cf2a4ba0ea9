package color

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/tracegate/tracegate/mesh/group"
)

// share is the fraction of n users that a percentage takes, and who they are.
func share(t *testing.T, of float64, salt string, n int) map[int]bool {
	t.Helper()
	a, err := Compile(Policy{Cohorts: []Cohort{{Name: "c", Match: Match{Percent: &Percent{Of: of, By: "header:u", Salt: salt}}}}})
	if err != nil {
		t.Fatal(err)
	}
	in := map[int]bool{}
	r := a.NewRequest()
	for u := range n {
		r.Reset()
		r.Add("u", fmt.Sprintf("user-%d", u))
		if a.Assign(r, &Random{}).Cohort != "" {
			in[u] = true
		}
	}
	return in
}

func TestPercentGrowsWithoutMovingAnyone(t *testing.T) {
	const users = 5000
	rng := rand.New(rand.NewPCG(1, 2))
	of, before := 0.0, map[int]bool{}
	for of < 100 {
		of = math.Min(100, math.Round((of+rng.Float64()*20)*100)/100)
		now := share(t, of, "s", users)
		for u := range before {
			if !now[u] {
				t.Fatalf("user %d is out at %v%%", u, of)
			}
		}
		// Four standard deviations.
		want := of / 100 * users
		if d := math.Abs(float64(len(now)) - want); d > 4*math.Sqrt(want*(1-of/100))+1 {
			t.Errorf("%v%% takes %d of %d users", of, len(now), users)
		}
		before = now
	}
	if len(before) != users {
		t.Errorf("100%% takes %d of %d", len(before), users)
	}
}

func TestPercentOfTwoSaltsAreIndependent(t *testing.T) {
	const users = 5000
	a, b := share(t, 50, "a", users), share(t, 50, "b", users)
	both := 0
	for u := range a {
		if b[u] {
			both++
		}
	}
	if both < users/4-150 || both > users/4+150 {
		t.Errorf("%d of %d users are in both halves", both, users)
	}
}

func TestPercentIsTheSameForEver(t *testing.T) {
	// Changing the hash would move users of running experiments.
	for key, want := range map[string]uint32{"": 2447, "user-1": 2068, "user-2": 5109} {
		if got := group.Bucket("canary", key); got != want {
			t.Errorf("bucket of %q is %d, want %d", key, got, want)
		}
	}
	if group.Bucket("ab", "c") == group.Bucket("a", "bc") {
		t.Error("salt and key run together")
	}
}

func TestPercentDefaults(t *testing.T) {
	// By the user's claim, with the cohort's name as salt.
	p := Policy{Cohorts: []Cohort{{Name: "canary", Match: Match{Percent: &Percent{Of: 50}}}}}
	for u := range 100 {
		user := fmt.Sprint("u", u)
		in := assign(t, p, headers{"x-traffic-claims": encode(`{"sub":"` + user + `"}`)}).Cohort != ""
		if want := group.Bucket("canary", user) < 5000; in != want {
			t.Errorf("user %s: in %v, want %v", user, in, want)
		}
	}
}
