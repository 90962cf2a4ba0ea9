package operator

import (
	"fmt"
	"slices"
	"strings"
)

// merged are lists that others may add to without being in our way: the API server
// merges them by a key, and server-side apply leaves what is not ours.
var merged = []string{"containers", "initContainers", "env", "ports", "volumes", "volumeMounts", "topologySpreadConstraints", "ownerReferences"}

// differs returns the path of the first thing in want that have does not hold, and ""
// where have holds all of it. What only have holds does not count: defaults, and
// fields of other owners.
func differs(have, want map[string]any) string { return inMap("", have, want) }

func inMap(at string, have, want map[string]any) string {
	keys := make([]string, 0, len(want))
	for k := range want {
		keys = append(keys, k)
	}
	slices.Sort(keys) // the same difference is named each time
	for _, k := range keys {
		path := strings.TrimPrefix(at+"."+k, ".")
		if d := inValue(path, k, have[k], want[k]); d != "" {
			return d
		}
	}
	return ""
}

func inValue(at, key string, have, want any) string {
	switch w := want.(type) {
	case map[string]any:
		h, _ := have.(map[string]any) // an empty map is as good as none
		return inMap(at, h, w)
	case []any:
		h, _ := have.([]any)
		if slices.Contains(merged, key) && !strings.Contains(at, "ingress") {
			return inMerged(at, h, w)
		}
		if len(h) != len(w) {
			return at
		}
		for i := range w {
			if d := inValue(fmt.Sprintf("%s[%d]", at, i), "", h[i], w[i]); d != "" {
				return d
			}
		}
		return ""
	default:
		if have != want {
			return at
		}
		return ""
	}
}

// inMerged finds each wanted element among have, in any order.
func inMerged(at string, have, want []any) string {
	for i, w := range want {
		closest := fmt.Sprintf("%s[%d]", at, i)
		if !slices.ContainsFunc(have, func(h any) bool {
			d := inValue(closest, "", h, w)
			if d != "" && named(h) == named(w) {
				closest = d
			}
			return d == ""
		}) {
			return closest
		}
	}
	return ""
}

func named(v any) any {
	m, _ := v.(map[string]any)
	return m["name"]
}
