// Package benchdoc keeps what benchmarks print in a document (docs/benchmarks.md): each
// has a section of its own, which a new run replaces. It is a leaf; what a section says
// is its benchmark's to know.
package benchdoc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// Write replaces the named section of a markdown file by body, or appends it. The
// section stands between two comments, <!-- name --> and <!-- /name -->.
func Write(path, name, body string) error {
	start, end := "<!-- "+name+" -->", "<!-- /"+name+" -->"
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	before, rest, found := bytes.Cut(old, []byte(start))
	after := []byte("\n")
	if found {
		if _, after, found = bytes.Cut(rest, []byte(end)); !found {
			return fmt.Errorf("%s: section %s has no end", path, start)
		}
	} else if len(before) > 0 {
		before = append(bytes.TrimRight(before, "\n"), "\n\n"...)
	}
	return os.WriteFile(path, slices.Concat(before, []byte(start+"\n"+body+"\n"+end), after), 0o644)
}

// Machine describes where a benchmark ran, for its section.
func Machine() string {
	model, load := "unknown CPU", "unknown"
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil { // elsewhere the model stays unknown
		if m := regexp.MustCompile(`model name\s*:\s*(.*)`).FindSubmatch(raw); m != nil {
			model = string(m[1])
		}
	}
	if raw, err := os.ReadFile("/proc/loadavg"); err == nil {
		load = strings.Join(strings.Fields(string(raw))[:3], " ")
	}
	return fmt.Sprintf("%s, %d cores, %s/%s, load %s; Go %s",
		model, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, load, strings.TrimPrefix(runtime.Version(), "go"))
}

// Median is the middle value, or the mean of the two in the middle; 0 of none.
func Median(v []float64) float64 {
	n := len(v)
	if n == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(n-1)/2] + s[n/2]) / 2
}

// Figure is the line that names one result against a peer's; peer is "-" where there is
// none.
func Figure(name, unit string, ours float64, peer string, theirs float64) string {
	number := func(f float64) string {
		if math.Abs(f) < 100 {
			return fmt.Sprintf("%.2f", f)
		}
		return fmt.Sprintf("%.0f", f)
	}
	if peer == "-" {
		return fmt.Sprintf("figure %s %s %s vs - - ratio -", name, number(ours), unit)
	}
	ratio := "-"
	if theirs != 0 {
		ratio = fmt.Sprintf("%.3f", ours/theirs)
	}
	return fmt.Sprintf("figure %s %s %s vs %s %s ratio %s", name, number(ours), unit, peer, number(theirs), ratio)
}
