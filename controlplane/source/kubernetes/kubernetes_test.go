package kubernetes_test

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/source"
	"github.com/tracegate/tracegate/controlplane/source/kubernetes"
	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/deploy"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/kubetest"
	"github.com/tracegate/tracegate/mesh/operator"
	"github.com/tracegate/tracegate/mesh/operator/render"
	"github.com/tracegate/tracegate/mesh/runtest"
)

var kube kubetest.Shared

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		os.Exit(m.Run())
	}
	os.Exit(kube.Main(kubetest.Config{Controllers: true}, m.Run))
}

func start(t *testing.T, namespace string) client.Client {
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
	if err := c.ApplyFiles(t.Context(), deploy.CRDs, "chart/crds/*.yaml", ""); err != nil {
		t.Fatal(err)
	}
	if err := cl.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		t.Fatal(err)
	}
	return cl
}

// user may do in the namespace what we install for control planes, and no more.
func user(t *testing.T, cl client.Client, namespace string) *rest.Config {
	t.Helper()
	c := kube.Cluster(t)
	for _, f := range []struct {
		files   fs.FS
		pattern string
	}{{deploy.Kustomize, "kustomize/namespace.yaml"}, {deploy.Kustomize, "kustomize/controlplane.yaml"}, {deploy.RBAC, "chart/files/*.yaml"}} {
		if err := c.ApplyFiles(t.Context(), f.files, f.pattern, ""); err != nil {
			t.Fatal(err)
		}
	}
	const name = "tracegate-controlplane"
	if err := cl.Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "tracegate", Name: name}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
	}); err != nil {
		t.Fatal(err)
	}
	cfg := c.Admin()
	cfg.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:tracegate:" + name}
	return cfg
}

func logger(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// next waits for an update that ok says "" of.
func next[T any](t *testing.T, updates <-chan source.Update[T], ok func(source.Update[T]) string) {
	t.Helper()
	deadline := time.NewTimer(3 * time.Minute)
	defer deadline.Stop()
	said := "nothing was sent"
	for {
		select {
		case u := <-updates:
			if said = ok(u); said == "" {
				return
			}
		case <-deadline.C:
			t.Fatal(said)
		}
	}
}

// TestEndpointsFollowPods makes what the operator makes of a service, and asks for
// its pools.
func TestEndpointsFollowPods(t *testing.T) {
	cl := start(t, "endpoints")
	var ms v1alpha1.MicroService
	if err := yaml.Unmarshal([]byte(`
metadata: {name: web, namespace: endpoints, uid: 6f2c0b1e-0000-0000-0000-000000000000}
spec:
  image: example.org/web:1
  ports: [{name: http, port: 8080}, {name: admin, port: 9090}]
  pools: [{name: baseline, replicas: 3}, {name: canary, replicas: 1}]
`), &ms); err != nil {
		t.Fatal(err)
	}
	objects, err := render.Objects(&ms, nil)
	if err != nil {
		t.Fatal(err)
	}
	updates := make(chan source.Update[policy.Endpoints])
	e := kubernetes.Endpoints{Cluster: user(t, cl, "endpoints"), Namespace: "endpoints", Port: "http", Log: logger(t)}
	runtest.Background(t, func(ctx context.Context) error { return e.Run(ctx, updates) })
	next(t, updates, func(u source.Update[policy.Endpoints]) string {
		if u.Err == nil || !strings.Contains(u.Err.Error(), "no endpoint at all") {
			return fmt.Sprintf("an empty cluster: %+v", u)
		}
		return ""
	})
	for _, o := range objects {
		o.SetOwnerReferences(nil) // the garbage collector knows no such service
		if err := kubetest.Apply(t.Context(), cl, "endpoints", o); err != nil {
			t.Fatal(err)
		}
	}
	has := func(baseline, canary int) func(source.Update[policy.Endpoints]) string {
		return func(u source.Update[policy.Endpoints]) string {
			pools := u.Value.Services["web"]
			if len(pools["baseline"]) != baseline || len(pools["canary"]) != canary {
				return fmt.Sprintf("%+v", u)
			}
			for _, a := range slices.Concat(pools["baseline"], pools["canary"]) {
				if !strings.HasSuffix(a, ":8080") {
					t.Errorf("%s is not the port http", a)
				}
			}
			return ""
		}
	}
	next(t, updates, has(3, 1))

	scale := func(pool string, n int32) {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web-" + pool, Namespace: "endpoints"}}
		body := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: n}}
		if err := cl.SubResource("scale").Update(t.Context(), d, client.WithSubResourceBody(body)); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	scale("baseline", 6)
	next(t, updates, has(6, 1))
	t.Log("6 pods known", time.Since(begin), "after they were asked for")
	scale("canary", 0)
	next(t, updates, has(6, 0)) // one pool may be empty

	kube.Cluster(t).StopAPIServer()
	next(t, updates, func(u source.Update[policy.Endpoints]) string {
		if u.Err == nil || !strings.Contains(u.Err.Error(), "the last ones are kept") {
			return fmt.Sprintf("API server is away: %+v", u)
		}
		return ""
	})
	if err := kube.Cluster(t).StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, updates, has(6, 0))
	scale("canary", 2)
	next(t, updates, has(6, 2))
	scale("baseline", 0)
	scale("canary", 0)
	next(t, updates, func(u source.Update[policy.Endpoints]) string {
		if u.Err == nil || !strings.Contains(u.Err.Error(), "no endpoint at all") {
			return fmt.Sprintf("the last pod is gone: %+v", u)
		}
		return ""
	})
}

// plane plays the control plane: it takes policies, and says what became of them. As a control
// plane it keeps nobody waiting: the same policy may come twice, also when nobody asks for it.
type plane struct {
	t        *testing.T
	cl       client.Client
	user     *rest.Config
	base     policy.Policy
	file     chan source.Update[policy.Policy]
	policies chan source.Update[policy.Policy]
	fates    chan source.Fate
}

func overlaid(t *testing.T, namespace string) *plane {
	t.Helper()
	return overlaidBy(t, namespace, new(kubetest.Calls))
}

func overlaidBy(t *testing.T, namespace string, calls *kubetest.Calls) *plane {
	t.Helper()
	base, err := policy.Parse(policy.Default)
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{
		t: t, cl: start(t, namespace), base: base, file: make(chan source.Update[policy.Policy], 1),
		policies: make(chan source.Update[policy.Policy], 64), fates: make(chan source.Fate, 64),
	}
	p.user = user(t, p.cl, namespace)
	p.user.Wrap(calls.Wrap)
	r := kubernetes.Resources{Cluster: p.user, Namespace: namespace, Log: logger(t)}
	runtest.Background(t, func(ctx context.Context) error { return r.Run(ctx, p.file, p.policies, p.fates) })
	p.file <- source.Update[policy.Policy]{Raw: policy.Default}
	return p
}

// fate waits for a policy that ok says "" of, and says what becomes of it.
func (p *plane) fate(f func(raw []byte) source.Fate, ok func(policy.Policy) string) []byte {
	p.t.Helper()
	var raw []byte
	next(p.t, p.policies, func(u source.Update[policy.Policy]) string {
		if u.Err != nil {
			return u.Err.Error()
		}
		raw = u.Raw
		said := ok(u.Value)
		if said == "" {
			p.fates <- f(u.Raw)
		}
		return said
	})
	return raw
}

// conditions polls until the resource has them, as "Type=Status/Reason", of its newest generation.
func (p *plane) conditions(o client.Object, of func() []metav1.Condition, want ...string) {
	p.t.Helper()
	deadline, tick := time.NewTimer(3*time.Minute), time.NewTicker(20*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for {
		if err := p.cl.Get(p.t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			p.t.Fatal(err)
		}
		var got []string
		for _, c := range of() {
			if c.ObservedGeneration == o.GetGeneration() {
				got = append(got, fmt.Sprintf("%s=%s/%s", c.Type, c.Status, c.Reason))
			}
		}
		if missing := slices.DeleteFunc(slices.Clone(want), func(w string) bool { return slices.Contains(got, w) }); len(missing) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			p.t.Fatalf("%s: want %v, got %+v", o.GetName(), want, of())
		}
	}
}

func inForce(raw []byte) source.Fate { return source.Fate{Wanted: raw, InForce: raw} }

// TestTrafficGroupsReachDecisions writes groups, and asks for what decisions on them go by.
func TestTrafficGroupsReachDecisions(t *testing.T) {
	p := overlaid(t, "groups")
	groups := func(want ...string) func(policy.Policy) string {
		return func(got policy.Policy) string {
			var names []string
			for _, g := range got.Decide.Groups {
				names = append(names, g.Name)
			}
			if !slices.Equal(names, want) {
				return fmt.Sprintf("groups %v, want %v", names, want)
			}
			return ""
		}
	}
	p.fate(inForce, groups())
	if err := kube.Cluster(t).ApplyFiles(t.Context(), deploy.Samples, "samples/trafficgroup.yaml", "groups"); err != nil {
		t.Fatal(err)
	}
	acme := group.Group{Env: "prod", Tenant: "acme"}.ID()
	p.fate(func(raw []byte) source.Fate { return source.Fate{Wanted: raw} }, func(got policy.Policy) string {
		if said := groups("acme")(got); said != "" {
			return said
		}
		for id, want := range map[group.ID]time.Duration{acme: 300 * time.Millisecond, "0a1b2c": got.Decide.MaxP95} {
			if of := got.Decide.For(id); of.MaxP95 != want || (of.Mode == decide.ModeRecommend) != (id == acme) {
				t.Errorf("decisions on %s go by %+v", id, of)
			}
		}
		return ""
	})
	first := &v1alpha1.TrafficGroup{ObjectMeta: metav1.ObjectMeta{Namespace: "groups", Name: "acme"}}
	p.conditions(first, func() []metav1.Condition { return first.Status.Conditions }, "Accepted=True/Used", "Programmed=False/Waiting", "Progressing=True/Waiting", "Ready=False/Waiting")
	if first.Status.Group != string(acme) {
		t.Errorf("status.group is %q, want %s", first.Status.Group, acme)
	}
	// A change, and this time edges have it.
	change := client.MergeFrom(first.DeepCopy())
	first.Spec.Mode = "Act"
	if err := p.cl.Patch(t.Context(), first, change); err != nil {
		t.Fatal(err)
	}
	last := p.fate(inForce, func(got policy.Policy) string {
		if got.Decide.For(acme).Mode != decide.ModeAct {
			return "mode is not act"
		}
		return ""
	})
	all := []string{"Accepted=True/Used", "Programmed=True/InForce", "Progressing=False/AsExpected", "Stalled=False/AsExpected", "Ready=True/InForce"}
	p.conditions(first, func() []metav1.Condition { return first.Status.Conditions }, all...)

	// Another one that selects the same group, by its id: the older one stays.
	second := &v1alpha1.TrafficGroup{ObjectMeta: metav1.ObjectMeta{Namespace: "groups", Name: "later"}, Spec: v1alpha1.TrafficGroupSpec{
		Selector: v1alpha1.GroupSelector{ID: string(acme)}, Mode: "Observe",
	}}
	if err := p.cl.Create(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	p.fate(inForce, groups("acme"))
	p.conditions(second, func() []metav1.Condition { return second.Status.Conditions }, "Accepted=False/Conflicted", "Programmed=False/Conflicted", "Stalled=True/Conflicted")
	p.conditions(first, func() []metav1.Condition { return first.Status.Conditions }, all...)
	// Edges refuse what comes next: what they have stays in force, the new one is not.
	third := &v1alpha1.TrafficGroup{ObjectMeta: metav1.ObjectMeta{Namespace: "groups", Name: "other"}, Spec: v1alpha1.TrafficGroupSpec{Selector: v1alpha1.GroupSelector{ID: "0a1b2c"}}}
	if err := p.cl.Create(t.Context(), third); err != nil {
		t.Fatal(err)
	}
	p.fate(func(raw []byte) source.Fate {
		return source.Fate{Wanted: raw, InForce: last, Refused: "edge-1 says no"}
	}, groups("acme", "other"))
	p.conditions(third, func() []metav1.Condition { return third.Status.Conditions }, "Accepted=True/Used", "Programmed=False/PolicyNotInForce", "Stalled=True/PolicyNotInForce", "Ready=False/PolicyNotInForce")
	p.conditions(first, func() []metav1.Condition { return first.Status.Conditions }, all...)

	// With the older one gone it is the other's turn.
	if err := p.cl.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	p.fate(inForce, groups("later", "other"))
	p.conditions(second, func() []metav1.Condition { return second.Status.Conditions }, all...)
}

// TestEveryRouteIsTaken by the API server, which changes nothing of it.
func TestEveryRouteIsTaken(t *testing.T) {
	cl := start(t, "every")
	if err := kube.Cluster(t).ApplyFiles(t.Context(), os.DirFS("."), "testdata/routes.yaml", "every"); err != nil {
		t.Fatal(err)
	}
	var got v1alpha1.RouteList
	if err := cl.List(t.Context(), &got, client.InNamespace("every")); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile("testdata/routes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	texts := strings.Split(string(raw), "---\n")
	if len(got.Items) != len(texts) {
		t.Fatalf("%d of %d", len(got.Items), len(texts))
	}
	for _, text := range texts {
		var want v1alpha1.Route
		if err := yaml.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(got.Items, func(r v1alpha1.Route) bool { return r.Name == want.Name })
		if i < 0 || !equality.Semantic.DeepEqual(got.Items[i].Spec, want.Spec) {
			t.Errorf("%s is kept as %+v, not as %+v", want.Name, got.Items, want.Spec)
		}
	}
}

func TestRoutesAndCohortsJoinThePolicy(t *testing.T) {
	p := overlaid(t, "routes")
	rules := func(want ...string) func(policy.Policy) string {
		return func(got policy.Policy) string {
			var names []string
			for _, r := range got.Services[1].Rules {
				names = append(names, r.Name)
			}
			if !slices.Equal(names, want) {
				return fmt.Sprintf("rules %v, want %v", names, want)
			}
			return ""
		}
	}
	p.fate(inForce, rules())
	if err := kube.Cluster(t).ApplyFiles(t.Context(), deploy.Samples, "samples/route.yaml", "routes"); err != nil {
		t.Fatal(err)
	}
	p.fate(inForce, rules("new-search"))
	good := &v1alpha1.Route{ObjectMeta: metav1.ObjectMeta{Name: "new-search", Namespace: "routes"}}
	p.conditions(good, func() []metav1.Condition { return good.Status.Conditions }, "Accepted=True/Used", "Programmed=True/InForce", "Ready=True/InForce")

	bad := &v1alpha1.Route{ObjectMeta: metav1.ObjectMeta{Name: "bad", Namespace: "routes"}, Spec: v1alpha1.RouteSpec{
		Service: "core", Match: []v1alpha1.RouteMatch{{Prefix: "/bad"}}, Pool: "unknown",
	}}
	if err := p.cl.Create(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	p.fate(inForce, rules("new-search"))
	p.conditions(bad, func() []metav1.Condition { return bad.Status.Conditions }, "Accepted=False/Refused", "Programmed=False/Refused", "Stalled=True/Refused")
	if c := meta.FindStatusCondition(bad.Status.Conditions, v1alpha1.ConditionAccepted); !strings.Contains(c.Message, "unknown") {
		t.Errorf("it does not say why: %s", c.Message)
	}

	before := bad.DeepCopy()
	bad.Spec.Pool = "canary"
	if err := p.cl.Patch(t.Context(), bad, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	p.fate(func(raw []byte) source.Fate {
		return source.Fate{Wanted: raw, InForce: raw, Held: map[string]string{"core/bad": "edge-1 refuses it"}}
	}, rules("bad", "new-search"))
	p.conditions(bad, func() []metav1.Condition { return bad.Status.Conditions }, "Accepted=True/Used", "Programmed=False/RefusedByEdges", "Stalled=True/RefusedByEdges")
	p.conditions(good, func() []metav1.Condition { return good.Status.Conditions }, "Programmed=True/InForce")

	p.file <- source.Update[policy.Policy]{Err: fmt.Errorf("line 1: broken")}
	next(t, p.policies, func(u source.Update[policy.Policy]) string {
		if u.Err == nil {
			return "an error of the file is lost"
		}
		return ""
	})
	if err := p.cl.Delete(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	p.fate(inForce, rules("new-search"))
}
