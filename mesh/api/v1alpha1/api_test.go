package v1alpha1_test

import (
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/deploy"
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

// start installs the definitions and gives a namespace of the test's own.
func start(t *testing.T, namespace string) (client.Client, *rest.Config) {
	t.Helper()
	c := kube.Cluster(t)
	if err := c.ApplyFiles(t.Context(), deploy.CRDs, "chart/crds/*.yaml", ""); err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme, apiextensionsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	cl, err := client.New(c.Admin(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	if err := cl.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		t.Fatal(err)
	}
	return cl, c.Admin()
}

func sample(t *testing.T, name string) *unstructured.Unstructured {
	t.Helper()
	data, err := deploy.Samples.ReadFile("samples/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	us, err := kubetest.Documents(data)
	if err != nil || len(us) != 1 {
		t.Fatalf("%d documents: %v", len(us), err)
	}
	return us[0]
}

// TestSamplesAreAccepted also reads each back as its Go type, and as the table that
// kubectl prints.
func TestSamplesAreAccepted(t *testing.T) {
	cl, cfg := start(t, "samples")
	if err := kube.Cluster(t).ApplyFiles(t.Context(), deploy.Samples, "samples/*.yaml", "samples"); err != nil {
		t.Fatal(err)
	}
	key := func(name string) client.ObjectKey { return client.ObjectKey{Namespace: "samples", Name: name} }
	for name, obj := range map[string]client.Object{
		"chat": &v1alpha1.MicroService{}, "acme": &v1alpha1.TrafficGroup{}, "chat-acme": &v1alpha1.ScalingPolicy{},
		"new-search": &v1alpha1.Route{}, "beta": &v1alpha1.Cohort{},
	} {
		if err := cl.Get(t.Context(), key(name), obj); err != nil {
			t.Error(err)
		}
	}
	var ms v1alpha1.MicroService
	if err := cl.Get(t.Context(), key("chat"), &ms); err != nil {
		t.Fatal(err)
	}
	if got := ms.Spec.Probes.Ready; got.PeriodSeconds != 1 || got.FailureThreshold != 3 {
		t.Errorf("defaults of a probe: %+v", got)
	}

	cfg.APIPath, cfg.GroupVersion = "/apis", &v1alpha1.GroupVersion
	cfg.NegotiatedSerializer = clientgoscheme.Codecs.WithoutConversion()
	web, err := rest.RESTClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := web.Get().Namespace("samples").Resource("microservices").SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var table metav1.Table
	if err := json.Unmarshal(raw, &table); err != nil {
		t.Fatal(err)
	}
	var columns []string
	for _, c := range table.ColumnDefinitions {
		columns = append(columns, c.Name)
	}
	if got, want := strings.Join(columns, " "), "Name Ready Reason Pods Pools Image Age"; got != want {
		t.Errorf("columns %q, want %q", got, want)
	}
}

// TestInvalidResourcesAreRefused changes one thing of a sample each, and wants the
// message that its author gets to read.
func TestInvalidResourcesAreRefused(t *testing.T) {
	cl, _ := start(t, "invalid")
	for _, c := range []struct {
		name, sample, set string // set is laid over the sample (JSON merge patch, in YAML)
		want              string
	}{
		{"image without tag", "microservice", `spec: {image: ghcr.io/a/b}`, `spec.image: Invalid value: "ghcr.io/a/b": image must have a tag or a digest`},
		{"latest", "microservice", `spec: {image: "a/b:latest"}`, "image must not have the tag latest"},
		{"registry port is no tag", "microservice", `spec: {image: "localhost:5000/b"}`, "image must have a tag or a digest"},
		{"no image", "microservice", `spec: {image: ""}`, "spec.image"},
		{"no port", "microservice", `spec: {ports: []}`, "spec.ports"},
		{"same port twice", "microservice", `spec: {ports: [{name: http, port: 80}, {name: admin, port: 80}]}`, "each port must have a number of its own"},
		{"port name", "microservice", `spec: {ports: [{name: Http, port: 80}], probes: null}`, "spec.ports[0].name"},
		{"port zero", "microservice", `spec: {ports: [{name: http, port: 0}, {name: admin, port: 1}]}`, "spec.ports[0].port"},
		{"probe of no port", "microservice", `spec: {probes: {ready: {path: /, port: other}}}`, "probes must name one of ports"},
		{"probe path", "microservice", `spec: {probes: {ready: {path: readyz, port: http}}}`, "spec.probes.ready.path"},
		{"replicas and autoscaling", "microservice", `spec: {replicas: 2}`, "replicas and autoscaling exclude each other"},
		{"of a pool", "microservice", `spec: {pools: [{name: baseline, replicas: 1, autoscaling: {minReplicas: 1, maxReplicas: 2, metrics: [{cpuPercent: 50}]}}]}`, "replicas and autoscaling exclude each other"},
		{"bounds", "microservice", `spec: {autoscaling: {minReplicas: 30}}`, "minReplicas must not be above maxReplicas"},
		{"no metric", "microservice", `spec: {autoscaling: {metrics: []}}`, "spec.autoscaling.metrics"},
		{"empty metric", "microservice", `spec: {autoscaling: {metrics: [{}]}}`, "exactly one of cpuPercent, qpsPerPod, errorFreeQPSPerPod and p95Milliseconds"},
		{"two in one metric", "microservice", `spec: {autoscaling: {metrics: [{p95Milliseconds: 1, qpsPerPod: 1}]}}`, "exactly one of cpuPercent, qpsPerPod, errorFreeQPSPerPod and p95Milliseconds"},
		{"latency of nothing", "microservice", `spec: {autoscaling: {metrics: [{p95Milliseconds: 0}]}}`, "spec.autoscaling.metrics[0].p95Milliseconds"},
		{"no request", "microservice", `spec: {autoscaling: {metrics: [{errorFreeQPSPerPod: 0}]}}`, "spec.autoscaling.metrics[0].errorFreeQPSPerPod"},
		{"group without rate", "microservice", `spec: {autoscaling: {metrics: [{cpuPercent: 1, trafficGroup: acme}]}}`, "trafficGroup needs qpsPerPod, errorFreeQPSPerPod or p95Milliseconds"},
		{"both disruptions", "microservice", `spec: {disruption: {minAvailable: 1}}`, "exactly one of minAvailable and maxUnavailable"},
		{"no baseline", "microservice", `spec: {pools: [{name: canary}]}`, "pools must contain baseline"},
		{"pool twice", "microservice", `spec: {pools: [{name: baseline}, {name: baseline}]}`, "duplicate"},
		{"pool name", "microservice", `spec: {pools: [{name: baseline}, {name: a.b}]}`, "spec.pools[1].name"},
		{"reserved variable", "microservice", `spec: {env: [{name: TRACEGATE_POOL, value: x}]}`, "env must not set TRACEGATE_POOL"},
		{"pool's variable", "microservice", `spec: {pools: [{name: baseline, env: [{name: TRACEGATE_POOL, value: x}]}]}`, "env must not set TRACEGATE_POOL"},
		{"pool's probe of no port", "microservice", `spec: {pools: [{name: baseline, probes: {live: {path: /, port: other}}}]}`, "probes of a pool must name one of ports"},
		{"pool's probe path", "microservice", `spec: {pools: [{name: baseline, probes: {started: {path: x, port: http}}}]}`, "spec.pools[0].probes.started.path"},
		{"pool's arguments", "microservice", `spec: {pools: [{name: baseline, args: [1]}]}`, "args[0]: expected string"},
		{"node label", "microservice", `spec: {nodeSelector: {disk: 1}}`, "spec.nodeSelector.disk"},
		{"toleration of a value", "microservice", `spec: {tolerations: [{key: a, operator: Exists, value: b}]}`, "a toleration with the operator Exists must have no value"},
		{"pool's toleration of all", "microservice", `spec: {pools: [{name: baseline, tolerations: [{value: b}]}]}`, "a toleration without a key must have the operator Exists"},
		{"empty peer", "microservice", `spec: {access: {from: [{}]}}`, "a peer must have a service, a namespace or both"},
		{"drain", "microservice", `spec: {drainSeconds: -1}`, "spec.drainSeconds"},
		{"long name", "microservice", `metadata: {name: a123456789b123456789c123456789d123456789e}`, "metadata.name must have at most 40 characters"},
		{"dotted name", "microservice", `metadata: {name: a.b}`, "metadata.name must not contain a dot"},
		{"unknown field", "microservice", `spec: {imagee: x}`, "field not declared in schema"},

		{"id and tenant", "trafficgroup", `spec: {selector: {id: abcdef}}`, "selector must have either id, or env and tenant"},
		{"env alone", "trafficgroup", `spec: {selector: {tenant: null}}`, "selector must have both env and tenant"},
		{"id", "trafficgroup", `spec: {selector: {id: XYZ, env: null, tenant: null}}`, "spec.selector.id"},
		{"ratio", "trafficgroup", `spec: {objectives: {maxErrorRatio: "1.5"}}`, "maxErrorRatio must be between 0 and 1"},
		{"no P99", "trafficgroup", `spec: {objectives: {maxP99Milliseconds: 0}}`, "spec.objectives.maxP99Milliseconds"},
		{"no objective", "trafficgroup", `spec: {objectives: {maxErrorRatio: null, maxP95Milliseconds: null, maxP99Milliseconds: null}}`, "objectives must have at least one bound"},
		{"mode", "trafficgroup", `spec: {mode: act}`, `spec.mode: Unsupported value: "act"`},

		{"bounds of a policy", "scalingpolicy", `spec: {bounds: {min: 21}}`, "bounds.min must not be above bounds.max"},
		{"step", "scalingpolicy", `spec: {maxStep: 21}`, "maxStep must not be above bounds.max"},
		{"rate", "scalingpolicy", `spec: {qpsPerPod: 0}`, "spec.qpsPerPod"},
		{"lead", "scalingpolicy", `spec: {leadSeconds: 1000}`, "spec.leadSeconds"},
		{"no target", "scalingpolicy", `spec: {target: {service: null}}`, "spec.target.service: Required value"},

		{"path and prefix", "route", `spec: {match: [{path: /a, prefix: /b}]}`, "at most one of path, prefix and regex"},
		{"path with query", "route", `spec: {match: [{path: "/a?b"}]}`, "spec.match[0].path"},
		{"header", "route", `spec: {match: [{headers: [{name: a, exact: b, present: true}]}]}`, "exactly one of exact, prefix and present"},
		{"pinned canary", "route", `spec: {pool: canary}`, "pool and canary exclude each other"},
		{"baseline canary", "route", `spec: {canary: {pools: [{pool: baseline, percent: 1}]}}`, "baseline serves whoever is left"},
		{"percent", "route", `spec: {canary: {pools: [{pool: canary, percent: 101}]}}`, "spec.canary.pools[0].percent: Invalid value"},
		{"percent in halves", "route", `spec: {mirror: {pool: canary, percent: 100500m}}`, "percent must be between 0 and 100"},
		{"no percent", "route", `spec: {fault: {delay: {percent: -1m, duration: 1s}}}`, "percent must be between 0 and 100"},
		{"end of no pin", "route", `spec: {until: "2030-01-31T12:00:00Z"}`, "until says when a pin ends, and needs pool"},
		{"end at no time", "route", `spec: {canary: null, pool: canary, until: tomorrow}`, "spec.until"},
		{"cookie", "route", `spec: {match: [{cookies: [{name: a}]}]}`, "a cookie must have exactly one of exact, prefix and present"},
		{"query", "route", `spec: {match: [{query: [{name: a, exact: b, prefix: b}]}]}`, "a query parameter must have exactly one of exact, prefix and present"},
		{"tenant", "route", `spec: {match: [{tenant: Acme}]}`, "spec.match[0].tenant"},
		{"rewrite of nothing", "route", `spec: {rewrite: {}}`, "rewrite must have path or host"},
		{"headers of nothing", "route", `spec: {requestHeaders: {}}`, "a change of headers must have one of set, add and remove"},
		{"origins", "route", `spec: {cors: {origins: []}}`, "spec.cors.origins"},
		{"addresses of nobody", "route", `spec: {addresses: {}}`, "addresses must have allow or deny"},
		{"fault of nothing", "route", `spec: {fault: {}}`, "fault must have delay or abort"},
		{"status to retry on", "route", `spec: {retries: {attempts: 1, retryOn: [5xx], statusCodes: [200]}}`, "spec.retries.statusCodes[0]"},
		{"two answers", "route", `spec: {redirect: {path: /}, directResponse: {status: 200}}`, "redirect and directResponse exclude each other"},
		{"status", "route", `spec: {directResponse: {status: 600}}`, "spec.directResponse.status"},

		{"no color", "cohort", `spec: {color: "00000000"}`, "00000000 is the color of requests in no cohort"},
		{"two in one", "cohort", `spec: {any: [{host: a, header: {name: x, exact: z}}]}`, "exactly one of header, cookie and host"},
		{"nobody", "cohort", `spec: {any: []}`, "spec.any"},
	} {
		t.Run(c.sample+"/"+c.name, func(t *testing.T) {
			u := sample(t, c.sample)
			var patch map[string]any
			if err := yaml.Unmarshal([]byte(c.set), &patch); err != nil {
				t.Fatal(err)
			}
			lay(u.Object, patch)
			err := kubetest.Apply(t.Context(), cl, "invalid", u)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got: %v\nwant: %s", err, c.want)
			}
		})
	}
}

// lay is a JSON merge patch (RFC 7396).
func lay(on, patch map[string]any) {
	for k, v := range patch {
		inner, isMap := v.(map[string]any)
		under, wasMap := on[k].(map[string]any)
		switch {
		case v == nil:
			delete(on, k)
		case isMap && wasMap:
			lay(under, inner)
		default:
			on[k] = v
		}
	}
}

// TestEveryFieldIsExplained holds what `kubectl explain` shows: each of our fields has
// a description. It reads the definitions and needs no cluster.
func TestEveryFieldIsExplained(t *testing.T) {
	files, err := fs.Glob(deploy.CRDs, "chart/crds/*.yaml")
	if err != nil || len(files) != 5 {
		t.Fatalf("%d definitions: %v", len(files), err)
	}
	for _, name := range files {
		data, err := deploy.CRDs.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(data, &crd); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if v := crd.Spec.Versions; len(v) != 1 || v[0].Subresources == nil || v[0].Subresources.Status == nil || len(v[0].AdditionalPrinterColumns) == 0 {
			t.Errorf("%s: one version with a status and columns, got %+v", name, v)
		}
		if len(crd.Spec.Names.Categories) == 0 {
			t.Errorf("%s has no category", name)
		}
		explained(t, path.Base(name), crd.Spec.Versions[0].Schema.OpenAPIV3Schema)
	}
}

// explained holds it for a schema and all below it. What Kubernetes' own types say of themselves counts.
func explained(t *testing.T, at string, s *apiextensionsv1.JSONSchemaProps) {
	t.Helper()
	if s.Description == "" && !strings.HasSuffix(at, "]") && !strings.HasSuffix(at, ".metadata") { // what is in a list is explained by the list
		t.Errorf("%s is not explained", at)
	}
	if d, _, _ := strings.Cut(s.Description, "\n"); strings.Contains(d, "+") && strings.Contains(d, "kubebuilder") {
		t.Errorf("%s: a marker is taken for an explanation: %s", at, d)
	}
	for name, p := range s.Properties {
		explained(t, at+"."+name, &p)
	}
	if s.Items != nil && s.Items.Schema != nil {
		explained(t, at+"[]", s.Items.Schema)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		explained(t, at+"[key]", s.AdditionalProperties.Schema)
	}
}
