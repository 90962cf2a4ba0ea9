package xds

import (
	"regexp"
	"testing"

	"github.com/tracegate/tracegate/mesh/group"
)

// TestPlacesBelow holds the expression of every share against every place.
func TestPlacesBelow(t *testing.T) {
	t.Parallel()
	for share := uint32(1); share < 100; share++ {
		re := regexp.MustCompile("^(?:" + placesBelow(share) + ")$")
		for place := range uint32(100) {
			if got, want := re.MatchString(group.PlaceText(place)), place < share; got != want {
				t.Errorf("share %d, place %d: %v, want %v", share, place, got, want)
			}
		}
		if re.MatchString("") {
			t.Errorf("share %d takes who has no place", share)
		}
	}
}
