package operator_test

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/deploy"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/kubetest"
	"github.com/tracegate/tracegate/mesh/operator"
	"github.com/tracegate/tracegate/mesh/operator/render"
	"github.com/tracegate/tracegate/observability/sli"
)

var kube kubetest.Shared

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		os.Exit(m.Run())
	}
	os.Exit(kube.Main(kubetest.Config{Controllers: true, AutoscalerSync: time.Second}, m.Run))
}

// rig is a namespace with an operator that looks after it, with the rights that are
// generated from its markers.
type rig struct {
	t         *testing.T
	client    client.Client
	namespace string
	looks     *tracetest.InMemoryExporter // a span of each look at a service
	calls     *kubetest.Calls             // of the operator
	rate      *rate
	stop      func()
}

func start(t *testing.T, namespace string) *rig {
	t.Helper()
	c := kube.Cluster(t)
	s, err := operator.NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	cl, err := client.New(c.Admin(), client.Options{Scheme: s})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, client: cl, namespace: namespace}
	for files, pattern := range map[*embed.FS]string{&deploy.CRDs: "chart/crds/*.yaml", &deploy.Kustomize: "kustomize/namespace.yaml"} {
		if err := c.ApplyFiles(t.Context(), files, pattern, ""); err != nil {
			t.Fatal(err)
		}
	}
	for files, pattern := range map[*embed.FS]string{&deploy.RBAC: "chart/files/*.yaml", &deploy.Kustomize: "kustomize/operator.yaml"} {
		if err := c.ApplyFiles(t.Context(), files, pattern, ""); err != nil {
			t.Fatal(err)
		}
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}}}
	if err := cl.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	r.run("")
	return r
}

// operatorUser is the account that we install, with the rights that we install.
func operatorUser(t *testing.T) *rest.Config {
	t.Helper()
	user := kube.Cluster(t).Admin()
	user.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:tracegate:tracegate-operator"}
	user.QPS, user.Burst = 0, 0
	return user
}

// rate is what statistics say: thousandths of requests a second; below zero they are
// away.
type rate struct{ milli atomic.Int64 }

func (r *rate) get(string, string, group.ID) (float64, error) {
	n := r.milli.Load()
	if n < 0 {
		return 0, errors.New("telemetry is stale")
	}
	return float64(n) / 1000, nil
}

// run starts an operator; leader is the namespace of its lease, if it shall have one.
func (r *rig) run(leader string) {
	r.t.Helper()
	user := operatorUser(r.t)
	r.calls, r.looks, r.rate = &kubetest.Calls{}, tracetest.NewInMemoryExporter(), &rate{}
	user.WrapTransport = r.calls.Wrap
	r.stop = runOperator(r.t, user, r.namespace, leader, r.looks, r.rate)
	r.t.Cleanup(r.stop)
}

// calledPath is whom each request to front reaches.
func calledPath(context.Context, group.ID) ([]sli.Hop, error) {
	return []sli.Hop{{Service: "front", Pool: "baseline", PerRequest: 1}, {Service: "behind", Pool: "baseline", PerRequest: 2}, {Service: "elsewhere", Pool: "baseline", PerRequest: 1}}, nil
}

// sockets differ from pod to pod, and stay.
func sockets(addr string) float64 {
	return float64(int(1) << (crc32.ChecksumIEEE([]byte(addr)) % 16))
}

func runOperator(t *testing.T, user *rest.Config, namespace, leader string, looks sdktrace.SpanExporter, qps *rate) (stop func()) {
	t.Helper()
	cfg := operator.Config{Cluster: user, Namespaces: []string{namespace}, LeaderNamespace: leader, Metrics: "0", Health: "0", Workers: 2}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	// Not to the test: who sends events may still try when it has ended.
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	deps := operator.Deps{Tracing: sdktrace.NewTracerProvider(sdktrace.WithSyncer(looks)), Rate: qps.get, Path: calledPath, Gauge: func(_ context.Context, addr, metric string) (float64, error) {
		if metric != "core_sockets" {
			return 0, errors.New("no metric " + metric)
		}
		return sockets(addr), nil
	}}
	go func() { ended <- operator.Run(ctx, cfg, deps, log) }()
	stopped := false
	return func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("operator: %v", err)
		}
	}
}

// eventually polls until check returns "", and fails with what it said last.
func (r *rig) eventually(what string, check func() string) {
	r.t.Helper()
	deadline, tick := time.NewTimer(3*time.Minute), time.NewTicker(20*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for {
		said := check()
		if said == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			r.t.Fatalf("%s: %s", what, said)
		}
	}
}

func (r *rig) key(name string) client.ObjectKey {
	return client.ObjectKey{Namespace: r.namespace, Name: name}
}

// get fails the test where there is none.
func get[T client.Object](r *rig, name string, into T) T {
	r.t.Helper()
	if err := r.client.Get(r.t.Context(), r.key(name), into); err != nil {
		r.t.Fatal(err)
	}
	return into
}

func (r *rig) gone(o client.Object, name string) string {
	if err := r.client.Get(r.t.Context(), r.key(name), o); !apierrors.IsNotFound(err) {
		return name + " is there"
	}
	return ""
}

// create makes a service of the text.
func (r *rig) create(text string) *v1alpha1.MicroService {
	r.t.Helper()
	ms := &v1alpha1.MicroService{}
	if err := yaml.UnmarshalStrict([]byte(text), ms); err != nil {
		r.t.Fatal(err)
	}
	ms.Namespace = r.namespace
	if err := r.client.Create(r.t.Context(), ms); err != nil {
		r.t.Fatal(err)
	}
	return ms
}

// change edits a service, again where somebody else was faster.
func (r *rig) change(name string, edit func(*v1alpha1.MicroService)) {
	r.t.Helper()
	r.eventually("change "+name, func() string {
		ms := get(r, name, &v1alpha1.MicroService{})
		edit(ms)
		if err := r.client.Update(r.t.Context(), ms); err != nil {
			return err.Error()
		}
		return ""
	})
}

// settled waits until everything that the service's spec says has come true.
func (r *rig) settled(name string) *v1alpha1.MicroService {
	r.t.Helper()
	var ms *v1alpha1.MicroService
	r.eventually(name+" settles", func() string {
		ms = get(r, name, &v1alpha1.MicroService{})
		for condition, want := range map[string]metav1.ConditionStatus{
			v1alpha1.ConditionReady: "True", v1alpha1.ConditionProgrammed: "True", v1alpha1.ConditionProgressing: "False", v1alpha1.ConditionStalled: "False",
		} {
			c := meta.FindStatusCondition(ms.Status.Conditions, condition)
			if c == nil || c.Status != want || c.ObservedGeneration != ms.Generation {
				return condition + " is not " + string(want)
			}
		}
		return ""
	})
	return ms
}

const small = `
metadata: {name: small}
spec:
  image: example.org/small:1
  ports: [{name: http, port: 80}]
  replicas: 2
`

// TestInstallationRuns is about what we install: its pods pass the namespace's Pod
// Security Standard, restricted, and become ready.
func TestInstallationRuns(t *testing.T) {
	r := start(t, "installation")
	r.eventually("the operator's pods", func() string {
		var d appsv1.Deployment
		if err := r.client.Get(t.Context(), client.ObjectKey{Namespace: "tracegate", Name: "tracegate-operator"}, &d); err != nil {
			t.Fatal(err)
		}
		if d.Status.ReadyReplicas != 2 {
			return "are not ready"
		}
		return ""
	})
}

func TestSampleBecomesReady(t *testing.T) {
	r := start(t, "sample")
	if err := kube.Cluster(t).ApplyFiles(t.Context(), deploy.Samples, "samples/*.yaml", r.namespace); err != nil {
		t.Fatal(err)
	}
	ms := r.settled("chat")
	if ms.Status.Pods != "4/4" || ms.Status.PoolCount != 3 {
		t.Errorf("status: %+v", ms.Status)
	}
	for name, o := range map[string]client.Object{
		"chat": &corev1.ServiceAccount{}, "chat-baseline": &appsv1.Deployment{}, "chat-canary": &corev1.Service{}, "chat-isolated": &appsv1.Deployment{},
	} {
		if !render.Owned(ms, get(r, name, o)) {
			t.Errorf("%s does not belong to the service", name)
		}
	}
	get(r, "chat", &networkingv1.NetworkPolicy{})
	get(r, "chat-baseline", &policyv1.PodDisruptionBudget{})
	if hpa := get(r, "chat-baseline", &autoscalingv2.HorizontalPodAutoscaler{}); len(hpa.Spec.Metrics) != 3 {
		t.Errorf("%d metrics", len(hpa.Spec.Metrics))
	}
	if s := r.gone(&autoscalingv2.HorizontalPodAutoscaler{}, "chat-canary"); s != "" {
		t.Error(s)
	}
	r.eventually("group is named", func() string {
		tg := get(r, "acme", &v1alpha1.TrafficGroup{})
		if want := string(operator.GroupID(tg.Spec.Selector)); tg.Status.Group != want {
			return tg.Status.Group
		}
		return ""
	})
	if d := get(r, "chat-canary", &appsv1.Deployment{}); d.Spec.Template.Spec.Containers[0].Image != "ghcr.io/tracegate/tracegate:1.1.0" {
		t.Error("the canary runs the service's image")
	}

	if err := r.client.Delete(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
	r.eventually("everything goes with the service", func() string {
		return r.gone(&appsv1.Deployment{}, "chat-baseline") + r.gone(&corev1.Service{}, "chat") + r.gone(&corev1.ServiceAccount{}, "chat") +
			r.gone(&networkingv1.NetworkPolicy{}, "chat") + r.gone(&autoscalingv2.HorizontalPodAutoscaler{}, "chat-baseline")
	})
}

// TestNothingIsWrittenWhereNothingChanges makes the operator look again, and counts.
func TestNothingIsWrittenWhereNothingChanges(t *testing.T) {
	r := start(t, "quiet")
	r.create(small)
	r.settled("small")
	r.quiet("small")
	before := r.calls.Counted()
	r.looks.Reset()
	for range 3 {
		r.change("small", func(ms *v1alpha1.MicroService) { ms.Annotations = map[string]string{"touched": time.Now().String()} })
	}
	r.eventually("operator looks again", func() string {
		if len(r.looks.GetSpans()) == 0 {
			return "it did not"
		}
		return ""
	})
	if asked := kubetest.Since(before, r.calls.Counted()); kubetest.Work(asked) != 0 {
		t.Errorf("calls for nothing: %v", asked)
	}
}

// quiet waits until the operator has seen all that it caused itself: half a second
// without a look.
func (r *rig) quiet(name string) {
	r.t.Helper()
	seen, since := -1, time.Now()
	r.eventually(name+" is quiet", func() string {
		if n := len(r.looks.GetSpans()); n != seen {
			seen, since = n, time.Now()
		}
		if time.Since(since) < 500*time.Millisecond {
			return "the operator is still looking"
		}
		return ""
	})
}

func TestDriftIsCorrectedAndReported(t *testing.T) {
	r := start(t, "drift")
	r.create(small)
	r.settled("small")

	d := get(r, "small-baseline", &appsv1.Deployment{})
	patch := client.MergeFrom(d.DeepCopy())
	d.Spec.Template.Spec.Containers[0].Image = "evil.example.org/miner:1"
	d.Labels["team"] = "red" // not ours: stays
	if err := r.client.Patch(t.Context(), d, patch, client.FieldOwner("somebody")); err != nil {
		t.Fatal(err)
	}
	policy := get(r, "small", &networkingv1.NetworkPolicy{})
	policy.Spec.Ingress = append(policy.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{})
	if err := r.client.Update(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	if err := r.client.Delete(t.Context(), get(r, "small", &corev1.Service{})); err != nil {
		t.Fatal(err)
	}
	r.eventually("everything is put back", func() string {
		d := get(r, "small-baseline", &appsv1.Deployment{})
		switch {
		case d.Spec.Template.Spec.Containers[0].Image != "example.org/small:1":
			return "image"
		case len(get(r, "small", &networkingv1.NetworkPolicy{}).Spec.Ingress) != 1:
			return "network policy"
		case d.Labels["team"] != "red":
			t.Fatal("somebody else's label was taken away")
		case r.client.Get(t.Context(), r.key("small"), &corev1.Service{}) != nil:
			return "service"
		}
		return ""
	})
	// Each by itself, although they came in the same moment.
	r.told("DriftCorrected", "Deployment small-baseline: spec.template.spec.containers[0].image had been changed by somebody else")
	r.told("DriftCorrected", "NetworkPolicy small: spec.ingress had been changed by somebody else")
	r.told("Created", "Service small")
	r.told("PodsReady", "every pool has its pods")
}

// told waits for an event of a reason that says something.
func (r *rig) told(reason, says string) {
	r.t.Helper()
	r.eventually("event "+reason, func() string {
		var list eventsv1.EventList
		if err := r.client.List(r.t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
			r.t.Fatal(err)
		}
		for _, e := range list.Items {
			if e.Reason == reason && strings.Contains(e.Note, says) {
				return ""
			}
		}
		return "none says: " + says
	})
}

// scale does what an autoscaler does.
func (r *rig) scale(deployment string, n int32) {
	r.t.Helper()
	r.eventually("scale "+deployment, func() string {
		d := get(r, deployment, &appsv1.Deployment{})
		body := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: n}}
		if err := r.client.SubResource("scale").Update(r.t.Context(), d, client.WithSubResourceBody(body)); err != nil {
			return err.Error()
		}
		return ""
	})
}

// TestAutoscalerOwnsTheNumber follows one pool from a fixed number to an autoscaler
// and back.
func TestAutoscalerOwnsTheNumber(t *testing.T) {
	r := start(t, "number")
	r.create(small)
	r.settled("small")
	replicas := func() int32 { return *get(r, "small-baseline", &appsv1.Deployment{}).Spec.Replicas }

	r.scale("small-baseline", 5)
	r.eventually("the operator's number wins", func() string {
		if replicas() != 2 {
			return "5"
		}
		return ""
	})

	r.change("small", func(ms *v1alpha1.MicroService) {
		qps := int64(100)
		ms.Spec.Replicas = nil
		ms.Spec.Autoscaling = &v1alpha1.Autoscaling{MinReplicas: 1, MaxReplicas: 9, Metrics: []v1alpha1.ScaleMetric{{QPSPerPod: &qps}}}
	})
	r.settled("small")
	get(r, "small-baseline", &autoscalingv2.HorizontalPodAutoscaler{})
	if n := replicas(); n != 2 {
		t.Errorf("%d pods after autoscaling was switched on, want 2 as before", n)
	}
	r.scale("small-baseline", 6)
	r.change("small", func(ms *v1alpha1.MicroService) { ms.Spec.Image = "example.org/small:2" })
	r.settled("small")
	if n := replicas(); n != 6 {
		t.Errorf("%d pods after an update, want the autoscaler's 6", n)
	}

	r.change("small", func(ms *v1alpha1.MicroService) { ms.Spec.Autoscaling, ms.Spec.Replicas = nil, new(int32(3)) })
	r.settled("small")
	if n := replicas(); n != 3 {
		t.Errorf("%d pods, want 3", n)
	}
	if s := r.gone(&autoscalingv2.HorizontalPodAutoscaler{}, "small-baseline"); s != "" {
		t.Error(s)
	}
}

func TestPoolsComeAndGo(t *testing.T) {
	r := start(t, "pools")
	r.create(small)
	r.settled("small")
	r.change("small", func(ms *v1alpha1.MicroService) {
		ms.Spec.Pools = []v1alpha1.Pool{{Name: "baseline"}, {Name: "canary"}}
	})
	if ms := r.settled("small"); ms.Status.Pods != "4/4" {
		t.Errorf("pods %s", ms.Status.Pods)
	}
	r.change("small", func(ms *v1alpha1.MicroService) { ms.Spec.Pools = nil })
	r.eventually("the pool goes", func() string {
		return r.gone(&appsv1.Deployment{}, "small-canary") + r.gone(&corev1.Service{}, "small-canary") + r.gone(&policyv1.PodDisruptionBudget{}, "small-canary")
	})
	if ms := r.settled("small"); ms.Status.Pods != "2/2" || len(ms.Status.Pools) != 1 {
		t.Errorf("status %+v", ms.Status)
	}
}

// TestRefusedResourceIsSaid gives one resource that the API server will not take.
func TestRefusedResourceIsSaid(t *testing.T) {
	r := start(t, "refused")
	r.create(`
metadata: {name: bad}
spec:
  image: example.org/bad:1
  ports: [{name: http, port: 80}]
  resources: {requests: {cpu: "2"}, limits: {cpu: "1"}}
`)
	r.eventually("conditions", func() string {
		ms := get(r, "bad", &v1alpha1.MicroService{})
		stalled, programmed := meta.FindStatusCondition(ms.Status.Conditions, "Stalled"), meta.FindStatusCondition(ms.Status.Conditions, "Programmed")
		if stalled == nil || stalled.Reason != operator.ReasonRefused || !strings.Contains(stalled.Message, "must be less than or equal to cpu limit") ||
			programmed.Status != metav1.ConditionFalse {
			return "not Stalled"
		}
		return ""
	})
	r.told(operator.ReasonApplyFailed, "must be less than or equal to cpu limit")
	get(r, "bad", &corev1.Service{}) // what can be made is made
	r.change("bad", func(ms *v1alpha1.MicroService) { ms.Spec.Resources = corev1.ResourceRequirements{} })
	r.settled("bad")
}

// TestSurvivesTheAPIServer kills it under the operator's feet.
func TestSurvivesTheAPIServer(t *testing.T) {
	r := start(t, "outage")
	r.create(small)
	r.settled("small")
	kube.Cluster(t).StopAPIServer()
	if err := kube.Cluster(t).StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	r.change("small", func(ms *v1alpha1.MicroService) { ms.Spec.Image = "example.org/small:2" })
	r.settled("small")
	t.Log("settled", time.Since(begin), "after the API server was back")
	if d := get(r, "small-baseline", &appsv1.Deployment{}); d.Spec.Template.Spec.Containers[0].Image != "example.org/small:2" {
		t.Error("the old image runs")
	}
}

// TestLeaseIsGivenBack lets a second operator wait for the first one's end.
func TestLeaseIsGivenBack(t *testing.T) {
	r := start(t, "leader")
	r.stop()
	r.run("tracegate")
	first := r.stop
	r.create(small)
	r.settled("small")
	second := tracetest.NewInMemoryExporter()
	t.Cleanup(runOperator(t, operatorUser(t), r.namespace, "tracegate", second, &rate{}))
	first()
	begin := time.Now()
	r.change("small", func(ms *v1alpha1.MicroService) { ms.Spec.Replicas = new(int32(1)) })
	if ms := r.settled("small"); ms.Status.Pods != "1/1" {
		t.Errorf("pods %s", ms.Status.Pods)
	}
	// Without the release a lease holds for 15 s.
	t.Log("the second operator had settled", time.Since(begin), "after the first one's end")
	if len(second.GetSpans()) == 0 {
		t.Error("the second operator did nothing")
	}
}

// TestTakesOverFromOneThatDied: an operator that was killed gives nothing back. Another one
// waits until its lease is over, and finishes what was begun.
func TestTakesOverFromOneThatDied(t *testing.T) {
	r := start(t, "died")
	r.create(small)
	r.settled("small")
	r.stop()
	dead, now := "killed", metav1.NowMicro()
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "tracegate", Name: "tracegate-operator"}}
	if err := r.client.Delete(t.Context(), lease.DeepCopy()); client.IgnoreNotFound(err) != nil { // of another test
		t.Fatal(err)
	}
	lease.Spec = coordinationv1.LeaseSpec{HolderIdentity: &dead, LeaseDurationSeconds: new(int32(3)), AcquireTime: &now, RenewTime: &now}
	if err := r.client.Create(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	// Half of the work, as a kill leaves it: one resource is gone, another is of an older spec.
	if err := r.client.Delete(t.Context(), get(r, "small", &corev1.Service{})); err != nil {
		t.Fatal(err)
	}
	r.change("small", func(ms *v1alpha1.MicroService) { ms.Spec.Image = "example.org/small:2" })
	r.run("tracegate")
	r.settled("small")
	get(r, "small", &corev1.Service{})
	if d := get(r, "small-baseline", &appsv1.Deployment{}); d.Spec.Template.Spec.Containers[0].Image != "example.org/small:2" {
		t.Errorf("pods run %s", d.Spec.Template.Spec.Containers[0].Image)
	}
	if err := r.client.Get(t.Context(), client.ObjectKeyFromObject(lease), lease); err != nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == dead {
		t.Errorf("the lease is still the dead one's: %+v, %v", lease.Spec, err)
	}
}

// TestPolicyRaisesAPoolForATime follows a floor: raised with the rate, kept while it is
// needed or nobody knows, and ended by itself.
func TestPolicyRaisesAPoolForATime(t *testing.T) {
	r := start(t, "prewarm")
	r.create(`
metadata: {name: web}
spec:
  image: example.org/web:1
  ports: [{name: http, port: 80}]
  autoscaling: {minReplicas: 2, maxReplicas: 20, metrics: [{qpsPerPod: 100}]}
`)
	r.settled("web")
	policy := &v1alpha1.ScalingPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: r.namespace},
		Spec: v1alpha1.ScalingPolicySpec{
			Target: v1alpha1.ScaleTarget{Service: "web", Pool: "baseline"}, QPSPerPod: 100,
			Bounds: v1alpha1.Bounds{Min: 2, Max: 12}, HoldSeconds: 5,
		},
	}
	if err := r.client.Create(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	pods := func(ready, floor int32) func() string {
		return func() string {
			d, hpa := get(r, "web-baseline", &appsv1.Deployment{}), get(r, "web-baseline", &autoscalingv2.HorizontalPodAutoscaler{})
			if d.Status.ReadyReplicas != ready || *hpa.Spec.MinReplicas != floor {
				return fmt.Sprintf("%d pods are ready, at least %d; want %d, %d", d.Status.ReadyReplicas, *hpa.Spec.MinReplicas, ready, floor)
			}
			return ""
		}
	}
	begin := time.Now()
	r.rate.milli.Store(750_000)
	r.eventually("the pool is raised", pods(8, 8))
	t.Log("8 pods ready", time.Since(begin), "after the rate")
	if sp := get(r, "web", &v1alpha1.ScalingPolicy{}); sp.Status.Floor != 8 || meta.FindStatusCondition(sp.Status.Conditions, "Ready").Reason != operator.ReasonRaised {
		t.Errorf("status %+v", sp.Status)
	}
	r.told(operator.ReasonRaised, "at least 8 pods")
	r.rate.milli.Store(5_000_000)
	r.eventually("no further than the budget", pods(12, 12))

	r.rate.milli.Store(-1)
	r.eventually("statistics are away", func() string {
		sp := get(r, "web", &v1alpha1.ScalingPolicy{})
		c := meta.FindStatusCondition(sp.Status.Conditions, "Ready")
		if c.Status != metav1.ConditionFalse || c.Reason != operator.ReasonNoStatistics || !strings.Contains(c.Message, "telemetry is stale") {
			return c.Reason
		}
		return ""
	})
	r.eventually("the floor ends; what runs is the autoscaler's to end", pods(12, 2))
	r.told(operator.ReasonEnded, "12 pods are not asked for any more")

	r.eventually("a decision asks for room", func() string {
		sp := get(r, "web", &v1alpha1.ScalingPolicy{})
		sp.Annotations = map[string]string{v1alpha1.AnnotationRoom: "610", v1alpha1.AnnotationRoomUntil: time.Now().Add(time.Minute).Format(time.RFC3339)}
		if err := r.client.Update(t.Context(), sp); err != nil {
			return err.Error()
		}
		return ""
	})
	r.eventually("there is room, also while statistics are away", pods(12, 7))
}

// TestPolicyWithoutATarget says what is missing, and goes on when it is there.
func TestPolicyWithoutATarget(t *testing.T) {
	r := start(t, "notarget")
	r.rate.milli.Store(100_000)
	policy := &v1alpha1.ScalingPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "small", Namespace: r.namespace},
		Spec:       v1alpha1.ScalingPolicySpec{Target: v1alpha1.ScaleTarget{Service: "small", Pool: "baseline"}, QPSPerPod: 100, Bounds: v1alpha1.Bounds{Min: 2, Max: 12}},
	}
	if err := r.client.Create(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	stands := func(ready, stalled metav1.ConditionStatus, says string) func() string {
		return func() string {
			sp := get(r, "small", &v1alpha1.ScalingPolicy{})
			for condition, want := range map[string]metav1.ConditionStatus{v1alpha1.ConditionReady: ready, v1alpha1.ConditionStalled: stalled} {
				c := meta.FindStatusCondition(sp.Status.Conditions, condition)
				if c == nil || c.Status != want || want == stalled && !strings.Contains(c.Message, says) || c.ObservedGeneration != sp.Generation {
					return fmt.Sprintf("%s: %+v", condition, c)
				}
			}
			return ""
		}
	}
	r.eventually("there is no service", stands("False", "True", "not found"))
	r.told(operator.ReasonNoTarget, "MicroService small")
	r.create(small)
	r.eventually("there is nothing to raise", stands("False", "True", "has no autoscaling"))
	r.change("small", func(ms *v1alpha1.MicroService) {
		ms.Spec.Replicas = nil
		ms.Spec.Autoscaling = &v1alpha1.Autoscaling{MinReplicas: 2, MaxReplicas: 9, Metrics: []v1alpha1.ScaleMetric{{QPSPerPod: new(int64(100))}}}
	})
	r.eventually("all is there", stands("True", "False", ""))
}

// TestPolicyRaisesTheCallPath raises a service that no policy names, because requests to
// one that a policy names reach it, and lets it go with the policy.
func TestPolicyRaisesTheCallPath(t *testing.T) {
	r := start(t, "callpath")
	for _, name := range []string{"front", "behind"} {
		r.create(`
metadata: {name: ` + name + `}
spec:
  image: example.org/web:1
  ports: [{name: http, port: 80}]
  autoscaling: {minReplicas: 1, maxReplicas: 20, metrics: [{qpsPerPod: 100}]}
`)
		r.settled(name)
	}
	policy := &v1alpha1.ScalingPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "front", Namespace: r.namespace},
		Spec: v1alpha1.ScalingPolicySpec{
			Target: v1alpha1.ScaleTarget{Service: "front", Pool: "baseline"}, QPSPerPod: 100,
			Bounds: v1alpha1.Bounds{Min: 1, Max: 12}, HoldSeconds: 600, CallPath: &v1alpha1.CallPath{Budget: 4},
		},
	}
	if err := r.client.Create(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	pods := func(name string, floor int32) func() string {
		return func() string {
			hpa := get(r, name+"-baseline", &autoscalingv2.HorizontalPodAutoscaler{})
			d := get(r, name+"-baseline", &appsv1.Deployment{})
			if *hpa.Spec.MinReplicas != floor || d.Status.ReadyReplicas < floor {
				return fmt.Sprintf("at least %d pods, %d are ready; want %d", *hpa.Spec.MinReplicas, d.Status.ReadyReplicas, floor)
			}
			return ""
		}
	}
	r.rate.milli.Store(150_000)
	r.eventually("the pool is raised", pods("front", 2))
	r.eventually("the pool behind it gets twice the requests", pods("behind", 3))
	r.rate.milli.Store(900_000)
	r.eventually("the pool is raised further", pods("front", 9))
	r.eventually("the pool behind it has the budget of the path", pods("behind", 5))
	if err := r.client.Delete(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	r.eventually("nothing holds the pool", pods("front", 1))
	r.eventually("nothing holds the pool behind it", pods("behind", 1))
}

// TestPodsWithFewSocketsGoFirst has the real controllers delete pods.
func TestPodsWithFewSocketsGoFirst(t *testing.T) {
	r := start(t, "scalein")
	r.create(`
metadata: {name: talk}
spec:
  image: example.org/talk:1
  ports: [{name: http, port: 80}, {name: admin, port: 9200}]
  replicas: 6
  scaleIn: {port: admin}
`)
	r.settled("talk")
	pods := func() (list corev1.PodList) {
		if err := r.client.List(t.Context(), &list, client.InNamespace(r.namespace), client.MatchingLabels{render.LabelService: "talk"}); err != nil {
			t.Fatal(err)
		}
		return list
	}
	r.eventually("pods have their cost", func() string {
		for _, p := range pods().Items {
			if p.Annotations[corev1.PodDeletionCost] == "" {
				return p.Name + " has none"
			}
		}
		return ""
	})
	count := func(p corev1.Pod) float64 { return sockets(p.Status.PodIP + ":9200") }
	before := pods().Items
	slices.SortFunc(before, func(a, b corev1.Pod) int { return cmp.Compare(count(b), count(a)) })
	t.Log("most sockets", count(before[0]), count(before[1]), count(before[2]))
	r.change("talk", func(ms *v1alpha1.MicroService) { ms.Spec.Replicas = new(int32(2)) })
	r.settled("talk")
	r.eventually("pods are gone", func() string {
		if n := len(pods().Items); n != 2 {
			return fmt.Sprintf("%d are left", n)
		}
		return ""
	})
	for _, p := range pods().Items {
		if count(p) < count(before[1]) {
			t.Errorf("%s with %v sockets is left; the second most had %v", p.Name, count(p), count(before[1]))
		}
	}
}
