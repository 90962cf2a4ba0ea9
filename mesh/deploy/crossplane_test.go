package deploy_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// crossplaneDefinitions is a folder with the resource definitions of Crossplane and of its
// providers, however deep: they come by no Go module, and their text is not ours to keep.
// mesh/deploy/platform/README.md says where they are.
const crossplaneDefinitions = "TRACEGATE_TEST_CROSSPLANE"

type schema = apiextensionsv1.JSONSchemaProps

// TestCompositionsAgainstDefinitions holds compositions, their definitions, and each
// resource that they compose, after its patches, to the schemas of those who will read them.
func TestCompositionsAgainstDefinitions(t *testing.T) {
	dir := os.Getenv(crossplaneDefinitions)
	if dir == "" {
		t.Skip(crossplaneDefinitions + " names no folder with Crossplane's definitions")
	}
	schemas := map[string]schema{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(data, &crd); err != nil || crd.Kind != "CustomResourceDefinition" {
			return err
		}
		for _, v := range crd.Spec.Versions {
			if v.Schema != nil {
				schemas[crd.Spec.Group+"/"+v.Name+" "+crd.Spec.Names.Kind] = *v.Schema.OpenAPIV3Schema
			}
		}
		return nil
	})
	if err != nil || len(schemas) == 0 {
		t.Fatalf("no definitions in %s: %v", dir, err)
	}
	hold := func(u *unstructured.Unstructured) {
		t.Helper()
		s, ok := schemas[u.GetAPIVersion()+" "+u.GetKind()]
		if !ok {
			t.Errorf("there is no definition of %s %s", u.GetAPIVersion(), u.GetKind())
			return
		}
		for _, wrong := range violations("", u.Object, s) {
			t.Errorf("%s %s: %s", u.GetKind(), u.GetName(), wrong)
		}
	}
	for _, u := range documentsOf(t, "platform/crossplane/definitions.yaml") {
		hold(u)
	}
	for _, cloud := range []string{"aws", "gcp"} {
		for _, u := range documentsOf(t, "platform/crossplane/"+cloud+".yaml") {
			hold(u)
			for _, composed := range composedBy(t, u) {
				composed.SetName(u.GetName())
				hold(composed)
			}
		}
	}
}

// TestViolations says what is found, and so that something is.
func TestViolations(t *testing.T) {
	text := schema{Type: "string"}
	s := schema{Type: "object", Properties: map[string]schema{"spec": {
		Type: "object", Required: []string{"size"},
		XValidations: apiextensionsv1.ValidationRules{{Message: "spec.forProvider.region is a required parameter"}},
		Properties: map[string]schema{
			"size":        {Type: "string", Enum: []apiextensionsv1.JSON{{Raw: []byte(`"small"`)}}},
			"rules":       {Type: "array", Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &schema{Type: "object", Properties: map[string]schema{"days": {Type: "number"}}}}},
			"tags":        {Type: "object", AdditionalProperties: &apiextensionsv1.JSONSchemaPropsOrBool{Schema: &text}},
			"forProvider": {Type: "object", Properties: map[string]schema{"region": text}},
		},
	}}}
	for _, tt := range []struct{ document, want string }{
		{`{metadata: {name: x}, spec: {size: small, forProvider: {region: a}, rules: [{days: 3}], tags: {a: b}}}`, ""},
		{`{spec: {forProvider: {region: a}}}`, "spec.size is missing"},
		{`{spec: {size: small, forProvider: {}}}`, "spec.forProvider.region is a required parameter"},
		{`{spec: {size: huge, forProvider: {region: a}}}`, `spec.size: "huge" is none of "small"`},
		{`{spec: {size: small, forProvider: {region: a, regoin: b}}}`, "spec.forProvider.regoin is unknown"},
		{`{spec: {size: small, forProvider: {region: a}, rules: {days: 3}}}`, "spec.rules is no array"},
		{`{spec: {size: small, forProvider: {region: a}, rules: [{days: x}]}}`, "spec.rules[0].days is no number"},
		{`{spec: {size: small, forProvider: {region: a}, tags: {a: 1}}}`, "spec.tags.a is no string"},
	} {
		var document map[string]any
		if err := yaml.Unmarshal([]byte(tt.document), &document); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(violations("", document, s), "; "); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.document, got, tt.want)
		}
	}
}

// violations are where a value is not as a schema says: fields that there are not, that are
// missing, of another type or none of an enumeration. Of rules in CEL only that a parameter
// is required is read.
func violations(path string, v any, s schema) (out []string) {
	if s.XIntOrString || s.Type == "" || s.XPreserveUnknownFields != nil && *s.XPreserveUnknownFields && len(s.Properties) == 0 {
		return nil
	}
	if !isOf(s.Type, v) {
		return []string{path + " is no " + s.Type}
	}
	if len(s.Enum) > 0 {
		var allowed []string
		for _, e := range s.Enum {
			allowed = append(allowed, string(e.Raw))
		}
		if is := fmt.Sprintf("%q", v); !slices.Contains(allowed, is) {
			out = append(out, fmt.Sprintf("%s: %s is none of %s", path, is, strings.Join(allowed, ", ")))
		}
	}
	switch v := v.(type) {
	case []any:
		for i, item := range v {
			if s.Items != nil && s.Items.Schema != nil {
				out = append(out, violations(fmt.Sprintf("%s[%d]", path, i), item, *s.Items.Schema)...)
			}
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			at := strings.TrimPrefix(path+"."+name, ".")
			child, known := s.Properties[name]
			switch {
			case path == "" && slices.Contains([]string{"apiVersion", "kind", "metadata"}, name):
			case known:
				out = append(out, violations(at, v[name], child)...)
			case s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil:
				out = append(out, violations(at, v[name], *s.AdditionalProperties.Schema)...)
			default:
				out = append(out, at+" is unknown")
			}
		}
		for _, name := range s.Required {
			if _, is := v[name]; !is && path != "" {
				out = append(out, path+"."+name+" is missing")
			}
		}
		for _, rule := range s.XValidations {
			m := requiredParameter.FindStringSubmatch(rule.Message)
			if m == nil || path != "spec" {
				continue
			}
			if _, is, _ := unstructured.NestedFieldNoCopy(v, "forProvider", m[1]); !is {
				out = append(out, rule.Message)
			}
		}
	}
	return out
}

var requiredParameter = regexp.MustCompile(`^spec\.forProvider\.([A-Za-z0-9]+) is a required parameter$`)

func isOf(typ string, v any) bool {
	switch v.(type) {
	case map[string]any:
		return typ == "object"
	case []any:
		return typ == "array"
	case string:
		return typ == "string"
	case bool:
		return typ == "boolean"
	case int64:
		return typ == "integer" || typ == "number"
	case float64:
		return typ == "number"
	}
	return false
}

// composedBy are the resources that a composition makes of a claim that says everything.
func composedBy(t *testing.T, u *unstructured.Unstructured) (out []*unstructured.Unstructured) {
	t.Helper()
	steps, _, err := unstructured.NestedSlice(u.Object, "spec", "pipeline")
	if err != nil || len(steps) == 0 {
		t.Fatalf("%s has no steps: %v", u.GetName(), err)
	}
	for _, step := range steps {
		resources, _, err := unstructured.NestedSlice(step.(map[string]any), "input", "resources")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range resources {
			r := r.(map[string]any)
			base := r["base"].(map[string]any)
			patches, _, err := unstructured.NestedSlice(r, "patches")
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range patches {
				p := p.(map[string]any)
				base = put(base, strings.Split(p["toFieldPath"].(string), "."), sample(p)).(map[string]any)
			}
			out = append(out, &unstructured.Unstructured{Object: base})
		}
	}
	return out
}

// sample is a value that a patch may write: what its transforms make of one of a claim's.
func sample(patch map[string]any) any {
	transforms, _, _ := unstructured.NestedSlice(patch, "transforms")
	for _, tr := range transforms {
		tr := tr.(map[string]any)
		if values, ok, _ := unstructured.NestedMap(tr, "map"); ok {
			for _, name := range slices.Sorted(maps.Keys(values)) {
				return values[name]
			}
		}
		if to, ok, _ := unstructured.NestedString(tr, "convert", "toType"); ok && to == "string" {
			return "7"
		}
		if _, ok := tr["string"]; ok {
			return "text"
		}
	}
	if from := patch["fromFieldPath"].(string); strings.HasSuffix(from, ".region") || strings.HasPrefix(from, "metadata.") {
		return "here"
	}
	return int64(7)
}

// put writes a value at a path of fields and field[index].
func put(into any, path []string, v any) any {
	if len(path) == 0 {
		return v
	}
	name, index, indexed := strings.Cut(strings.TrimSuffix(path[0], "]"), "[")
	m, _ := into.(map[string]any)
	if m == nil {
		m = map[string]any{}
	}
	if !indexed {
		m[name] = put(m[name], path[1:], v)
		return m
	}
	i, err := strconv.Atoi(index)
	if err != nil {
		return m
	}
	list, _ := m[name].([]any)
	for len(list) <= i {
		list = append(list, nil)
	}
	list[i] = put(list[i], path[1:], v)
	m[name] = list
	return m
}
