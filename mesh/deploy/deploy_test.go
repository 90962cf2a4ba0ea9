package deploy_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestKustomizationsNameEveryFile finds definitions that were generated and would not be
// installed.
func TestKustomizationsNameEveryFile(t *testing.T) {
	for _, dir := range []string{"chart/crds", "chart/files", "kustomize", "kustomize-metrics"} {
		data, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		var k struct {
			Resources []string                `json:"resources"`
			Patches   []struct{ Path string } `json:"patches"`
		}
		if err := yaml.Unmarshal(data, &k); err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		for _, p := range k.Patches {
			k.Resources = append(k.Resources, p.Path)
		}
		files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
		if err != nil || len(files) < 2 {
			t.Fatal(files, err)
		}
		for _, f := range files {
			if name := filepath.Base(f); name != "kustomization.yaml" && !slices.Contains(k.Resources, name) {
				t.Errorf("%s/kustomization.yaml does not name %s", dir, name)
			}
		}
		for _, r := range k.Resources {
			if _, err := os.Stat(filepath.Join(dir, r)); err != nil {
				t.Errorf("%s/kustomization.yaml: %v", dir, err)
			}
		}
	}
}
