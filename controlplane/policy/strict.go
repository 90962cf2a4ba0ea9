package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Problem is one thing wrong with a document.
type Problem struct {
	Path    string `json:"path"` // "services[0].pools[1].name"; empty for the document itself
	Line    int    `json:"line"` // 1-based; 0 where the key is missing
	Message string `json:"message"`
}

func (p Problem) String() string {
	var b strings.Builder
	if p.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", p.Line)
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	return b.String() + p.Message
}

// Error is a document that was refused whole.
type Error struct {
	Problems []Problem // in the order of their lines
}

func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "; ")
}

// maxProblems bounds what one broken document can make us report.
const maxProblems = 20

// document decodes YAML into Go values and remembers where each key stood.
//
// yaml.v3's KnownFields names an unknown field and its Go type; an operator needs
// the key's path, its line and what was probably meant, so the walk is ours and
// the scalars are yaml.v3's.
type document struct {
	lines    map[string]int
	problems []Problem

	known   map[digest]knownService // of the version before
	digests []digest                // of services
	text    []byte                  // to make digests of
	keys    [][]string              // of the matches of services' rules
}

func (d *document) fail(path string, line int, format string, args ...any) {
	if len(d.problems) < maxProblems {
		d.problems = append(d.problems, Problem{Path: path, Line: line, Message: fmt.Sprintf(format, args...)})
	}
}

// invalid reports a value that decoded and cannot be used. The line is the one of
// the nearest key above path that the document has.
func (d *document) invalid(path, format string, args ...any) {
	line := 0
	for p := path; ; {
		if l, ok := d.lines[p]; ok {
			line = l
			break
		}
		i := strings.LastIndexAny(p, ".[")
		if i < 0 {
			break
		}
		p = p[:i]
	}
	d.fail(path, line, format, args...)
}

func (d *document) err() error {
	if len(d.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(d.problems, func(a, b Problem) int { return a.Line - b.Line })
	return &Error{Problems: d.problems}
}

// parse decodes data over what into already holds, so defaults stay where the
// document is silent. An empty document is an error: nothing must not replace something.
func (d *document) parse(data []byte, into any) {
	d.lines = map[string]int{}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		d.fail("", 0, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	if len(root.Content) == 0 || root.Content[0].Tag == "!!null" {
		d.fail("", 0, "document is empty")
		return
	}
	d.value(root.Content[0], reflect.ValueOf(into).Elem(), "", 0)
}

// maxDepth bounds recursion; match conditions nest.
const maxDepth = 32

func (d *document) value(n *yaml.Node, v reflect.Value, path string, depth int) {
	if path != "" {
		d.lines[path] = n.Line
	}
	switch {
	case depth > maxDepth:
		d.fail(path, n.Line, "nested deeper than %d levels", maxDepth)
		return
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.fail(path, n.Line, "anchors and aliases are not supported")
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), path, depth)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			d.scalar(n, v, path)
			return
		}
		if s, ok := v.Addr().Interface().(*Service); ok && d.recall(n, s) {
			return
		}
		d.mapping(n, v, path, depth)
	case reflect.Map:
		d.table(n, v, path, depth)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.fail(path, n.Line, "expected a list, found %s", kindOf(n))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, c := range n.Content {
			d.value(c, v.Index(i), fmt.Sprintf("%s[%d]", path, i), depth+1)
		}
	default:
		d.scalar(n, v, path)
	}
}

func (d *document) scalar(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		d.fail(path, n.Line, "expected %s, found %s", typeName(v.Type()), kindOf(n))
		return
	}
	if err := n.Decode(v.Addr().Interface()); err != nil {
		d.fail(path, n.Line, "expected %s, found %q", typeName(v.Type()), clip(n.Value))
	}
}

func (d *document) mapping(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind != yaml.MappingNode {
		d.fail(path, n.Line, "expected keys, found %s", kindOf(n))
		return
	}
	fields := map[string]int{}
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if name != "" && name != "-" {
			fields[name] = i
		}
	}
	d.pairs(n, path, func(key *yaml.Node, val *yaml.Node) {
		i, ok := fields[key.Value]
		if !ok {
			d.fail(join(path, key.Value), key.Line, "unknown key%s", hint(key.Value, fields))
			return
		}
		d.value(val, v.Field(i), join(path, key.Value), depth+1)
	})
}

func (d *document) table(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind != yaml.MappingNode {
		d.fail(path, n.Line, "expected keys, found %s", kindOf(n))
		return
	}
	m := reflect.MakeMap(v.Type())
	d.pairs(n, path, func(key *yaml.Node, val *yaml.Node) {
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(val, elem, join(path, key.Value), depth+1)
		m.SetMapIndex(reflect.ValueOf(key.Value).Convert(v.Type().Key()), elem)
	})
	v.Set(m)
}

func (d *document) pairs(n *yaml.Node, path string, each func(key, val *yaml.Node)) {
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode || key.Tag == "!!merge":
			d.fail(path, key.Line, "only plain keys are supported")
		case seen[key.Value]:
			d.fail(join(path, key.Value), key.Line, "key appears twice")
		default:
			seen[key.Value] = true
			each(key, n.Content[i+1])
		}
	}
}

func join(path, key string) string {
	if path == "" {
		return clip(key)
	}
	return path + "." + clip(key)
}

func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "..."
	}
	return s
}

func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "keys"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "nothing"
	default:
		return fmt.Sprintf("%q", clip(n.Value))
	}
}

func typeName(t reflect.Type) string {
	switch {
	case t.String() == "time.Duration":
		return `a duration such as "2s"`
	case t == reflect.TypeFor[time.Time]():
		return `a time such as "2030-01-31T12:00:00Z"`
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Uint64 || t.Kind() == reflect.Uint32:
		return "a whole number that is not negative"
	case t.Kind() == reflect.Float64:
		return "a number"
	default:
		return "a whole number"
	}
}
