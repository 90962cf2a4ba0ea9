package strict

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// hint is what to say after "unknown key": the nearest known one, else all of them.
func hint(got string, known map[string]int) string {
	names := slices.Sorted(maps.Keys(known))
	best, bestDist := "", len(got)/2+2
	for _, name := range names {
		if dist := levenshtein.ComputeDistance(strings.ToLower(Clip(got)), strings.ToLower(name)); dist < bestDist {
			best, bestDist = name, dist
		}
	}
	if best != "" {
		return fmt.Sprintf(", did you mean %q?", best)
	}
	return ", known here: " + strings.Join(names, ", ")
}
