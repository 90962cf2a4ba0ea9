// Package contrast says in what two sets of requests differ: which attribute separates
// them most, and which value of it.
//
// It ranks by Cramér's V of the table of set by value, corrected for bias (W. Bergsma, "A
// bias-correction for Cramér's V and Tschuprow's T", Journal of the Korean Statistical
// Society 42, 2013): 0 where an attribute says nothing about the set, 1 where it says all,
// whatever the size of the sets. The correction is why an attribute that is different in
// each request, such as an id, comes out at 0, where information gain would put it first.
// What chance explains, by the chi-squared test, is left out.
//
// It is pure; observability/store makes samples of traces.
package contrast

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
)

// Sample is one request: its attributes. An attribute that it does not have counts as one
// with the value [Absent].
type Sample map[string]string

// Absent is the value of an attribute that a request does not have.
const Absent = "(none)"

// Separation is how well one attribute separates the sets.
type Separation struct {
	Attribute string  `json:"attribute"`
	V         float64 `json:"v"` // Cramér's V, bias-corrected: 0 to 1
	P         float64 `json:"p"` // of the chi-squared test, without a correction for many attributes
	Values    int     `json:"values"`
	// Value is the one whose share differs most in favour of the first set.
	Value  string  `json:"value"`
	First  float64 `json:"first"` // share of the first set that has Value
	Second float64 `json:"second"`
}

// String says a separation in words, of bad requests and good ones.
func (s Separation) String() string {
	return fmt.Sprintf("%s is %s in %.0f%% of bad and %.0f%% of good requests (Cramér's V %.2f)", s.Attribute, s.Value, 100*s.First, 100*s.Second, s.V)
}

// Alpha bounds how probable it is that an attribute is named by chance, over all of them
// (Bonferroni).
const Alpha = 0.01

// Rank returns the attributes that separate the sets beyond chance, best first, at most
// limit. Of two that are as good the one with fewer values comes first. An empty set is
// separated by nothing.
func Rank(first, second []Sample, limit int) []Separation {
	if len(first) == 0 || len(second) == 0 {
		return nil
	}
	names := map[string]bool{}
	for _, set := range [][]Sample{first, second} {
		for _, s := range set {
			for name := range s {
				names[name] = true
			}
		}
	}
	var out []Separation
	for name := range maps.Keys(names) {
		s := separation(name, first, second)
		if s.V > 0 && s.P*float64(len(names)) <= Alpha {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b Separation) int {
		return cmp.Or(cmp.Compare(b.V, a.V), cmp.Compare(a.Values, b.Values), cmp.Compare(a.Attribute, b.Attribute))
	})
	return out[:min(limit, len(out))]
}

func separation(name string, first, second []Sample) Separation {
	table := map[string][2]float64{}
	for i, set := range [][]Sample{first, second} {
		for _, s := range set {
			value, ok := s[name]
			if !ok {
				value = Absent
			}
			row := table[value]
			row[i]++
			table[value] = row
		}
	}
	n1, n2 := float64(len(first)), float64(len(second))
	out := Separation{Attribute: name, Values: len(table), First: -1}
	var chi2 float64
	for _, value := range slices.Sorted(maps.Keys(table)) {
		row := table[value]
		for i, n := range []float64{n1, n2} {
			expected := (row[0] + row[1]) * n / (n1 + n2)
			chi2 += (row[i] - expected) * (row[i] - expected) / expected
		}
		if a, b := row[0]/n1, row[1]/n2; out.First < 0 || a-b > out.First-out.Second {
			out.Value, out.First, out.Second = value, a, b
		}
	}
	out.V, out.P = cramer(chi2, n1+n2, float64(len(table))), above(chi2, float64(len(table)-1))
	return out
}

// cramer is the bias-corrected V of a table of two columns and so many rows.
func cramer(chi2, n, rows float64) float64 {
	if rows < 2 || n < 3 {
		return 0
	}
	phi2 := max(0, chi2/n-(rows-1)/(n-1))
	r, k := rows-(rows-1)*(rows-1)/(n-1), 2-1/(n-1)
	if d := min(r, k) - 1; d > 0 {
		return math.Sqrt(min(1, phi2/d))
	}
	return 0
}

// above is the chance that chi-squared with so many degrees of freedom exceeds x, by the
// approximation of Wilson and Hilferty.
func above(x, freedom float64) float64 {
	if freedom < 1 {
		return 1
	}
	c := 2 / (9 * freedom)
	z := (math.Cbrt(x/freedom) - (1 - c)) / math.Sqrt(c)
	return 0.5 * math.Erfc(z/math.Sqrt2)
}
