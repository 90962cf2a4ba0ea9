package benchdoc_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tracegate/tracegate/mesh/benchdoc"
)

func TestWrite(t *testing.T) {
	const one = "<!-- one -->\nnew\n<!-- /one -->"
	for name, tt := range map[string]struct{ old, want string }{
		"no file":          {"", one + "\n"},
		"no section":       {"# Title\n\n\n", "# Title\n\n" + one + "\n"},
		"the only section": {"<!-- one -->\nold\n<!-- /one -->\n", one + "\n"},
		"among others":     {"a\n<!-- one -->\nold\nold\n<!-- /one -->\nb\n<!-- two -->\nx\n<!-- /two -->\n", "a\n" + one + "\nb\n<!-- two -->\nx\n<!-- /two -->\n"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "doc.md")
			if tt.old != "" {
				if err := os.WriteFile(path, []byte(tt.old), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // the second time changes nothing
				if err := benchdoc.Write(path, "one", "new"); err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(path); err != nil || string(got) != tt.want {
					t.Errorf("%q, %v; want %q", got, err, tt.want)
				}
			}
		})
	}
	path := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(path, []byte("<!-- one -->\nno end"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := benchdoc.Write(path, "one", "new"); err == nil {
		t.Error("a section without an end is replaced")
	}
}

func TestMedianAndFigure(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 5}, 5}} {
		if got := benchdoc.Median(c.of); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.of, got, c.want)
		}
	}
	for want, got := range map[string]string{
		"figure a 1.50 KB vs peer 3.00 ratio 0.500": benchdoc.Figure("a", "KB", 1.5, "peer", 3),
		"figure a 1.50 KB vs peer 0.00 ratio -":     benchdoc.Figure("a", "KB", 1.5, "peer", 0),
		"figure a 1200 KB vs - - ratio -":           benchdoc.Figure("a", "KB", 1200.4, "-", 0),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
