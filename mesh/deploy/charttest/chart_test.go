package charttest_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

var update = flag.Bool("update", false, "rewrite golden files")

type values = map[string]any

var (
	withMetrics = values{"metricsAPI": values{"enabled": true}}
	withKEDA    = values{"keda": values{"enabled": true}}
	withBoth    = values{"metricsAPI": values{"enabled": true}, "keda": values{"enabled": true}, "statistics": values{"enabled": true}}
)

// render is `helm template`: each template's text by its name, and the definitions.
func render(t *testing.T, namespace string, v values) (templates map[string]string, definitions []byte) {
	t.Helper()
	chart, err := loader.LoadDir("../chart")
	if err != nil {
		t.Fatal(err)
	}
	if !chartutil.IsCompatibleRange(chart.Metadata.KubeVersion, "v1.36.3") {
		t.Errorf("the chart refuses the Kubernetes that tests run: %s", chart.Metadata.KubeVersion)
	}
	all, err := chartutil.ToRenderValues(chart, v, chartutil.ReleaseOptions{Name: "tracegate", Namespace: namespace, IsInstall: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := engine.Render(chart, all)
	if err != nil {
		t.Fatal(err)
	}
	templates = map[string]string{}
	for name, text := range out {
		if filepath.Ext(name) == ".yaml" {
			templates[filepath.Base(name)] = strings.TrimLeft(text, "\n")
		}
	}
	for _, crd := range chart.CRDObjects() {
		definitions = append(append(definitions, "\n---\n"...), crd.File.Data...)
	}
	return templates, definitions
}

// documents are the resources of a text by kind, namespace and name.
func documents(t *testing.T, text []byte) map[string]any {
	t.Helper()
	out := map[string]any{}
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096); ; {
		var d map[string]any
		err := decoder.Decode(&d)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(d) == 0 {
			continue
		}
		meta := d["metadata"].(map[string]any)
		namespace, _ := meta["namespace"].(string)
		key := d["kind"].(string) + " " + namespace + "/" + meta["name"].(string)
		if _, twice := out[key]; twice {
			t.Errorf("%s is there twice", key)
		}
		out[key] = sorted(d)
	}
}

// sorted puts ports in the order of their names: it means nothing, and patches change it.
func sorted(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, child := range v {
			v[key] = sorted(child)
			if ports, ok := v[key].([]any); ok && key == "ports" {
				slices.SortFunc(ports, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			}
		}
	case []any:
		for i, child := range v {
			v[i] = sorted(child)
		}
	}
	return v
}

func kustomize(t *testing.T, dir string) map[string]any {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return documents(t, text)
}

// TestGolden keeps the chart, rendered, where kustomize takes it from.
func TestGolden(t *testing.T) {
	templates, _ := render(t, "tracegate", withMetrics)
	golden(t, "../kustomize-metrics/metrics.yaml", templates["metrics.yaml"])
	golden(t, "../kustomize-metrics/certificate.yaml", templates["certificate.yaml"])
	templates, _ = render(t, "tracegate", withKEDA)
	golden(t, "../kustomize-keda/keda.yaml", templates["keda.yaml"])
	golden(t, "../kustomize-keda/certificate.yaml", templates["certificate.yaml"])
	templates, _ = render(t, "tracegate", nil)
	golden(t, "../kustomize/operator.yaml", templates["operator.yaml"])
	golden(t, "../kustomize/controlplane.yaml", templates["controlplane.yaml"])
	for _, name := range []string{"metrics.yaml", "keda.yaml", "certificate.yaml"} {
		if text := strings.TrimSpace(templates[name]); text != "" {
			t.Errorf("%s is installed without being asked for:\n%s", name, text)
		}
	}
}

func golden(t *testing.T, path, text string) {
	t.Helper()
	text = "# Rendered from mesh/deploy/chart: `go tool task golden` writes it.\n" + strings.TrimSpace(text) + "\n"
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// TestChartIsKustomization compares all that either installs. Only the namespace is not the
// chart's: Helm needs it before, to note the release in it.
func TestChartIsKustomization(t *testing.T) {
	for dir, v := range map[string]values{"../kustomize": nil, "../kustomize-metrics": withMetrics, "../kustomize-keda": withKEDA} {
		templates, text := render(t, "tracegate", v)
		for _, name := range slices.Sorted(maps.Keys(templates)) {
			text = append(append(text, "\n---\n"...), templates[name]...)
		}
		chart, kustomization := documents(t, text), kustomize(t, dir)
		if _, ok := kustomization["Namespace /tracegate"]; !ok {
			t.Errorf("%s makes no namespace", dir)
		}
		delete(kustomization, "Namespace /tracegate")
		if len(chart) < 10 {
			t.Errorf("%s: the chart has %d resources only", dir, len(chart))
		}
		if diff := cmp.Diff(kustomization, chart); diff != "" {
			t.Errorf("%s (-kustomize +chart):\n%s", dir, diff)
		}
	}
}

// TestAnyNamespace finds a namespace that is written into the chart.
func TestAnyNamespace(t *testing.T) {
	templates, _ := render(t, "elsewhere", withBoth)
	for name, text := range templates {
		for key := range documents(t, []byte(text)) {
			if strings.Contains(key, " tracegate/") {
				t.Errorf("%s: %s", name, key)
			}
		}
		for line := range strings.Lines(text) {
			if strings.Contains(line, "namespace: tracegate") || strings.Contains(line, "lease=tracegate") || strings.Contains(line, "-from: tracegate") {
				t.Errorf("%s: %s", name, line)
			}
		}
	}
}

func TestLint(t *testing.T) {
	for _, v := range []values{{}, withMetrics, withKEDA, withBoth} {
		result := lint.All("../chart", v, "tracegate", true)
		for _, m := range result.Messages {
			if m.Severity > support.InfoSev {
				t.Error(m)
			}
		}
		if len(result.Messages) == 0 { // it always recommends an icon
			t.Error("nothing was linted")
		}
	}
}

// TestSettings reaches the operator's command line.
func TestSettings(t *testing.T) {
	templates, _ := render(t, "tracegate", values{
		"namespaces": []any{"shop", "search"}, "settings": values{"log.format": "json"}, "image": values{"tag": "1.2.3"},
	})
	for _, want := range []string{"--set=kubernetes.namespaces=shop,search", "--set=log.format=json", "image: ghcr.io/tracegate/tracegate:1.2.3"} {
		if !strings.Contains(templates["operator.yaml"], want) {
			t.Errorf("no %s in\n%s", want, templates["operator.yaml"])
		}
	}
}

// TestControlPlaneIsBound in the namespaces that it reads, and in no other.
func TestControlPlaneIsBound(t *testing.T) {
	templates, _ := render(t, "elsewhere", values{"controlplane": values{"namespaces": []any{"shop", "search"}}})
	bound := documents(t, []byte(templates["controlplane.yaml"]))
	for _, key := range []string{"ServiceAccount elsewhere/tracegate-controlplane", "RoleBinding shop/tracegate-controlplane", "RoleBinding search/tracegate-controlplane"} {
		if bound[key] == nil {
			t.Errorf("there is no %s", key)
		}
	}
	if len(bound) != 3 {
		t.Errorf("%d resources", len(bound))
	}
	for key := range documents(t, []byte(templates["role.yaml"])) {
		if strings.HasPrefix(key, "ClusterRoleBinding") {
			t.Errorf("%s is more than the control plane needs", key)
		}
	}
}

// TestWaysOfScaling chooses among them: what each of them, and all together, tells the
// operator and opens.
func TestWaysOfScaling(t *testing.T) {
	way := map[string][]string{
		"statistics": {"--set=kubernetes.statistics=true", "TRACEGATE_CLICKHOUSE_PASSWORD"},
		"metricsAPI": {"--set=kubernetes.autoscaler=:9443", "containerPort: 9443", "{port: 9443}"},
		"keda":       {"--set=kubernetes.keda=:9444", "--set=kubernetes.keda_clients=/certificate/ca.crt", "containerPort: 9444", "{port: 9444}"},
	}
	for _, tt := range []struct {
		v    values
		want []string
	}{
		{nil, nil},
		{values{"statistics": values{"enabled": true}}, []string{"statistics"}},
		{withMetrics, []string{"statistics", "metricsAPI"}},
		{withKEDA, []string{"statistics", "keda"}},
		{withBoth, []string{"statistics", "metricsAPI", "keda"}},
	} {
		templates, _ := render(t, "tracegate", tt.v)
		for name, says := range way {
			for _, text := range says {
				if has := strings.Contains(templates["operator.yaml"], text); has != slices.Contains(tt.want, name) {
					t.Errorf("%v: %s: %v", tt.v, text, has)
				}
			}
		}
		certificate := strings.Contains(templates["operator.yaml"], "--set=kubernetes.certificate=/certificate/tls.crt")
		if want := len(tt.want) > 1; certificate != want || strings.Contains(templates["operator.yaml"], "mountPath: /certificate") != want {
			t.Errorf("%v: a certificate: %v, want %v", tt.v, certificate, want)
		}
		for name, service := range map[string]string{"metricsAPI": "tracegate-metrics.tracegate.svc", "keda": "tracegate-keda.tracegate.svc"} {
			if has := strings.Contains(templates["certificate.yaml"], service); has != slices.Contains(tt.want, name) {
				t.Errorf("%v: the certificate names %s: %v", tt.v, service, has)
			}
		}
	}
}

func TestValuesAreChecked(t *testing.T) {
	chart, err := loader.LoadDir("../chart")
	if err != nil {
		t.Fatal(err)
	}
	for field, v := range map[string]values{
		"replicas":              {"replicas": 0},
		"/image":                {"image": values{"tag": "latest"}},
		"statistics":            {"statistics": values{"clickhouse": values{"addr": "no-port"}}},
		"'replica' not allowed": {"replica": 2},
		"keda":                  {"keda": values{"enabled": "yes"}},
		"metricsAPI":            {"metricsAPI": values{"enabled": "yes"}},
		"'enable' not allowed":  {"metricsAPI": values{"enable": true}},
		"namespaces":            {"namespaces": "shop"},
		"/controlplane":         {"controlplane": values{"namespaces": []any{""}}},
	} {
		_, err := chartutil.ToRenderValues(chart, v, chartutil.ReleaseOptions{Namespace: "tracegate"}, nil)
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v: %v, want it to name %s", v, err, field)
		}
	}
}
