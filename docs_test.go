package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentationLinksResolve checks every relative link of every Markdown file:
// the file is there, and where the link's text is code (`[`Assign`](x.go)`), the
// file contains each word of it.
func TestDocumentationLinksResolve(t *testing.T) {
	link := regexp.MustCompile(`\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)`)
	word := regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`)
	checked := 0
	for _, doc := range markdown(t) {
		raw, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(raw), -1) {
			text, target := m[1], m[2]
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			checked++
			file := filepath.Join(filepath.Dir(doc), target)
			info, err := os.Stat(file)
			if err != nil {
				t.Errorf("%s: link to %s: %v", doc, target, err)
				continue
			}
			if !strings.HasPrefix(text, "`") || info.IsDir() || filepath.Ext(file) != ".go" {
				continue
			}
			code, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range word.FindAllString(text, -1) {
				if !regexp.MustCompile(`\b` + w + `\b`).Match(code) {
					t.Errorf("%s: %s does not mention %s", doc, target, w)
				}
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d links found: the pattern is off or the documentation is", checked)
	}
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
