package policy

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/tracegate/tracegate/controlplane/decide"
)

var update = flag.Bool("update", false, "rewrite policy.schema.json")

// limits are what types do not say, by type and key. Parse must hold each of them.
var limits = map[string]map[string]any{
	"Policy.failure":              {"enum": []string{string(FailOpen), string(FailClosed)}},
	"Policy.services":             {"minItems": 1, "maxItems": maxServices},
	"Service.pools":               {"minItems": 1, "maxItems": maxPools},
	"Service.routes":              {"minItems": 1, "maxItems": maxRoutes},
	"Service.name":                {"pattern": name.String()},
	"Pool.name":                   {"pattern": name.String()},
	"Rule.match":                  {"minItems": 1, "maxItems": maxMatches},
	"Rule.name":                   {"minLength": 1, "maxLength": 64},
	"Match.path":                  {"pattern": "^(/.*)?$"},
	"Match.prefix":                {"pattern": "^(/.*)?$"},
	"Route.path":                  {"pattern": "^(/.*)?$"},
	"Route.prefix":                {"pattern": "^(/.*)?$"},
	"Canary.pools":                {"minItems": 1, "maxItems": 2},
	"CanaryPool.percent":          percent,
	"Mirror.percent":              percent,
	"FaultDelay.percent":          percent,
	"FaultAbort.percent":          percent,
	"RetryBudget.percent":         percent,
	"Pool.panicThreshold":         percent,
	"Pool.loadBalancing":          {"enum": []string{"", string(LeastRequest), string(RoundRobin), string(Random), string(RingHash), string(Maglev)}},
	"Pool.hashBy":                 {"maxItems": maxHashBy},
	"FaultAbort.status":           {"minimum": 400, "maximum": 599},
	"DirectResponse.status":       {"minimum": 200, "maximum": 599},
	"Redirect.status":             {"enum": []int{0, 301, 302, 303, 307, 308}},
	"RateLimit.requestsPerSecond": {"minimum": 1, "maximum": 1_000_000},
	"Retries.attempts":            {"maximum": 20},
	"Limit.name":                  {"pattern": name.String()},
	"Limit.requests":              {"minimum": 1, "maximum": 1_000_000_000},
	"Limit.unit":                  {"enum": []string{"", "second", "minute", "hour", "day"}},
	"Limit.failure":               {"enum": []string{"", string(FailOpen), string(FailClosed)}},
	"JWTProvider.name":            {"pattern": name.String()},
	"JWTProvider.issuer":          {"minLength": 1, "maxLength": maxValue},
	"RuleJWT.require":             {"minItems": 1, "maxItems": maxJWTProviders},
	"decide.Policy.mode":          {"enum": []string{string(decide.ModeObserve), string(decide.ModeRecommend), string(decide.ModeAct)}},
	"decide.GroupPolicy.name":     {"minLength": 1, "maxLength": 253},
	"decide.GroupPolicy.id":       {"pattern": "^([0-9a-f]{6})?$"},
	"decide.GroupPolicy.color":    {"pattern": "^([0-9a-f]{8})?$"},
	"decide.GroupPolicy.mode":     {"enum": []string{"", string(decide.ModeObserve), string(decide.ModeRecommend), string(decide.ModeAct)}},
}

var percent = map[string]any{"minimum": 0, "maximum": 100}

// required are keys without which Parse takes nothing.
var required = map[string][]string{
	"Policy": {"services"}, "Service": {"name", "pools", "routes"}, "Pool": {"name"}, "Rule": {"name", "match"}, "HeaderMatch": {"name"}, "CookieMatch": {"name"},
	"QueryMatch": {"name"}, "Canary": {"pools"}, "CanaryPool": {"pool"}, "Mirror": {"pool"}, "DirectResponse": {"status"}, "CORS": {"origins"},
	"RateLimit": {"requestsPerSecond"}, "FaultDelay": {"duration"}, "FaultAbort": {"status"}, "color.Cohort": {"name"}, "Limit": {"name", "requests"},
	"JWTProvider": {"name", "issuer"}, "JWTHeader": {"name"}, "RuleJWT": {"require"}, "decide.GroupPolicy": {"name"},
}

const durationPattern = `^[-+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$` // time.ParseDuration

// generator makes a schema of Go types, as [document] decodes them.
type generator struct {
	defs map[string]any
	docs map[string]string // "Rule" and "Rule.Match" -> comment
}

func generate(t *testing.T) []byte {
	t.Helper()
	g := generator{defs: map[string]any{}, docs: map[string]string{}}
	for prefix, dir := range map[string]string{"": ".", "color.": "../../wasm/color", "decide.": "../decide"} {
		g.comments(t, prefix, dir)
	}
	root := g.schema(reflect.TypeFor[Policy]())
	out, err := json.MarshalIndent(map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Tracegate policy", "$ref": root["$ref"], "$defs": g.defs,
	}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, '\n')
}

func (g *generator) comments(t *testing.T, prefix, dir string) {
	t.Helper()
	pkgs, err := parser.ParseDir(token.NewFileSet(), dir, func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }, parser.ParseComments) //nolint:staticcheck // no build tags here
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range pkgs {
		ast.Inspect(pkg, func(n ast.Node) bool {
			d, ok := n.(*ast.GenDecl)
			if !ok {
				return true
			}
			for _, spec := range d.Specs {
				ts, ok := spec.(*ast.TypeSpec)
				if !ok {
					continue
				}
				g.docs[prefix+ts.Name.Name] = d.Doc.Text()
				st, ok := ts.Type.(*ast.StructType)
				if !ok {
					continue
				}
				for _, f := range st.Fields.List {
					for _, id := range f.Names {
						g.docs[prefix+ts.Name.Name+"."+id.Name] = f.Doc.Text() + f.Comment.Text()
					}
				}
			}
			return true
		})
	}
}

// defName tells types of this package and others apart.
func defName(t reflect.Type) string { return strings.TrimPrefix(t.String(), "policy.") }

func (g *generator) schema(t reflect.Type) map[string]any {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return map[string]any{"type": "string", "pattern": durationPattern, "examples": []string{"500ms", "2s", "1m30s"}}
	case t == reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return g.schema(t.Elem())
	case reflect.Slice:
		return map[string]any{"type": "array", "items": g.schema(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": g.schema(t.Elem())}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Uint32, reflect.Uint64:
		return map[string]any{"type": "integer", "minimum": 0}
	case reflect.Int:
		return map[string]any{"type": "integer"}
	case reflect.String:
		return map[string]any{"type": []string{"string", "number", "boolean"}} // a scalar without quotes is one as well
	case reflect.Struct:
		return g.object(t)
	default:
		panic("schema: no idea of " + t.String())
	}
}

func (g *generator) object(t reflect.Type) map[string]any {
	def := defName(t)
	ref := map[string]any{"$ref": "#/$defs/" + def}
	if _, done := g.defs[def]; done {
		return ref
	}
	properties := map[string]any{}
	out := map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
	g.defs[def] = out
	if doc := oneLine(g.docs[def]); doc != "" {
		out["description"] = doc
	}
	if keys := required[def]; keys != nil {
		out["required"] = keys
	}
	for i := range t.NumField() {
		f := t.Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if key == "" || key == "-" {
			continue
		}
		s := g.schema(f.Type)
		if doc := oneLine(g.docs[def+"."+f.Name]); doc != "" {
			s["description"] = doc
		}
		for k, v := range limits[def+"."+key] {
			s[k] = v
		}
		properties[key] = s
	}
	return ref
}

// oneLine also turns links of Go comments into their names.
func oneLine(doc string) string {
	doc = regexp.MustCompile(`\[([A-Za-z.]+)\]`).ReplaceAllString(doc, "$1")
	return strings.Join(strings.Fields(doc), " ")
}

// TestSchemaIsGenerated: the committed schema is that of the types.
func TestSchemaIsGenerated(t *testing.T) {
	got := generate(t)
	if *update {
		if err := os.WriteFile("policy.schema.json", got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(got, Schema) {
		t.Error("policy.schema.json is not what the types say (rewrite with -update)")
	}
	for key := range limits {
		def, _, _ := cutLast(key)
		if !strings.Contains(string(got), `"`+def+`": {`) {
			t.Errorf("limits name %s, and there is no such type", key)
		}
	}
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '.')
	return s[:max(0, i)], s[i+1:], i >= 0
}

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(generate(t)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("policy.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("policy.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// instance is a document as a validator sees it; ok is false for what is no YAML.
func instance(doc []byte) (v any, ok bool) {
	var root yaml.Node
	if yaml.Unmarshal(doc, &root) != nil || len(root.Content) == 0 {
		return nil, false
	}
	return plain(root.Content[0]), true
}

// plain has the types of JSON only; a date is a text there.
func plain(n *yaml.Node) any {
	switch {
	case n.Kind == yaml.MappingNode:
		out := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			out[n.Content[i].Value] = plain(n.Content[i+1])
		}
		return out
	case n.Kind == yaml.SequenceNode:
		out := make([]any, len(n.Content))
		for i, c := range n.Content {
			out[i] = plain(c)
		}
		return out
	case n.Tag == "!!timestamp":
		return n.Value
	}
	var v any
	if n.Decode(&v) != nil {
		return n.Value
	}
	if f, ok := v.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
		return "no number of JSON"
	}
	return v
}

// samples are the policies of the project: the default one, with and without its
// commented rules, and the examples of the documentation.
func samples(t *testing.T) map[string][]byte {
	t.Helper()
	out := map[string][]byte{
		"default.yaml":                   Default,
		"default.yaml with its comments": regexp.MustCompile(`(?m)^    #( |$)`).ReplaceAll(Default, []byte("    ")),
		"large":                          large(3, 4),
	}
	page, err := os.ReadFile("../../docs/routing.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		rules := "      " + strings.ReplaceAll(strings.TrimSpace(m[1]), "\n", "\n      ")
		out[fmt.Sprintf("docs/routing.md %d", i)] = []byte("color: {cohorts: [{name: beta, match: {path: /beta}}]}\nservices:\n  - name: core\n    pools: [{name: baseline}, {name: canary}, {name: isolated}]\n    routes: [{prefix: /}]\n    rules:\n" + rules + "\n")
	}
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if out[f], err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestSchemaTakesEverySample(t *testing.T) {
	s := compiled(t)
	all := samples(t)
	if len(all) < 8 {
		t.Fatalf("only %d samples", len(all))
	}
	for name, doc := range all {
		v, ok := instance(doc)
		if !ok {
			t.Fatalf("%s is no YAML", name)
		}
		if err := s.Validate(v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Parse(doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSchemaRefusesOnlyWhatParseRefuses changes samples at random: keys are renamed,
// doubled or dropped, values replaced by others of any kind.
func TestSchemaRefusesOnlyWhatParseRefuses(t *testing.T) {
	s := compiled(t)
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	values := []string{"1", "-1", "0", "1.5", "1e3", "0x10", "true", "yes", "~", "text", "''", "'5'", "2s", "1h1m", "5", "/x", "2030-01-01", "[a]", "{a: b}", "[]", "{}", "[{}]", ".nan", "99999999999999999999"}
	refused, taken := 0, 0
	all := samples(t)
	for name, doc := range all {
		for range 60 {
			var root yaml.Node
			if err := yaml.Unmarshal(doc, &root); err != nil {
				t.Fatal(err)
			}
			spoil(rnd, &root, values)
			changed, err := yaml.Marshal(&root)
			if err != nil {
				continue
			}
			v, ok := instance(changed)
			if !ok {
				continue
			}
			says := s.Validate(v)
			if says == nil {
				taken++
				continue
			}
			refused++
			if _, err := Parse(changed); err == nil {
				t.Fatalf("seed %d: %s changed: the schema refuses what Parse takes: %v\n%s", seed, name, says, changed)
			}
		}
	}
	if refused < 100 || taken < 100 {
		t.Errorf("%d refused, %d taken: the changes say nothing", refused, taken)
	}
}

// spoil changes one node.
func spoil(rnd *rand.Rand, root *yaml.Node, values []string) {
	var all []*yaml.Node
	var walk func(*yaml.Node)
	walk = func(n *yaml.Node) {
		all = append(all, n)
		for _, c := range n.Content {
			walk(c)
		}
	}
	walk(root.Content[0])
	n := all[rnd.IntN(len(all))]
	switch rnd.IntN(4) {
	case 0:
		if len(n.Content) > 0 { // drop
			i := rnd.IntN(len(n.Content))
			if n.Kind == yaml.MappingNode {
				i -= i % 2
				n.Content = append(n.Content[:i:i], n.Content[i+2:]...)
			} else {
				n.Content = append(n.Content[:i:i], n.Content[i+1:]...)
			}
			return
		}
		fallthrough
	default:
		var with yaml.Node
		if yaml.Unmarshal([]byte(values[rnd.IntN(len(values))]), &with) == nil && len(with.Content) > 0 {
			*n = *with.Content[0]
		}
	}
}
