// Package benchdoc keeps what benchmarks print in a document (docs/benchmarks.md): each
// has a section of its own, which a new run replaces. It is a leaf; what a section says
// is its benchmark's to know.
package benchdoc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
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
