package search

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/protocol"
)

func TestAnalyze(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"Hello, World!", "hello world"},
		{"Über den Café-Besuch", "uber den cafe besuch"},
		{"don't stop 3.14 2026-01-02", "don't stop 3.14 2026 01 02"},
		{"ＦＵＬＬ　ｗｉｄｔｈ", "full width"},
		{"plan.txt, a_b of example.com: v3.14", "plan txt a b of example com v3.14"},
		{"東京", "東 東京 京"},
		{"東京都", "東 東京 京 京都 都"},
		{"東", "東"},
		{"I ♥ 東京 tower", "i 東 東京 京 tower"},
		{"ラーメン", "ラ ラー ー ーメ メ メン ン"},
		{"서울에서 만나", "서 서울 울 울에 에 에서 서 만 만나 나"},
		{"ガ", "ガ"},
		{"привет ёж", "привет ёж"},
		{"שלום", "שלום"},
		{"... !!! ---", ""},
		{"", ""},
		{strings.Repeat("x", 300), ""},
	} {
		if got := joined(analyze(c.text)); got != c.want {
			t.Errorf("%q: got %q, want %q", c.text, got, c.want)
		}
	}
}

func TestMatchesAndSnippets(t *testing.T) {
	long := strings.Repeat("filler words ", 40)
	for _, c := range []struct {
		text, query string
		want        string // with [matches]; - where there is none
	}{
		{"Lunch at noon", "noon", "Lunch at [noon]"},
		{"Lunch at noon", "NOON lunch", "[Lunch] at [noon]"},
		{"Lunch at noon", "dinner", "-"},
		{"Lunch at noon", "lunch -noon", "-"},
		{"Lunch at noon", "lunch -dinner", "[Lunch] at noon"},
		{"Lunch at noon", `"at noon"`, "Lunch [at noon]"},
		{"Lunch at noon", `"noon at"`, "-"},
		{"Lunch at noon", `"lunch noon"`, "-"},
		{"noon at noon", "noon", "[noon] at [noon]"},
		{"Un café noir", "cafe", "Un [café] noir"},
		{"我在东京塔", "东京", "我在[东京]塔"},
		{"我在东京塔", "京塔", "我在东[京塔]"},
		{"我在东京塔", "东塔", "-"},
		{"我在东京塔", "东 塔", "我在[东]京[塔]"},
		{"서울에서 만나", "서울", "[서울]에서 만나"},
		{"e-mail me", "e-mail", "[e-mail] me"},
		{long + "needle " + long, "needle", "…" + (long + "needle ")[len(long)-60:len(long)] + "[needle]" + (" " + long)[:174] + "…"},
	} {
		spans, ok := matches(analyze(c.text), split(c.query))
		got := "-"
		if ok {
			got = ""
			for _, p := range snippet(c.text, spans) {
				if p.Match {
					got += "[" + p.Text + "]"
				} else {
					got += p.Text
				}
			}
		}
		if got != c.want {
			t.Errorf("%s in %.40q:\n got %q\nwant %q", c.query, c.text, got, c.want)
		}
	}
}

func TestBadQueriesNameTheField(t *testing.T) {
	good := Query{Text: "x", Limit: 10}
	for _, c := range []struct {
		name string
		edit func(*Query)
		want string
	}{
		{"none", func(q *Query) { q.Text = "" }, "invalid_argument q"},
		{"spaces", func(q *Query) { q.Text = " \t\n" }, "invalid_argument q"},
		{"marks only", func(q *Query) { q.Text = "?!..." }, "invalid_argument q"},
		{"only what must not be there", func(q *Query) { q.Text = "-x" }, "invalid_argument q"},
		{"empty quotes", func(q *Query) { q.Text = `""` }, "invalid_argument q"},
		{"too many words", func(q *Query) { q.Text = strings.Repeat("x ", 17) }, "invalid_argument q"},
		{"too long", func(q *Query) { q.Text = strings.Repeat("x", 257) }, "too_large q"},
		{"not UTF-8", func(q *Query) { q.Text = "\xff" }, "invalid_argument q"},
		{"conversation with a slash", func(q *Query) { q.Conversation = "a/b" }, "invalid_argument conversation"},
		{"sender in capitals", func(q *Query) { q.Sender = "Ann" }, "invalid_argument sender"},
		{"no limit", func(q *Query) { q.Limit = 0 }, "invalid_argument limit"},
		{"limit too high", func(q *Query) { q.Limit = 51 }, "invalid_argument limit"},
		{"time backwards", func(q *Query) { q.After, q.Before = at.Add(1), at }, "invalid_argument before"},
		{"cursor of nobody", func(q *Query) { q.Cursor = "x" }, "invalid_argument cursor"},
		{"cursor of others", func(q *Query) { q.Cursor = "MTIzIGEvYi9j" }, "invalid_argument cursor"},
		{"open quote", func(q *Query) { q.Text = `"a b` }, ""},
		{"operators of others", func(q *Query) { q.Text = `a* OR (b~2) AND c:d /e/ ^4` }, ""},
		{"longest", func(q *Query) { q.Text = strings.Repeat("x", 256); q.Limit = 50 }, ""},
	} {
		q := good
		c.edit(&q)
		_, _, err := parse(q)
		got := ""
		if err != nil {
			got = string(err.Code) + " " + err.Field
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestCursorComesBack(t *testing.T) {
	for _, c := range []cursor{{1, place{"c", 1}}, {at.UnixMicro(), place{strings.Repeat("Z-_", 21) + "z", 1 << 60}}} {
		got, ok := parseCursor(c.String())
		if !ok || got != c {
			t.Errorf("%v: got %v, %v", c, got, ok)
		}
	}
	if got, ok := parseCursor(""); !ok || got != (cursor{}) {
		t.Error("no cursor is the first page")
	}
}

// FuzzQuery: any query is refused with a field or taken apart, and a text has what was
// taken from it; a snippet is a part of its text.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"hello", `"a b" -c`, "東京 都", "\xff", "-\"", "a\x00b", "ﬀ ﬁ", "서울", "🏳️‍🌈", "İstanbul", "ｶﾞ", "e\u0301"} {
		f.Add(s, "some text with "+s, "")
	}
	f.Fuzz(func(t *testing.T, query, text, cursor string) {
		phrases, _, bad := parse(Query{Text: query, Limit: 10, Cursor: cursor})
		if bad != nil {
			if bad.Field == "" || bad.Code == protocol.CodeInternal {
				t.Fatal(bad)
			}
			return
		}
		if len(phrases) == 0 {
			t.Fatal("nothing to look for")
		}
		if !utf8.ValidString(text) {
			return
		}
		spans, ok := matches(analyze(text), phrases)
		if !ok {
			return
		}
		var all string
		for _, p := range snippet(text, spans) {
			if !utf8.ValidString(p.Text) {
				t.Fatalf("piece %q of %q", p.Text, text)
			}
			all += p.Text
		}
		if len(text) <= snippetSize && all != text {
			t.Fatalf("%q became %q", text, all)
		}
	})
}

func TestMerge(t *testing.T) {
	got := merge([][2]int{{5, 7}, {0, 2}, {1, 3}, {7, 9}, {20, 21}})
	if diff := cmp.Diff([][2]int{{0, 3}, {5, 9}, {20, 21}}, got); diff != "" {
		t.Error(diff)
	}
}
