package store

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/observability/sli"
)

func TestReadMigrations(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	got, err := readMigrations(fstest.MapFS{"migrations/0001_a.sql": file("-- x\nCREATE a;\n\nCREATE b;\n"), "migrations/0002_b.sql": file("CREATE c"), "migrations/0002_b.down.sql": file("DROP c")})
	want := []migration{{1, "0001_a", []string{"-- x\nCREATE a", "CREATE b"}, nil}, {2, "0002_b", []string{"CREATE c"}, []string{"DROP c"}}}
	if err != nil || cmp.Diff(want, got, cmp.AllowUnexported(migration{})) != "" {
		t.Errorf("migrations = %+v, %v; want %+v", got, err, want)
	}
	for name, fsys := range map[string]fstest.MapFS{
		"none":        {},
		"a gap":       {"migrations/0001_a.sql": file("x"), "migrations/0003_b.sql": file("x")},
		"no number":   {"migrations/a.sql": file("x")},
		"undoes none": {"migrations/0001_a.sql": file("x"), "migrations/0001_b.down.sql": file("x")},
		"same number": {"migrations/0001_a.sql": file("x"), "migrations/0001_b.sql": file("x")},
	} {
		if _, err := readMigrations(fsys); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSplitStatements(t *testing.T) {
	for _, tc := range []struct {
		name, sql string
		want      []string
	}{
		{"nothing", "\n-- only a comment;\n", nil},
		{"a comment that has a semicolon at its end", "-- one;\n  -- two;\nCREATE a\n-- three;\n(x);\nCREATE b;", []string{"-- one;\n  -- two;\nCREATE a\n-- three;\n(x)", "CREATE b"}},
		{"a semicolon within a line", "SELECT ';' AS a,\n1;\n", []string{"SELECT ';' AS a,\n1"}},
		{"carriage returns", "CREATE a;\r\nCREATE b;\r\n", []string{"CREATE a", "CREATE b"}},
	} {
		if diff := cmp.Diff(tc.want, splitStatements(tc.sql)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
	all, err := readMigrations(migrations)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if len(m.down) == 0 {
			t.Errorf("migration %s cannot be undone", m.name)
		}
		for _, sql := range append(m.statements, m.down...) {
			if rest := comment.ReplaceAllString(sql, ""); !regexp.MustCompile(`\A(CREATE|ALTER|DROP|INSERT) `).MatchString(rest) {
				t.Errorf("migration %s: is no statement: %q", m.name, rest)
			}
		}
	}
}

func TestWhole(t *testing.T) {
	at := func(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
	for _, tc := range []struct{ from, to, wantFrom, wantTo int64 }{
		{1000, 3000, 1000, 3000}, {1001, 3000, 1000, 3000}, {1999, 3001, 1000, 4000}, {1000, 1000, 1000, 1000},
	} {
		got := Whole(sli.Window{From: at(tc.from), To: at(tc.to)})
		if want := (sli.Window{From: at(tc.wantFrom), To: at(tc.wantTo)}); got != want {
			t.Errorf("Whole(%d, %d) = %v, want %v", tc.from, tc.to, got, want)
		}
	}
}

func TestPieces(t *testing.T) {
	for _, tc := range []struct {
		from, to int64
		want     []piece
	}{
		{100, 100, nil},
		{101, 103, []piece{{1, 101, 103}}},
		{109, 121, []piece{{1, 109, 110}, {10, 110, 120}, {1, 120, 121}}},
		{60, 180, []piece{{60, 60, 180}}},
		{55, 195, []piece{{1, 55, 60}, {60, 60, 180}, {10, 180, 190}, {1, 190, 195}}},
	} {
		if diff := cmp.Diff(tc.want, pieces(tc.from, tc.to, grains()), cmp.AllowUnexported(piece{})); diff != "" {
			t.Errorf("%d to %d (-want +got):\n%s", tc.from, tc.to, diff)
		}
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 10_000 {
		from := r.Int64N(10_000)
		to := from + r.Int64N(1000)
		at, rows := from, int64(0)
		for _, p := range pieces(from, to, grains()) {
			if p.from != at || p.to <= p.from || p.from%p.grain != 0 || p.to%p.grain != 0 {
				t.Fatalf("%d to %d: %+v does not follow %d", from, to, p, at)
			}
			at, rows = p.to, rows+(p.to-p.from)/p.grain
		}
		if at != to || rows > 18+10+(to-from)/60 {
			t.Fatalf("%d to %d: pieces end at %d and have %d rows", from, to, at, rows)
		}
	}
}

func TestRowsSQL(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	if got, _ := rowsSQL(sli.Window{From: at(0), To: at(6001)}, 0, together); got != "Grain = 160 AND Second BETWEEN 0 AND 5999 OR (Grain, Second) IN ((101,6000))" {
		t.Errorf("of all routes: %s", got)
	}
	for _, tc := range []struct {
		from, to, step int64
		want           string
		listed         bool
	}{
		{59, 122, 0, "(Grain, Second) IN ((1,59),(60,60),(1,120),(1,121))", true},
		{60, 120, 10, "(Grain, Second) IN ((10,60),(10,70),(10,80),(10,90),(10,100),(10,110))", true},
		{0, 100, 1, "Grain = 1 AND Second BETWEEN 0 AND 99", false},
		{0, 6001, 0, "Grain = 60 AND Second BETWEEN 0 AND 5999 OR (Grain, Second) IN ((1,6000))", false},
		{60, 60, 0, "", false},
	} {
		if got, listed := rowsSQL(sli.Window{From: at(tc.from), To: at(tc.to)}, tc.step, 0); got != tc.want || listed != tc.listed {
			t.Errorf("%d to %d by %d: %s, all listed %t; want %s, %t", tc.from, tc.to, tc.step, got, listed, tc.want, tc.listed)
		}
	}
}

func TestTree(t *testing.T) {
	span := func(id, parent string) Span { return Span{SpanID: id, ParentSpanID: parent} }
	var show func(nodes []*Node) string
	show = func(nodes []*Node) string {
		var parts []string
		for _, n := range nodes {
			parts = append(parts, n.SpanID+show(n.Children))
		}
		if len(parts) == 0 {
			return ""
		}
		return "(" + strings.Join(parts, " ") + ")"
	}
	for _, tc := range []struct {
		name  string
		spans []Span
		want  string
	}{
		{"none", nil, ""},
		{"children before their parent", []Span{span("b", "a"), span("c", "b"), span("a", "")}, "(a(b(c)))"},
		{"parent missing", []Span{span("b", "gone"), span("c", "b")}, "(b(c))"},
		{"its own parent", []Span{span("a", "a")}, "(a)"},
		{"a circle", []Span{span("a", "b"), span("b", "a"), span("c", "a")}, "(a(c) b)"},
		{"an id twice", []Span{span("a", ""), span("a", ""), span("b", "a")}, "(a(b) a)"},
	} {
		if got := show(Tree(tc.spans)); got != tc.want {
			t.Errorf("%s: tree = %s, want %s", tc.name, got, tc.want)
		}
	}
}

func TestConfigValidateNamesTheKey(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	for key, edit := range map[string]func(*Config){
		"addr":     func(c *Config) { c.Addr = "nope" },
		"database": func(c *Config) { c.Database = "x; DROP DATABASE y" },
		"user":     func(c *Config) { c.User = "" },
		"timeout":  func(c *Config) { c.Timeout = 0 },
	} {
		c := DefaultConfig()
		edit(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+":") {
			t.Errorf("error = %v, want one that starts with %s", err, key)
		}
	}
}
