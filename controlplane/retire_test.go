package controlplane

import (
	"fmt"
	"slices"
	"testing"
)

func TestRetire(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ retired, before, now, want []string }{
		"first plan":     {now: []string{"a"}},
		"nothing goes":   {before: []string{"a"}, now: []string{"a", "b"}},
		"one goes":       {before: []string{"a", "b"}, now: []string{"a"}, want: []string{"b"}},
		"another goes":   {retired: []string{"b"}, before: []string{"a", "c"}, now: []string{"a"}, want: []string{"b", "c"}},
		"one comes back": {retired: []string{"b", "c"}, before: []string{"a"}, now: []string{"a", "b"}, want: []string{"c"}},
		"goes again":     {retired: []string{"b"}, before: []string{"b"}, now: []string{"a"}, want: []string{"b"}},
	} {
		if got := retire(c.retired, c.before, c.now); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	var gone []string
	for i := range 2 * maxRetired {
		gone = retire(gone, []string{fmt.Sprint(i)}, nil)
	}
	if len(gone) != maxRetired || gone[maxRetired-1] != fmt.Sprint(2*maxRetired-1) {
		t.Errorf("%d are remembered, the last %s", len(gone), gone[len(gone)-1])
	}
}
