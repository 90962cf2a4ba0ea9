package policy

import (
	"go.yaml.in/yaml/v3"

	"github.com/tracegate/tracegate/mesh/strict"
)

// Problem is one thing wrong with a document.
type Problem = strict.Problem

// Error is a document that was refused whole.
type Error = strict.Error

// document is one that is being read, with what may be taken over from the version before.
type document struct {
	strict.Reader

	known   map[digest]knownService // of the version before
	digests []digest                // of services
	text    []byte                  // to make digests of
	keys    [][]string              // of the matches of services' rules
}

func newDocument(known map[digest]knownService) *document {
	d := &document{known: known}
	d.Recall = func(n *yaml.Node, into any) bool {
		s, ok := into.(*Service)
		return ok && d.recall(n, s)
	}
	return d
}

func (d *document) fail(path string, line int, format string, args ...any) {
	d.Fail(path, line, format, args...)
}

func (d *document) invalid(path, format string, args ...any) { d.Invalid(path, format, args...) }

func join(path, key string) string { return strict.Join(path, key) }

func clip(s string) string { return strict.Clip(s) }
