package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// hint is what to say after "unknown key": the nearest known one, else all of them.
func hint(got string, known map[string]int) string {
	names := slices.Sorted(maps.Keys(known))
	best, bestDist := "", len(got)/2+2
	for _, name := range names {
		if dist := distance(strings.ToLower(clip(got)), strings.ToLower(name)); dist < bestDist {
			best, bestDist = name, dist
		}
	}
	if best != "" {
		return fmt.Sprintf(", did you mean %q?", best)
	}
	return ", known here: " + strings.Join(names, ", ")
}

// distance is the Levenshtein distance of two short strings.
func distance(a, b string) int {
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := range len(a) {
		cur := make([]int, len(b)+1)
		cur[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			cur[j+1] = min(prev[j]+cost, prev[j+1]+1, cur[j]+1)
		}
		prev = cur
	}
	return prev[len(b)]
}
