package policy

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Lines says at which line, 1-based, each key of a document stands:
// "services[0].rules[1].match" and so on. It reads any YAML, also what [Parse] refuses
// for its meaning; of what is no YAML there are no lines.
func Lines(document []byte) map[string]int {
	out := map[string]int{}
	var root yaml.Node
	if yaml.Unmarshal(document, &root) != nil || len(root.Content) == 0 {
		return out
	}
	lines(root.Content[0], "", 0, out)
	return out
}

// maxDepth bounds recursion; what a reader refuses as too deep is nested no deeper here.
const maxDepth = 32

func lines(n *yaml.Node, path string, depth int, out map[string]int) {
	if depth > maxDepth {
		return
	}
	if path != "" {
		out[path] = n.Line
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			lines(n.Content[i+1], join(path, n.Content[i].Value), depth+1, out)
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			lines(c, index(path, i), depth+1, out)
		}
	}
}

// Place is a key in a file.
type Place struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line"` // 1-based; 0 where the file does not have the key
	Path string `json:"path"` // "services[0].rules[1]"
	What string `json:"what"` // "rule beta of core"
}

func (p Place) String() string {
	s := p.File
	if p.Line > 0 {
		s += fmt.Sprintf(":%d", p.Line)
	}
	return strings.TrimPrefix(fmt.Sprintf("%s: %s (%s)", s, p.Path, p.What), ": ")
}
