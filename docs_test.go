package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

// TestDocumentationLinksResolve checks every relative link of every Markdown file: the
// file is there, with the heading that an anchor names, and where the link's text is code
// (`[`Assign`](x.go)`), the file contains each word of it.
func TestDocumentationLinksResolve(t *testing.T) {
	link := regexp.MustCompile(`\[([^\]]*)\]\(([^)#\s]*)(?:#([^)\s]*))?\)`)
	checked := 0
	for _, doc := range markdown(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, doc), -1) {
			text, target, anchor := m[1], m[2], m[3]
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			checked++
			file := doc
			if target != "" {
				file = filepath.Join(filepath.Dir(doc), target)
			}
			info, err := os.Stat(file)
			switch {
			case err != nil:
				t.Errorf("%s: link to %s: %v", doc, target, err)
			case anchor != "" && filepath.Ext(file) != ".md":
				t.Errorf("%s: link to #%s of %s, which has no headings", doc, anchor, target)
			case anchor != "" && !anchors(read(t, file))[anchor]:
				t.Errorf("%s: %s has no heading for #%s", doc, file, anchor)
			case strings.HasPrefix(text, "`") && !info.IsDir() && filepath.Ext(file) == ".go":
				mentions(t, doc, text, file)
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d links found: the pattern is off or the documentation is", checked)
	}
}

// mentions checks that a file contains each word of a link's text.
func mentions(t *testing.T, doc, text, file string) {
	t.Helper()
	code := read(t, file)
	for _, w := range regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`).FindAllString(text, -1) {
		if !regexp.MustCompile(`\b` + w + `\b`).MatchString(code) {
			t.Errorf("%s: %s does not mention %s", doc, file, w)
		}
	}
}

// anchors are what GitHub makes of the headings of a document: lower case, without
// punctuation, a hyphen for each space, and a number after what was there before.
func anchors(document string) map[string]bool {
	found, fenced := map[string]bool{}, false
	for line := range strings.Lines(document) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		heading := strings.TrimLeft(line, "#")
		if depth := len(line) - len(heading); fenced || depth == 0 || depth > 6 || !strings.HasPrefix(heading, " ") {
			continue
		}
		heading = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(heading, "$1")
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(heading))
		once := name
		for n := 1; found[name]; n++ {
			name = fmt.Sprintf("%s-%d", once, n)
		}
		found[name] = true
	}
	return found
}

func TestAnchors(t *testing.T) {
	got := anchors("# What it *can't* do: `up` & co.\n```\n# a comment\n```\n## Pools\n### [Pools](x.md)\n#no heading\n")
	want := map[string]bool{"what-it-cant-do-up--co": true, "pools": true, "pools-1": true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func markdown(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) == ".md" {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
