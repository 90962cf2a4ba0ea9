package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// someService is one of a few, good and bad, that may stand at a place.
func someService(rnd *rand.Rand, at int) string {
	name := at + 4*rnd.IntN(2)
	if rnd.IntN(12) == 0 {
		name = rnd.IntN(8) // which may be there already
	}
	s := fmt.Sprintf("  - name: s%d\n    pools: [{name: baseline}, {name: p%d}]\n    routes: [{prefix: /s%d}]\n", name, rnd.IntN(2), name)
	if rnd.IntN(3) > 0 {
		s += "    rules:\n"
		for i := range 1 + rnd.IntN(3) {
			extra := ""
			if rnd.IntN(8) == 0 {
				extra = []string{", pool: p0", ", service: s0", ", timeout: 30s", ", websocket: true", ", nonsense: 1", ", timeout: -1s"}[rnd.IntN(6)]
			}
			match := []string{"", "", "", ", cohort: lab"}[rnd.IntN(4)]
			s += fmt.Sprintf("      - {name: r%d, match: [{path: /%d/%d, hosts: [h%d.test]%s}]%s}\n", i, i, rnd.IntN(40), at, match, extra)
		}
	}
	return s + []string{"", "    # a comment\n", "\n"}[rnd.IntN(3)]
}

// TestReaderIsParse: what a reader makes of a version depends on no version before it.
func TestReaderIsParse(t *testing.T) {
	t.Parallel()
	good, bad := 0, 0
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var services []string
		for at := range 4 {
			services = append(services, someService(rnd, at))
		}
		var r Reader
		for range 25 {
			at := rnd.IntN(len(services))
			services[at] = someService(rnd, at)
			if rnd.IntN(4) == 0 {
				rnd.Shuffle(len(services), func(i, j int) { services[i], services[j] = services[j], services[i] })
			}
			lab := []string{"lab", "lab", "lab, color: 00000001", "other"}[rnd.IntN(4)]
			doc := []byte("failure: open\ncolor: {cohorts: [{name: " + lab + ", match: {path: /lab}}]}\nservices:\n" + strings.Join(services, ""))
			if sameReading(t, &r, doc) {
				good++
			} else {
				bad++
			}
		}
	}
	if good < 30 || bad < 30 {
		t.Errorf("%d good versions and %d bad ones say little", good, bad)
	}
}

// TestReaderShares: whoever compares versions finds the same memory.
func TestReaderShares(t *testing.T) {
	t.Parallel()
	var r Reader
	a, err := r.Parse(large(3, 2))
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Parse([]byte("# moved by a line\n" + strings.Replace(string(large(3, 2)), "[host1.test]", "[other.test]", 1)))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false, true} {
		if got := &a.Services[i].Rules[0] == &b.Services[i].Rules[0]; got != want {
			t.Errorf("service %d shares its rules: %v, want %v", i, got, want)
		}
	}
}

// TestReaderSharesRules: of a service that has changed, what has not is kept.
func TestReaderSharesRules(t *testing.T) {
	t.Parallel()
	var r Reader
	doc := string(large(1, 3))
	a, err := r.Parse([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Parse([]byte(strings.Replace(doc, "/p1", "/changed", 1)))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false, true} {
		if got := &a.Services[0].Rules[i].Match[0] == &b.Services[0].Rules[i].Match[0]; got != want {
			t.Errorf("rule %d shares its matches: %v, want %v", i, got, want)
		}
	}
}

const plainLines = `failure: open
services:
  - name: a
    pools:
      - {name: baseline}
    rules:
      - {name: one, match: [{path: /one}]}
      - name: two
        match: [{path: /two}]
        directResponse:
          status: 200
          body: |
            services:
              - name: no
      # of nobody
      - {name: three, match: [{path: /three}], directResponse: {status: 200, body: "a
        - b"}}
    routes: [{prefix: /a}]
  - name: b
    pools: [{name: baseline}, {name: more}]
    routes: [{prefix: /b}]
    rules:
    - {name: four, match: [{path: /four}], pool: more}
    - {name: five, match: [{path: /five}], service: a}

  - # c
    name: c
    routes: [{prefix: /c}]
    pools: [{name: baseline}]
limits: [{name: few, requests: 1}]
`

// oddLines are put among plain ones: most of them break it, some only look like it.
var oddLines = []string{
	"", "# comment", "  # comment", "---", "...", "%YAML 1.1", "services:", "services: # these", "services: []", "    rules:", "    rules: []", "    rules: # more",
	"  - name: d", "  - {}", "- name: d", "  -", "  - - name: d", "\t- name: d", "  -\tname: d", "      - {}", "    - {}", "limits: []", `"`, `  "`, "}", "  {", "  |", "    body: |+", "      name: e",
	"  - name: \"a", `b"`, "  - name: 'a", "b'", "      - b\"}}", "  - &x {}", "  - *x", "  - !!map {}", "  ? name", "  : f", "    routes: [{prefix: /d},", "    {path: /e}]",
	"      - {name: six, match: [{path: /six}], directResponse: {status: 200, body: \"x", "      y\"}}", "a\rb", "  - \u2028- name: g", "limits: [] # \"", "    x\": y",
}

// TestReaderIsParseOfLines: where lines look like items and are none, or the other way
// round, a reader is not led astray.
func TestReaderIsParseOfLines(t *testing.T) {
	t.Parallel()
	good, shorter := 0, 0
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var r Reader
		lines := strings.SplitAfter(plainLines, "\n")
		for step := range 40 {
			if step%8 == 0 {
				lines = strings.SplitAfter(plainLines, "\n")
			}
			before := slices.Clone(lines)
			at, other := rnd.IntN(len(lines)), rnd.IntN(len(lines))
			switch rnd.IntN(9) {
			case 0:
				lines = slices.Delete(lines, at, at+1)
			case 1:
				lines[at], lines[other] = lines[other], lines[at]
			case 2:
				lines = slices.Insert(lines, at, lines[other])
			case 3, 4, 5, 6:
				lines[at] = strings.Replace(lines[at], "/", "/x", 1)
			default:
				lines = slices.Insert(lines, at, oddLines[rnd.IntN(len(oddLines))]+"\n")
			}
			doc := []byte(strings.TrimSuffix(strings.Join(lines, ""), []string{"", "\n"}[rnd.IntN(2)]))
			if outlineOf(doc, r.known).shorter {
				shorter++
			}
			if sameReading(t, &r, doc) {
				good++
			} else if rnd.IntN(4) > 0 {
				lines = before
			}
		}
	}
	t.Logf("%d versions could be used, of %d something was known", good, shorter)
	if good < 200 || shorter < 200 {
		t.Error("they say little")
	}
}

// sameReading compares a reader with [Parse], and says whether the document can be used.
func sameReading(t *testing.T, r *Reader, doc []byte) bool {
	t.Helper()
	got, err := r.Parse(doc)
	want, wantErr := Parse(doc)
	if fmt.Sprint(err) != fmt.Sprint(wantErr) {
		t.Fatalf("error %v, want %v\n%s", err, wantErr, doc)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("(-parse +reader):\n%s\n%s", diff, doc)
	}
	return err == nil
}

func FuzzReader(f *testing.F) {
	f.Add([]byte(plainLines), []byte(strings.Replace(plainLines, "/four", "/4", 1)))
	f.Add(large(2, 2), append(large(2, 2), oddLines[3]...))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var r Reader
		for _, doc := range [][]byte{a, b, a} {
			sameReading(t, &r, doc)
		}
	})
}
