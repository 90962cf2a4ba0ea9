package decide

import (
	"math"
	"testing"

	"github.com/tracegate/tracegate/observability/sli"
)

// TestMoreErrors compares one with others, with its own past, and with nothing.
func TestMoreErrors(t *testing.T) {
	t.Parallel()
	of := func(requests, errors uint64) sli.Stats { return sli.Stats{Requests: requests, Errors: errors} }
	none := sli.Stats{}
	for name, c := range map[string]struct {
		st, others, before sli.Stats
		sure               bool
	}{
		"well":                              {of(1000, 0), of(1000, 0), of(1000, 0), false},
		"a few errors are chance":           {of(100, 3), of(1000, 0), of(1000, 0), false},
		"broken":                            {of(100, 50), of(1000, 0), of(1000, 0), true},
		"others are broken as well":         {of(100, 50), of(1000, 500), of(1000, 0), false},
		"it was broken before":              {of(100, 50), of(1000, 0), of(1000, 500), false},
		"the only one, by its past":         {of(100, 50), none, of(1000, 0), true},
		"new, with nothing to compare with": {of(20, 20), none, none, true},
		"others say too little":             {of(20, 20), of(3, 3), none, true},
		"too few to say anything":           {of(9, 9), of(1000, 0), of(1000, 0), false},
		"nothing came":                      {none, of(1000, 0), of(1000, 0), false},
		"more by too little":                {of(100000, 2100), of(100000, 1900), of(100000, 1900), false},
	} {
		chance, sure := DefaultPolicy().MoreErrors(c.st, c.others, c.before)
		if sure != c.sure || sure && (chance <= 0 && c.st.Errors < c.st.Requests || math.IsInf(chance, 1)) {
			t.Errorf("%s: chance %v, sure %t", name, chance, sure)
		}
	}
}
