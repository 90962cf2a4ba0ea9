package operator

import (
	"strconv"
	"testing"
)

func TestCost(t *testing.T) {
	for gauge, want := range map[float64]string{0: "0", 0.4: "0", 1: "1", 100: "97", 104: "107", 1e12: strconv.Itoa(1<<31 - 1)} {
		if got := cost(gauge); got != want {
			t.Errorf("cost of %v: %s, want %s", gauge, got, want)
		}
	}
	last := 0
	for g := 1.0; g < 1e6; g *= 1.02 {
		n, err := strconv.Atoi(cost(g))
		if err != nil || n < last || float64(n) > 1.2*g+1 || float64(n) < 0.8*g-1 {
			t.Fatalf("cost of %v: %d after %d, %v", g, n, last, err)
		}
		last = n
	}
}
