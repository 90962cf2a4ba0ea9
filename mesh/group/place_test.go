package group_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/tracegate/tracegate/mesh/group"
)

// TestPlaceIsEvenAndItsOwn: every share of users is the share that is asked for, and
// another group has another order.
func TestPlaceIsEvenAndItsOwn(t *testing.T) {
	t.Parallel()
	const users = 100_000
	a, b := group.ID("aaaaaa"), group.ID("bbbbbb")
	var below [101]int
	same := 0
	for i := range users {
		user := fmt.Sprintf("user-%d", i)
		place := group.Place(a, user)
		if place > 99 {
			t.Fatalf("%s has place %d", user, place)
		}
		for share := place + 1; share <= 100; share++ {
			below[share]++
		}
		if place == group.Place(b, user) {
			same++
		}
	}
	for share, n := range below {
		if got := 100 * float64(n) / users; math.Abs(got-float64(share)) > 0.6 {
			t.Errorf("a share of %d%% has %.2f%% of the users", share, got)
		}
	}
	if got := 100 * float64(same) / users; got > 1.5 {
		t.Errorf("%.2f%% of the users have the same place in both groups", got)
	}
}

func TestPlaceText(t *testing.T) {
	t.Parallel()
	for place, want := range map[uint32]string{0: "00", 7: "07", 42: "42", 99: "99"} {
		if got := group.PlaceText(place); got != want {
			t.Errorf("place %d is written %q, want %q", place, got, want)
		}
	}
}
