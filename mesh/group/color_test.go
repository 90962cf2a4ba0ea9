package group_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tracegate/tracegate/mesh/group"
)

func TestColorOf(t *testing.T) {
	// The first eight digits of md5(name), computed outside Go.
	for name, want := range map[string]string{
		"canary": "1a93b59c", "search": "06a943c5", "": "d41d8cd9",
	} {
		if got := group.ColorOf(name).String(); got != want {
			t.Errorf("ColorOf(%q) = %s, want %s", name, got, want)
		}
	}
}

func TestParseColor(t *testing.T) {
	for in, want := range map[string]group.Color{
		"00000000": 0, "ffffffff": 0xffffffff, "f3aa1c20": 0xf3aa1c20,
	} {
		if got, ok := group.ParseColor(in); !ok || got != want {
			t.Errorf("ParseColor(%q) = %v, %v", in, got, ok)
		}
	}
	for _, in := range []string{"", "f3aa1c2", "f3aa1c200", "F3AA1C20", "f3aa1c2g", "f3aa 1c2", "+3aa1c20"} {
		if got, ok := group.ParseColor(in); ok || got != group.Baseline {
			t.Errorf("ParseColor(%q) = %v, %v, want baseline, false", in, got, ok)
		}
	}
}

func TestOfTraceWantsAWholeTraceID(t *testing.T) {
	id := "f3aa1c20c4a9e6f0d1b2c3d4e5f60718"
	if c, ok := group.OfTrace(id); !ok || c.String() != "f3aa1c20" {
		t.Errorf("OfTrace = %v, %v", c, ok)
	}
	for _, in := range []string{"", id[:31], id + "0", strings.ToUpper(id), id[:8], id[:31] + "g", id[:8] + strings.Repeat("-", 24)} {
		if _, ok := group.OfTrace(in); ok {
			t.Errorf("OfTrace(%q) accepted", in)
		}
	}
}

func ExampleColorOf() {
	fmt.Println(group.ColorOf("canary"))
	// Output: 1a93b59c
}

// FuzzColor: printing and parsing are inverse, and nothing but eight lower-case
// hex digits is a color.
func FuzzColor(f *testing.F) {
	f.Add("00000000", uint32(0))
	f.Add("f3aa1c20", uint32(1))
	f.Add("F3AA1C20", uint32(1<<31))
	f.Fuzz(func(t *testing.T, s string, n uint32) {
		if c, ok := group.ParseColor(s); ok && c.String() != s {
			t.Errorf("ParseColor(%q) prints %s", s, c)
		}
		c := group.Color(n)
		if back, ok := group.ParseColor(c.String()); !ok || back != c {
			t.Errorf("%s parses as %v, %v", c, back, ok)
		}
		if group.ColorOf(s) == group.Baseline {
			t.Errorf("cohort %q is colored baseline", s)
		}
		tail := strings.Repeat("0", 24)
		if got, ok := group.OfTrace(c.String() + tail); !ok || got != c {
			t.Errorf("trace of %s has color %v, %v", c, got, ok)
		}
		if id := (group.Group{Color: c, Env: s, Tenant: s}).ID(); !id.Valid() {
			t.Errorf("invalid id %q", id)
		}
	})
}
