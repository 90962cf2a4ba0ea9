package main

import (
	"slices"
	"testing"
)

func TestWithFixedStacks(t *testing.T) {
	for name, c := range map[string]struct {
		env, want []string
		missing   bool
	}{
		"none":             {[]string{"A=1"}, []string{"A=1", "GODEBUG=adaptivestackstart=0"}, true},
		"another setting":  {[]string{"GODEBUG=gctrace=1", "B=2"}, []string{"GODEBUG=gctrace=1,adaptivestackstart=0", "B=2"}, true},
		"empty":            {[]string{"GODEBUG="}, []string{"GODEBUG=,adaptivestackstart=0"}, true},
		"set":              {[]string{"GODEBUG=adaptivestackstart=0"}, []string{"GODEBUG=adaptivestackstart=0"}, false},
		"otherwise wanted": {[]string{"GODEBUG=x=1,adaptivestackstart=1"}, []string{"GODEBUG=x=1,adaptivestackstart=1"}, false},
	} {
		before := slices.Clone(c.env)
		got, missing := withFixedStacks(c.env)
		if !slices.Equal(got, c.want) || missing != c.missing {
			t.Errorf("%s: %v, %v", name, got, missing)
		}
		if !slices.Equal(c.env, before) {
			t.Errorf("%s: the environment was changed in place", name)
		}
		if _, again := withFixedStacks(got); again {
			t.Errorf("%s: it would start again for ever", name)
		}
	}
}
