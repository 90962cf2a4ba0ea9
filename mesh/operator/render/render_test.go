package render_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/deploy"
	"github.com/tracegate/tracegate/mesh/operator/render"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestGolden renders each testdata/CASE.in.yaml, and the sample that users start from.
func TestGolden(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(cases) == 0 {
		t.Fatal("no cases", err)
	}
	sample, err := deploy.Samples.ReadFile("samples/microservice.yaml")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/sample.out.yaml", sample)
	for _, in := range cases {
		data, err := os.ReadFile(in)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, strings.TrimSuffix(in, ".in.yaml")+".out.yaml", data)
	}
}

func golden(t *testing.T, path string, in []byte) {
	t.Helper()
	var ms v1alpha1.MicroService
	if err := yaml.UnmarshalStrict(in, &ms); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	ms.Namespace, ms.UID = "shop", "6f2c0b1e-0000-0000-0000-000000000000"
	objects, err := render.Objects(&ms, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	for _, o := range objects {
		y, err := yaml.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		got.WriteString("---\n")
		got.Write(y)
	}
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// TestAutoscaledDeploymentsHaveNoReplicas is the promise that applying one never
// undoes what an autoscaler did.
func TestAutoscaledDeploymentsHaveNoReplicas(t *testing.T) {
	three := int32(3)
	auto := &v1alpha1.Autoscaling{MinReplicas: 2, MaxReplicas: 4}
	ms := &v1alpha1.MicroService{Spec: v1alpha1.MicroServiceSpec{
		Replicas: &three,
		Pools:    []v1alpha1.Pool{{Name: "baseline"}, {Name: "auto", Autoscaling: auto}},
	}}
	ms.Name = "x"
	objects, err := render.Objects(ms, nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, o := range objects {
		if o.GetKind() != "Deployment" {
			continue
		}
		seen++
		spec := o.Object["spec"].(map[string]any)
		if _, has := spec["replicas"]; has != (o.GetName() == "x-baseline") {
			t.Errorf("%s: replicas set: %v", o.GetName(), has)
		}
	}
	if seen != 2 {
		t.Errorf("%d deployments", seen)
	}
}
