package access

import (
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var now = time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)

func TestFileHoldsWhatWasWritten(t *testing.T) {
	t.Parallel()
	want := []Token{Of("alice", Operator, "a", time.Time{}), Of("ci.read-only", Viewer, "b", now)}
	for _, tokens := range [][]Token{want, nil} {
		file, err := Format(tokens)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(file)
		if err != nil || len(got) != len(tokens) || len(tokens) > 0 && !cmp.Equal(tokens, got) {
			t.Errorf("%s\nread as %+v, %v", file, got, err)
		}
	}
}

func TestBadFiles(t *testing.T) {
	t.Parallel()
	digest := Of("a", Viewer, "a", time.Time{}).SHA256
	entry := func(name, role, sum string) string {
		return "{name: '" + name + "', role: '" + role + "', sha256: '" + sum + "'}"
	}
	for what, c := range map[string]struct{ entries, want string }{
		"a name in capitals":  {entry("Alice", "viewer", digest), "line 1: tokens[0].name: "},
		"no name":             {entry("", "viewer", digest), "tokens[0].name: "},
		"a name with a colon": {entry("a:b", "viewer", digest), "tokens[0].name: "},
		"a long name":         {entry(strings.Repeat("a", 33), "viewer", digest), "tokens[0].name: "},
		"the policy's name":   {entry("policy", "viewer", digest), `"policy" is taken`},
		"a generated one's":   {entry("operator", "viewer", digest), `"operator" is taken`},
		"a name twice":        {entry("a", "viewer", digest) + ", " + entry("a", "viewer", Of("a", Viewer, "b", time.Time{}).SHA256), `tokens[1].name: "a" is there twice`},
		"a digest twice":      {entry("a", "viewer", digest) + ", " + entry("b", "operator", strings.ToUpper(digest)), "tokens[1].sha256: another name"},
		"no role":             {entry("a", "", digest), "tokens[0].role: "},
		"another role":        {entry("a", "admin", digest), `"admin" is neither viewer nor operator`},
		"the token itself":    {entry("a", "viewer", New([sha256.Size]byte{1})), "tokens[0].sha256: not the 64"},
		"half a digest":       {entry("a", "viewer", digest[:32]), "tokens[0].sha256: not the 64"},
		"an unknown key":      {"{name: a, role: viewer, digest: x}", "tokens[0].digest: unknown key"},
		"a date that is none": {"{name: a, role: viewer, expires: soon}", "tokens[0].expires: "},
		"too many":            {strings.Repeat(entry("a", "viewer", digest)+",", MaxTokens+1), "tokens: 257 tokens, more than 256"},
	} {
		if got, err := Parse([]byte("tokens: [" + c.entries + "]")); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	secret := New([sha256.Size]byte{1, 2, 3})
	s := NewSet(Of("alice", Operator, secret, time.Time{}), Of("bob", Viewer, "b", now), Of("carl", Viewer, "c", time.Time{}))
	for what, c := range map[string]struct {
		shown string
		at    time.Time
		want  string
	}{
		"the first":             {secret, now, "alice"},
		"the last":              {"c", now, "carl"},
		"just before its end":   {"b", now.Add(-1), "bob"},
		"at its end":            {"b", now, ""},
		"nothing":               {"", now, ""},
		"a part of one":         {secret[:10], now, ""},
		"more than one":         {secret + " ", now, ""},
		"the digest, of no use": {Of("", "", secret, now).SHA256, now, ""},
	} {
		if got, ok := s.Find(c.shown, c.at); got.Name != c.want || ok != (c.want != "") {
			t.Errorf("%s: %+v, %v", what, got, ok)
		}
	}
	if _, ok := (Set{}).Find("", now); ok {
		t.Error("an empty set knows somebody")
	}
}
