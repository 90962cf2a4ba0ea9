package policy

import (
	"fmt"
	"math/rand/v2"
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
		for step := range 25 {
			at := rnd.IntN(len(services))
			services[at] = someService(rnd, at)
			if rnd.IntN(4) == 0 {
				rnd.Shuffle(len(services), func(i, j int) { services[i], services[j] = services[j], services[i] })
			}
			lab := []string{"lab", "lab", "lab, color: 00000001", "other"}[rnd.IntN(4)]
			doc := []byte("failure: open\ncolor: {cohorts: [{name: " + lab + ", match: {path: /lab}}]}\nservices:\n" + strings.Join(services, ""))
			got, err := r.Parse(doc)
			want, wantErr := Parse(doc)
			if fmt.Sprint(err) != fmt.Sprint(wantErr) {
				t.Fatalf("seed %d, step %d: error %v, want %v\n%s", seed, step, err, wantErr, doc)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("seed %d, step %d (-parse +reader):\n%s\n%s", seed, step, diff, doc)
			}
			if err == nil {
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
