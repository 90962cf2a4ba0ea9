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

	outline outline
	holds   bool       // the parser sees the outline as its lines were taken apart
	keys    [][]string // of the matches of services' rules
}

func newDocument(data []byte, known version) *document {
	d := &document{outline: outlineOf(data, known)}
	d.Root = func(n *yaml.Node) { d.holds = d.outline.holds(n) }
	return d
}

func (d *document) fail(path string, line int, format string, args ...any) {
	d.Fail(path, line, format, args...)
}

func (d *document) invalid(path, format string, args ...any) { d.Invalid(path, format, args...) }

func join(path, key string) string { return strict.Join(path, key) }

func clip(s string) string { return strict.Clip(s) }
