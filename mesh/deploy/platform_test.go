package deploy_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/tracegate/tracegate/mesh/kubetest"
)

var kube kubetest.Shared

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		os.Exit(m.Run())
	}
	os.Exit(kube.Main(kubetest.Config{}, m.Run))
}

// definitions of others, as files of their Go modules: the go tool fetches and verifies
// them, so they are pinned and nothing of them is copied.
var definitions = []struct{ module, sum, files string }{
	{"github.com/cert-manager/cert-manager@v1.21.2", "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=", "deploy/crds/cert-manager.io_*.yaml"},
	{"github.com/cilium/cilium@v1.20.2", "h1:dqiEGIcXc+gqCLYG/l7VCFJ8GHyb4HUrwbZOpkX5dL8=", "pkg/k8s/apis/cilium.io/client/crds/v2/*networkpolicies.yaml"},
	{"sigs.k8s.io/gateway-api@v1.6.3", "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc=", "config/crd/standard/gateway.networking.k8s.io_[gh]*s.yaml"},
	{"istio.io/api@v1.32.0", "h1:37mJvg9I0biYZAEQF+MATs4FNeCpXEIVO3LFpVb6iNM=", "kubernetes/customresourcedefinitions.gen.yaml"},
	{"github.com/argoproj/argo-cd/v3@v3.4.0", "h1:yZwfaOIzE/aQTA52mOfeZQbribmyxKYvMgirQja4eX0=", "manifests/crds/app*-crd.yaml"},
}

// fetch returns the folder of a module, or "" and why there is none.
func fetch(ctx context.Context, module, sum string) (dir string, err error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	cmd.Dir = os.TempDir() // outside of our module, whose go.sum does not know it
	out, runErr := cmd.Output()
	var got struct{ Dir, Sum, Error string }
	if err := json.Unmarshal(out, &got); err != nil {
		return "", fmt.Errorf("fetch %s: %w", module, errors.Join(runErr, err))
	}
	switch {
	case got.Error != "":
		return "", fmt.Errorf("fetch %s: %s", module, got.Error)
	case got.Sum != sum:
		return "", fmt.Errorf("fetch %s: its sum is %s, want %s", module, got.Sum, sum)
	}
	return got.Dir, nil
}

// TestPlatform applies every example to an API server with the definitions of those whom
// it is for. Server-side apply refuses fields that a definition lacks.
func TestPlatform(t *testing.T) {
	c := kube.Cluster(t)
	for _, d := range definitions {
		dir, err := fetch(t.Context(), d.module, d.sum)
		if err != nil {
			if os.Getenv("CI") == "" {
				t.Skip(err)
			}
			t.Fatal(err)
		}
		if err := c.ApplyFiles(t.Context(), os.DirFS(dir), d.files, ""); err != nil {
			t.Fatalf("%s: %v", d.module, err)
		}
	}
	cl, err := client.New(c.Admin(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, crd := range claimDefinitions(t) {
		applyAndServe(t, c, crd)
	}
	for _, name := range []string{"chat", "argocd", "tracegate"} {
		if err := cl.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	files := []string{"platform/crossplane/claims.yaml", "kustomize-metrics/certificate.yaml", "kustomize-keda/certificate.yaml", "kustomize-keda/keda.yaml", "kustomize-metrics/metrics.yaml"} // the last makes groups unavailable
	more, err := filepath.Glob("platform/*.yaml")
	if err != nil || len(more) < 5 {
		t.Fatal(more, err)
	}
	for _, file := range append(more, files...) {
		for _, u := range documentsOf(t, file) {
			refusesUnknownFields(t, cl, u)
			if err := kubetest.Apply(t.Context(), cl, "chat", u); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

func documentsOf(t *testing.T, file string) []*unstructured.Unstructured {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	us, err := kubetest.Documents(data)
	if err != nil || len(us) == 0 {
		t.Fatalf("%s: %d documents: %v", file, len(us), err)
	}
	return us
}

// refusesUnknownFields is why a resource that was taken says something.
func refusesUnknownFields(t *testing.T, cl client.Client, u *unstructured.Unstructured) {
	t.Helper()
	wrong := u.DeepCopy()
	spec, ok := wrong.Object["spec"].(map[string]any)
	if !ok {
		return // roles and bindings
	}
	spec["misspelt"] = true
	if err := kubetest.Apply(t.Context(), cl, "chat", wrong); err == nil || !strings.Contains(err.Error(), "misspelt") {
		t.Errorf("%s %s with a field that there is not: %v", u.GetKind(), u.GetName(), err)
	}
}

func applyAndServe(t *testing.T, c *kubetest.Cluster, crd *apiextensionsv1.CustomResourceDefinition) {
	t.Helper()
	text, err := yaml.Marshal(crd)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "crd.yaml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.ApplyFiles(t.Context(), os.DirFS(dir), "*.yaml", ""); err != nil {
		t.Fatal(err)
	}
}

// composite is what is read of a CompositeResourceDefinition.
type composite struct {
	Spec struct {
		Group             string
		Names, ClaimNames struct{ Kind, Plural string }
		Versions          []struct {
			Name   string
			Schema struct {
				OpenAPIV3Schema apiextensionsv1.JSONSchemaProps
			}
		}
	}
}

func composites(t *testing.T) map[string]composite {
	t.Helper()
	out := map[string]composite{}
	for _, u := range documentsOf(t, "platform/crossplane/definitions.yaml") {
		js, err := u.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var x composite
		if err := json.Unmarshal(js, &x); err != nil {
			t.Fatal(err)
		}
		if u.GetName() != x.Spec.Names.Plural+"."+x.Spec.Group {
			t.Errorf("%s is not the name of %s", u.GetName(), x.Spec.Names.Kind)
		}
		out[x.Spec.Names.Kind] = x
	}
	return out
}

// claimDefinitions are what Crossplane makes of composite resources' definitions.
func claimDefinitions(t *testing.T) (out []*apiextensionsv1.CustomResourceDefinition) {
	t.Helper()
	object := func(fields ...string) apiextensionsv1.JSONSchemaProps {
		p := apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{}}
		for _, f := range fields {
			p.Properties[f] = apiextensionsv1.JSONSchemaProps{Type: "string"}
		}
		return p
	}
	for _, x := range composites(t) {
		v := x.Spec.Versions[0]
		schema := v.Schema.OpenAPIV3Schema
		labels := apiextensionsv1.JSONSchemaProps{Type: "object", AdditionalProperties: &apiextensionsv1.JSONSchemaPropsOrBool{Schema: &apiextensionsv1.JSONSchemaProps{Type: "string"}}}
		selector := object()
		selector.Properties["matchLabels"] = labels
		spec := schema.Properties["spec"]
		spec.Properties["compositionSelector"] = selector
		spec.Properties["compositionRef"] = object("name")
		spec.Properties["writeConnectionSecretToRef"] = object("name")
		crd := &apiextensionsv1.CustomResourceDefinition{}
		crd.APIVersion, crd.Kind, crd.Name = "apiextensions.k8s.io/v1", "CustomResourceDefinition", x.Spec.ClaimNames.Plural+"."+x.Spec.Group
		crd.Spec = apiextensionsv1.CustomResourceDefinitionSpec{
			Group: x.Spec.Group, Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Kind: x.Spec.ClaimNames.Kind, Plural: x.Spec.ClaimNames.Plural},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: v.Name, Served: true, Storage: true, Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &schema},
			}},
		}
		out = append(out, crd)
	}
	return out
}

// TestCompositions holds that each cloud meets each claim, by fields that the claim has.
func TestCompositions(t *testing.T) {
	all := composites(t)
	path := regexp.MustCompile(`fromFieldPath: spec\.parameters\.([A-Za-z]+)`)
	for _, cloud := range []string{"aws", "gcp"} {
		var met []string
		for _, u := range documentsOf(t, "platform/crossplane/"+cloud+".yaml") {
			kind, _, _ := unstructured.NestedString(u.Object, "spec", "compositeTypeRef", "kind")
			met = append(met, kind)
			text, err := yaml.Marshal(u.Object)
			if err != nil {
				t.Fatal(err)
			}
			used := map[string]bool{}
			for _, m := range path.FindAllStringSubmatch(string(text), -1) {
				used[m[1]] = true
			}
			parameters := all[kind].Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties["parameters"].Properties
			for name := range used {
				if _, ok := parameters[name]; !ok {
					t.Errorf("%s takes %s, which %s has not", u.GetName(), name, kind)
				}
			}
			if !used["region"] {
				t.Errorf("%s does not say where", u.GetName())
			}
			if u.GetLabels()["cloud"] != cloud {
				t.Errorf("%s is not found by its cloud", u.GetName())
			}
		}
		slices.Sort(met)
		if want := slices.Sorted(maps.Keys(all)); !slices.Equal(met, want) {
			t.Errorf("%s meets %v, want %v", cloud, met, want)
		}
	}
}

// TestPlatformIsListed finds an example that the README does not speak of.
func TestPlatformIsListed(t *testing.T) {
	readme, err := os.ReadFile("platform/README.md")
	if err != nil {
		t.Fatal(err)
	}
	err = fs.WalkDir(os.DirFS("platform"), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Ext(path) == ".yaml" && !strings.Contains(string(readme), strings.SplitN(path, "/", 2)[0]) {
			t.Errorf("README.md does not list %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
