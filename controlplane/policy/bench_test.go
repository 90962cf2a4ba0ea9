package policy

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// large has services with as many rules each, under a host of their own.
func large(services, rules int) []byte {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range services {
		fmt.Fprintf(&b, "  - name: s%d\n    pools: [{name: baseline}, {name: isolated}]\n    routes: [{prefix: /s%d}]\n    rules:\n", i, i)
		for j := range rules {
			prefix := fmt.Sprintf("/p%d", j)
			if j == rules-1 {
				prefix = "/"
			}
			fmt.Fprintf(&b, "      - {name: r%d, match: [{hosts: [host%d.test], prefix: %s}], timeout: 30s}\n", j, i, prefix)
		}
	}
	return []byte(b.String())
}

func BenchmarkParse(b *testing.B) {
	for _, services := range []int{17, 500} {
		b.Run(fmt.Sprint(services*6), func(b *testing.B) {
			doc := large(services, 6)
			b.ReportAllocs()
			b.SetBytes(int64(len(doc)))
			for b.Loop() {
				if _, err := Parse(doc); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkReread changes one rule of many.
func BenchmarkReread(b *testing.B) {
	for _, services := range []int{17, 500, 1} {
		rules := 6
		if services == 1 {
			rules = 3000
		}
		b.Run(fmt.Sprintf("%dx%d", services, rules), func(b *testing.B) {
			doc := large(services, rules)
			other := bytes.Replace(doc, []byte("prefix: /p3"), []byte("prefix: /q3"), 1)
			var r Reader
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%2 == 1 {
					doc, other = other, doc
				}
				if _, err := r.Parse(doc); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
