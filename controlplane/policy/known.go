package policy

import (
	"bytes"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Reading once more. Of thousands of rules one changes, and to parse the YAML of all the
// others took longer than all that an edge needs. So a document's lines are looked at
// first: services that stand as they stood in the version before, and in a service that
// has changed such rules, are left out. The rest, the outline, is parsed, and they are
// put in from memory.
//
// Lines do not know YAML: a text in quotes may hold one that looks like an item. So the
// parser has the last word, see [list.holds]: where it does not see each list and what
// follows it begin at the same lines, nothing is taken over and nothing is kept. A mistake
// anywhere has the whole document read, for its lines.
//
// (Digests of parsed nodes lost: they save decoding and checking, and parsing is most of
// it. A parser of our own for the plain half of YAML lost: it would be a second truth.)

// version is what the next version of a document may take over.
type version struct {
	text     string // of the whole, where policy is what it says
	policy   Policy
	services map[string]*knownService // by its lines
	named    map[string]*knownService // by the first line, to find those that have changed
}

// knownService is a service that was decoded and checked.
type knownService struct {
	text    string
	service Service
	alone   bool     // nothing else was looked at to check it
	keys    []string // of its rules' matches
	rules   []string // lines of each rule; nil where they cannot be told apart
}

// outline is a document without what is known.
type outline struct {
	text     []byte
	list     list
	services []outlined // all of them
	shorter  bool       // text is not the document
}

// outlined is a service of a document that has an outline.
type outlined struct {
	text   string
	known  *knownService // nil: it is in the outline
	before *knownService // that some of its rules are taken from
	list   list          // of its rules
	rules  []outlinedRule
}

// outlinedRule is a rule of a service that is in an outline; known is nil where it is, too.
type outlinedRule struct {
	text  string
	known *knownRule
}

// knownRule is a rule that was decoded, to be checked once more: by the name of its
// service, the pools that it has, other services.
type knownRule struct {
	rule *Rule
	keys []string // of its matches
}

// list is where a list stands in an outline.
type list struct {
	key   int // line of its key
	items int
	end   int // line of the key behind it; 0: there is none
}

// holds says whether the parser sees the list in n as its lines were taken apart, and
// returns it. The key is where it should be, so the first item is. All others begin with a
// dash at the start of a line in the same column; each such line was taken for one, so with
// as many of them they are the same. And with the key behind in its place the last one
// ends where it should.
func (l list) holds(n *yaml.Node, key string) (*yaml.Node, bool) {
	if n.Kind != yaml.MappingNode || n.Style&yaml.FlowStyle != 0 {
		return nil, false
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Line != l.key || k.Value != key {
			continue
		}
		end := 0
		if i+2 < len(n.Content) {
			end = n.Content[i+2].Line
		}
		return v, v.Kind == yaml.SequenceNode && v.Style&yaml.FlowStyle == 0 && len(v.Content) == l.items && end == l.end
	}
	return nil, false
}

// holds says the same of all lists.
func (o *outline) holds(root *yaml.Node) bool {
	services, ok := o.list.holds(root, "services")
	if !ok {
		return false
	}
	n := 0
	for i := range o.services {
		s := &o.services[i]
		if s.known != nil {
			continue
		}
		if s.rules != nil {
			if _, ok := s.list.holds(services.Content[n], "rules"); !ok {
				return false
			}
		}
		n++
	}
	return true
}

// complete puts what is known among what was decoded. It says no where something was left
// out that is another thing here: a rule is checked as one of its service, so that must
// have the same name.
func (o *outline) complete(p *Policy) bool {
	services, decoded := make([]Service, len(o.services)), p.Services
	for i := range o.services {
		s := &o.services[i]
		if s.known != nil {
			services[i] = s.known.service
			continue
		}
		services[i], decoded = decoded[0], decoded[1:]
		if s.before == nil {
			continue
		}
		if services[i].Name != s.before.service.Name {
			return false
		}
		services[i].Rules = s.complete(services[i].Rules)
	}
	p.Services = services
	return true
}

func (s *outlined) complete(decoded []Rule) []Rule {
	rules := make([]Rule, len(s.rules))
	for i, r := range s.rules {
		if r.known != nil {
			rules[i] = *r.known.rule
			continue
		}
		rules[i], decoded = decoded[0], decoded[1:]
	}
	return rules
}

// unusual are line breaks that only YAML takes for one, and tabs, which it takes for
// blanks in some places.
var unusual = [][]byte{[]byte("\r"), []byte("\t"), []byte("\u0085"), []byte("\u2028"), []byte("\u2029"), []byte("\n%")}

// outlineOf takes out what is known. A document of another form is its own outline,
// without services.
func outlineOf(document []byte, known version) outline {
	o := outline{text: document}
	if bytes.HasPrefix(document, []byte("%")) || slices.ContainsFunc(unusual, func(s []byte) bool { return bytes.Contains(document, s) }) {
		return o
	}
	b, ok := split(string(document), "services", 0)
	if !ok {
		return o
	}
	w := writer{text: make([]byte, 0, 4096)}
	o.services = make([]outlined, len(b.items))
	for i, text := range b.items {
		o.services[i] = outlined{text: text}
		if k := known.services[text]; k != nil && k.alone {
			o.services[i].known = k
		}
	}
	o.list = w.list(b, func(i int) bool {
		s := &o.services[i]
		if s.known == nil {
			w.service(s, known.named[firstLine(s.text)])
		}
		return s.known == nil
	})
	if o.shorter = w.shorter; o.shorter {
		o.text = w.text
	}
	return o
}

// writer writes an outline.
type writer struct {
	text    []byte
	lines   int // that are complete
	shorter bool
}

func (w *writer) add(text string) {
	w.text = append(w.text, text...)
	w.lines += strings.Count(text, "\n")
}

// list writes a list with what stands around it. item writes one, or says that it is left
// out. A list of none would be none, so there is one then that says nothing.
func (w *writer) list(b block, item func(i int) bool) list {
	l := list{key: w.lines + strings.Count(b.head[:b.key], "\n") + 1}
	w.add(b.head)
	for i := range b.items {
		if item(i) {
			l.items++
		}
	}
	w.shorter = w.shorter || l.items < len(b.items)
	if l.items == 0 {
		l.items = 1
		w.add(strings.Repeat(" ", b.indent) + "- {}\n")
	}
	if b.tail != "" {
		l.end = w.lines + 1
	}
	w.add(b.tail)
	return l
}

// service writes one that has changed since before, if it was there.
func (w *writer) service(s *outlined, before *knownService) {
	b, ok := split(s.text, "rules", content(s.text))
	if !ok {
		w.add(s.text)
		return
	}
	s.before = before
	known := before.byLines()
	s.rules = make([]outlinedRule, len(b.items))
	s.list = w.list(b, func(i int) bool {
		r := outlinedRule{b.items[i], known[b.items[i]]}
		s.rules[i] = r
		if r.known == nil {
			w.add(r.text)
		}
		return r.known == nil
	})
}

// byLines are rules that can be taken over.
func (k *knownService) byLines() map[string]*knownRule {
	if k == nil {
		return nil
	}
	out, keys := make(map[string]*knownRule, len(k.rules)), k.keys
	for i, text := range k.rules {
		r := &k.service.Rules[i]
		if !r.hasCohort() { // its color is the policy's to say
			out[text] = &knownRule{r, keys[:len(r.Match)]}
		}
		keys = keys[len(r.Match):]
	}
	return out
}

// block is a list in block style with what stands around it. Comments and blank lines
// belong to the item before them.
type block struct {
	head   string // with the line of the key, which begins at key
	key    int
	indent int // of the items
	items  []string
	tail   string
}

// split takes the first list of a key in a column apart.
func split(text, key string, column int) (block, bool) {
	b := block{key: -1, indent: -1}
	var starts []int
	end := len(text)
lines:
	for at := 0; at < len(text); at += len(firstLine(text[at:])) {
		line := firstLine(text[at:])
		rest := strings.TrimLeft(line, " ")
		indent := len(line) - len(rest)
		rest = strings.TrimSuffix(rest, "\n")
		dash := rest == "-" || strings.HasPrefix(rest, "- ")
		switch {
		case rest == "" || rest[0] == '#':
		case b.key < 0:
			if indent == column && alone(rest, key) {
				b.key = at
			}
		case dash && (indent == b.indent || b.indent < 0 && indent >= column):
			b.indent = indent
			starts = append(starts, at)
		case indent <= b.indent || b.indent < 0:
			end = at
			break lines
		}
	}
	if len(starts) == 0 {
		return block{}, false
	}
	b.head, b.tail = text[:starts[0]], text[end:]
	for i, at := range starts {
		next := end
		if i+1 < len(starts) {
			next = starts[i+1]
		}
		b.items = append(b.items, text[at:next])
	}
	return b, true
}

// alone says whether a line is a key with its value below it.
func alone(line, key string) bool {
	rest, ok := strings.CutPrefix(line, key+":")
	value := strings.TrimLeft(rest, " ")
	return ok && (value == "" || value[0] == '#' && rest[0] == ' ')
}

// content is the column in which the content of an item begins; -1: below its first line.
func content(item string) int {
	dash := strings.IndexByte(item, '-')
	rest := strings.TrimLeft(item[dash+1:], " ")
	if rest == "" || rest[0] == '\n' || rest[0] == '#' {
		return -1
	}
	return len(item) - len(rest)
}

func firstLine(text string) string {
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		return text[:i+1]
	}
	return text
}

// isKnown says whether the service at an index needs no check by itself.
func (d *document) isKnown(i int) (*knownService, bool) {
	if !d.holds || d.outline.services[i].known == nil {
		return nil, false
	}
	return d.outline.services[i].known, true
}

// keysOf are the keys of a rule's matches.
func (d *document) keysOf(service, rule int, matches []Match) []string {
	if d.holds && d.outline.services[service].rules != nil {
		if k := d.outline.services[service].rules[rule].known; k != nil {
			return k.keys
		}
	}
	out := make([]string, len(matches))
	for i, m := range matches {
		out[i] = m.key()
	}
	return out
}

// learned is what the next version may take over.
func (d *document) learned(data []byte, p Policy) version {
	out := version{text: string(data), policy: p}
	if !d.holds {
		return out
	}
	out.services, out.named = make(map[string]*knownService, len(p.Services)), make(map[string]*knownService, len(p.Services))
	for i := range p.Services {
		o, s := &d.outline.services[i], &p.Services[i]
		k := o.known
		if k == nil {
			k = &knownService{ // texts of their own, or they would keep the whole document
				text: strings.Clone(o.text), service: *s, keys: d.keys[i], rules: o.lines(),
				alone: !slices.ContainsFunc(s.Rules, func(r Rule) bool { return r.Service != s.Name || r.hasCohort() }),
			}
		}
		out.services[k.text], out.named[firstLine(k.text)] = k, k
	}
	return out
}

// lines are those of each rule.
func (s *outlined) lines() []string {
	out := make([]string, len(s.rules))
	for i, r := range s.rules {
		out[i] = strings.Clone(r.text)
	}
	return out
}

// hasCohort says whether the policy beside the rule says what it means.
func (r *Rule) hasCohort() bool {
	return slices.ContainsFunc(r.Match, func(m Match) bool { return m.Cohort != "" })
}
