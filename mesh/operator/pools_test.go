package operator_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/kubetest"
	"github.com/tracegate/tracegate/mesh/operator/render"
)

// TestPoolsDiffer in all that they may, with pods on nodes: one pool needs a node of its own,
// which comes later, and has to tolerate its taint.
func TestPoolsDiffer(t *testing.T) {
	r := start(t, "differ")
	r.create(`
metadata: {name: web}
spec:
  image: example.org/web:1
  command: [/web]
  args: [serve]
  ports: [{name: http, port: 80}]
  env:
    - {name: LEVEL, value: info}
    - {name: CPUS, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
    - {name: KEY, valueFrom: {secretKeyRef: {name: s, key: k, optional: true}}}
  resources: {limits: {cpu: 100m}}
  probes: {ready: {path: /readyz, port: http}}
  pools:
    - name: baseline
    - name: canary
      image: example.org/web:2
      args: [serve, --new]
      env: [{name: LEVEL, value: debug}]
      probes: {ready: {path: /ready2, port: http, periodSeconds: 5}, live: {path: /live, port: http}}
    - name: bare
      command: []
      args: []
      probes: {}
    - name: heavy
      nodeSelector: {disk: large}
      tolerations: [{key: dedicated, value: heavy, effect: NoSchedule}]
`)
	r.eventually("one pool has no node", func() string {
		ms := get(r, "web", &v1alpha1.MicroService{})
		for _, c := range ms.Status.Conditions {
			if c.Type == v1alpha1.ConditionReady && c.Message == "pool heavy: 0 of 1 pods are ready" {
				return ""
			}
		}
		return fmt.Sprint(ms.Status)
	})
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "heavy", Labels: map[string]string{"disk": "large", "kubernetes.io/hostname": "heavy"}},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: "dedicated", Value: "heavy", Effect: corev1.TaintEffectNoSchedule}}},
	}
	if err := r.client.Create(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	r.settled("web")

	var pods corev1.PodList
	if err := r.client.List(t.Context(), &pods, client.InNamespace(r.namespace)); err != nil {
		t.Fatal(err)
	}
	for _, p := range pods.Items {
		if (p.Spec.NodeName == "heavy") != (p.Labels[render.LabelPool] == "heavy") {
			t.Errorf("%s runs on %s", p.Name, p.Spec.NodeName)
		}
	}
	container := func(pool string) corev1.Container {
		return get(r, "web-"+pool, &appsv1.Deployment{}).Spec.Template.Spec.Containers[0]
	}
	for pool, want := range map[string]string{
		"baseline": "example.org/web:1 [/web] [serve] info /readyz no",
		"canary":   "example.org/web:2 [/web] [serve --new] debug /ready2 /live",
		"bare":     "example.org/web:1 [] [] info no no",
		"heavy":    "example.org/web:1 [/web] [serve] info /readyz no",
	} {
		c := container(pool)
		probe := func(p *corev1.Probe) string {
			if p == nil {
				return "no"
			}
			return p.HTTPGet.Path
		}
		level := c.Env[slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "LEVEL" })].Value
		got := fmt.Sprint(c.Image, " ", c.Command, " ", c.Args, " ", level, " ", probe(c.ReadinessProbe), " ", probe(c.LivenessProbe))
		if got != want {
			t.Errorf("%s: %s, want %s", pool, got, want)
		}
		if e := c.Env[slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "KEY" })]; e.ValueFrom.SecretKeyRef.Optional == nil || !*e.ValueFrom.SecretKeyRef.Optional {
			t.Errorf("%s: a variable that may be missing must be there", pool)
		}
	}

	// What the API server makes of all this is no reason to write it again.
	r.quiet("web")
	before := r.calls.Counted()
	r.looks.Reset()
	r.change("web", func(ms *v1alpha1.MicroService) { ms.Annotations = map[string]string{"touched": time.Now().String()} })
	r.eventually("operator looks again", func() string {
		if len(r.looks.GetSpans()) == 0 {
			return "it did not"
		}
		return ""
	})
	if asked := kubetest.Since(before, r.calls.Counted()); kubetest.Work(asked) != 0 {
		t.Errorf("calls for nothing: %v", asked)
	}
	// An update by a Go client keeps what is set but empty.
	if c := container("bare"); len(c.Args) != 0 || c.ReadinessProbe != nil {
		t.Errorf("after an update the pool has %v %v", c.Args, c.ReadinessProbe)
	}
}
