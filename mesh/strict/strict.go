// Package strict reads YAML that operators write into Go values, whole or not at all.
// Every mistake is named with its key's path, its line and, of an unknown key, the
// nearest that is known.
//
// yaml.v3's KnownFields names an unknown field and its Go type; an operator needs the
// path and what was probably meant, so the walk is ours and the scalars are yaml.v3's.
// It is pure. Its callers are whoever has documents: the policy, settings of services.
package strict

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
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

// In is the problem as editors and compilers write one: "file:line: key: what".
func (p Problem) In(file string) string {
	return file + ":" + strconv.Itoa(max(1, p.Line)) + ": " + strings.TrimPrefix(p.Path+": "+p.Message, ": ")
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

// Reader decodes one document and remembers where each key stood. The zero value is
// ready; it is for one document.
type Reader struct {
	// Root looks at the first node of the document before it is decoded; may be nil.
	Root func(n *yaml.Node)

	lines    map[string]int
	problems []Problem
}

// Read decodes data over what into already holds, and has check look at it where it could
// be decoded; check reports by [Reader.Invalid]. The error is an [*Error].
func Read(data []byte, into any, check func(*Reader)) error {
	r := new(Reader)
	r.Parse(data, into)
	if r.Good() {
		check(r)
	}
	return r.Err()
}

// Good says that nothing was found wrong yet.
func (d *Reader) Good() bool { return len(d.problems) == 0 }

// Fail reports what is wrong at a line; 0: at none.
func (d *Reader) Fail(path string, line int, format string, args ...any) {
	if len(d.problems) < maxProblems {
		d.problems = append(d.problems, Problem{Path: path, Line: line, Message: fmt.Sprintf(format, args...)})
	}
}

// Invalid reports a value that decoded and cannot be used. The line is the one of
// the nearest key above path that the document has.
func (d *Reader) Invalid(path, format string, args ...any) {
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
	d.Fail(path, line, format, args...)
}

// Err is all that was found wrong, as an [*Error]; nil: nothing.
func (d *Reader) Err() error {
	if len(d.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(d.problems, func(a, b Problem) int { return a.Line - b.Line })
	return &Error{Problems: d.problems}
}

// Parse decodes data over what into already holds, so defaults stay where the
// document is silent. An empty document is an error: nothing must not replace something.
func (d *Reader) Parse(data []byte, into any) {
	d.lines = map[string]int{}
	if root := d.root(data); root != nil {
		if d.Root != nil {
			d.Root(root)
		}
		d.value(root, reflect.ValueOf(into).Elem(), "", 0)
	}
}

// root is the first node of a document; nil where it is none, which was reported.
func (d *Reader) root(data []byte) *yaml.Node {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		line, text := syntaxError(err)
		line = min(line, 1+bytes.Count(bytes.TrimRight(data, "\n"), []byte("\n")))
		d.Fail("", line, "%s", text)
		return nil
	}
	if len(root.Content) == 0 || root.Content[0].Tag == "!!null" {
		d.Fail("", 0, "document is empty")
		return nil
	}
	return root.Content[0]
}

// syntaxError takes the line out of an error of the YAML parser: "yaml: line 3: ...".
func syntaxError(err error) (line int, text string) {
	text = strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		number, rest, _ := strings.Cut(rest, ": ")
		if line, err := strconv.Atoi(number); err == nil {
			if unparsed.MatchString(rest) {
				line++ // yaml.v3 counts from 0 where tokens are well and their order is not
			}
			return line, rest
		}
	}
	return 0, text
}

var unparsed = regexp.MustCompile(`^did not find expected (node content|'-' indicator|key|',' or .*|<document start>)$`)

// maxDepth bounds recursion; match conditions nest.
const maxDepth = 32

func (d *Reader) value(n *yaml.Node, v reflect.Value, path string, depth int) {
	if path != "" {
		d.lines[path] = n.Line
	}
	switch {
	case depth > maxDepth:
		d.Fail(path, n.Line, "nested deeper than %d levels", maxDepth)
		return
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.Fail(path, n.Line, "anchors and aliases are not supported")
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
		d.mapping(n, v, path, depth)
	case reflect.Map:
		d.table(n, v, path, depth)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.Fail(path, n.Line, "expected a list, found %s", kindOf(n))
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

func (d *Reader) scalar(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		d.Fail(path, n.Line, "expected %s, found %s", typeName(v.Type()), kindOf(n))
		return
	}
	if err := decodeScalar(n, v); err != nil {
		d.Fail(path, n.Line, "expected %s, found %q", typeName(v.Type()), Clip(n.Value))
	}
}

// decodeScalar takes less than yaml.v3, which reads yes as true and 1.5 as 1.
func decodeScalar(n *yaml.Node, v reflect.Value) error {
	switch v.Kind() {
	case reflect.Bool:
		if n.Tag != "!!bool" {
			return errors.New("no boolean")
		}
	case reflect.Int, reflect.Uint32, reflect.Uint64:
		if n.Tag != "!!int" {
			return errors.New("no whole number")
		}
	}
	return n.Decode(v.Addr().Interface())
}

func (d *Reader) mapping(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind != yaml.MappingNode {
		d.Fail(path, n.Line, "expected keys, found %s", kindOf(n))
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
			d.Fail(Join(path, key.Value), key.Line, "unknown key%s", hint(key.Value, fields))
			return
		}
		d.value(val, v.Field(i), Join(path, key.Value), depth+1)
	})
}

func (d *Reader) table(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind != yaml.MappingNode {
		d.Fail(path, n.Line, "expected keys, found %s", kindOf(n))
		return
	}
	m := reflect.MakeMap(v.Type())
	d.pairs(n, path, func(key *yaml.Node, val *yaml.Node) {
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(val, elem, Join(path, key.Value), depth+1)
		m.SetMapIndex(reflect.ValueOf(key.Value).Convert(v.Type().Key()), elem)
	})
	v.Set(m)
}

func (d *Reader) pairs(n *yaml.Node, path string, each func(key, val *yaml.Node)) {
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode || key.Tag == "!!merge":
			d.Fail(path, key.Line, "only plain keys are supported")
		case seen[key.Value]:
			d.Fail(Join(path, key.Value), key.Line, "key appears twice")
		default:
			seen[key.Value] = true
			each(key, n.Content[i+1])
		}
	}
}

// Join is the path of a key below another.
func Join(path, key string) string {
	if path == "" {
		return Clip(key)
	}
	return path + "." + Clip(key)
}

// Clip keeps what a document says short enough to be said back.
func Clip(s string) string {
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
		return fmt.Sprintf("%q", Clip(n.Value))
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

// Check finds what is no YAML, or has no keys, in a document that somebody else reads.
func Check(data []byte) error {
	r := new(Reader)
	if root := r.root(data); root != nil && root.Kind != yaml.MappingNode {
		r.Fail("", root.Line, "expected keys, found %s", kindOf(root))
	}
	return r.Err()
}
