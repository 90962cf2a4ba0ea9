package kubernetes_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/source"
	"github.com/tracegate/tracegate/controlplane/source/kubernetes"
	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/deploy"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/kubetest"
	"github.com/tracegate/tracegate/mesh/operator"
	"github.com/tracegate/tracegate/mesh/runtest"
)

// operate runs an operator with the rights that we install.
func operate(t *testing.T, cl client.Client, namespace string, qps float64) {
	t.Helper()
	account := rbacv1.Subject{Kind: "ServiceAccount", Namespace: "tracegate", Name: "tracegate-operator"}
	err := cl.Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: account.Name}, Subjects: []rbacv1.Subject{account},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: account.Name},
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := kube.Cluster(t).Admin()
	cfg.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:tracegate:tracegate-operator"}
	deps := operator.Deps{Rate: func(string, string, group.ID) (float64, error) { return qps, nil }}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})) // may speak when the test has ended
	runtest.Background(t, func(ctx context.Context) error {
		return operator.Run(ctx, operator.Config{Cluster: cfg, Namespaces: []string{namespace}, Metrics: "0", Health: "0", Workers: 2}, deps, log)
	})
}

// TestSamplesReachAllConditions applies every sample together, for an operator and a control plane with
// the rights that we install, and waits for every condition of each. Of its rights the control
// plane then has used all, and asked for no other.
func TestSamplesReachAllConditions(t *testing.T) {
	var calls kubetest.Calls
	p := overlaidBy(t, "samples", &calls)
	operate(t, p.cl, "samples", 900)
	if err := kube.Cluster(t).ApplyFiles(t.Context(), deploy.Samples, "samples/*.yaml", "samples"); err != nil {
		t.Fatal(err)
	}
	places := make(chan source.Update[policy.Endpoints])
	e := kubernetes.Endpoints{Cluster: p.user, Namespace: "samples", Port: "http", Log: logger(t)}
	runtest.Background(t, func(ctx context.Context) error { return e.Run(ctx, places) })
	p.fate(inForce, func(got policy.Policy) string {
		rules, cohorts, groups := len(got.Services[1].Rules), len(got.Color.Cohorts), len(got.Decide.Groups)
		if rules != 1 || cohorts != len(p.base.Color.Cohorts)+1 || groups != 1 {
			return fmt.Sprintf("%d rules, %d cohorts, %d groups", rules, cohorts, groups)
		}
		return ""
	})

	at := metav1.ObjectMeta{Namespace: "samples"}
	named := func(name string) metav1.ObjectMeta { m := at; m.Name = name; return m }
	all := []string{"Accepted=True/Used", "Programmed=True/InForce", "Ready=True/InForce", "Progressing=False/AsExpected", "Stalled=False/AsExpected"}
	route := &v1alpha1.Route{ObjectMeta: named("new-search")}
	p.conditions(route, func() []metav1.Condition { return route.Status.Conditions }, all...)
	cohort := &v1alpha1.Cohort{ObjectMeta: named("beta")}
	p.conditions(cohort, func() []metav1.Condition { return cohort.Status.Conditions }, all...)
	acme := &v1alpha1.TrafficGroup{ObjectMeta: named("acme")}
	p.conditions(acme, func() []metav1.Condition { return acme.Status.Conditions }, all...)
	if want := string(operator.GroupID(acme.Spec.Selector)); acme.Status.Group != want {
		t.Errorf("status.group is %q, want %s", acme.Status.Group, want)
	}
	scaling := &v1alpha1.ScalingPolicy{ObjectMeta: named("chat-acme")}
	p.conditions(scaling, func() []metav1.Condition { return scaling.Status.Conditions }, "Ready=True/Raised", "Stalled=False/AsExpected")
	chat := &v1alpha1.MicroService{ObjectMeta: named("chat")}
	p.conditions(chat, func() []metav1.Condition { return chat.Status.Conditions },
		"Ready=True/PodsReady", "Programmed=True/Applied", "Progressing=False/Complete", "Stalled=False/AsExpected")
	next(t, places, func(u source.Update[policy.Endpoints]) string {
		if n := len(u.Value.Services["chat"]["baseline"]); n < 5 { // 900 requests a second, 200 a pod
			return fmt.Sprintf("%d pods of baseline are known", n)
		}
		return ""
	})

	w, err := kubernetes.NewWarmer(p.user, "samples")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Warm(t.Context(), "aaaaaa", []decide.Load{{Service: "chat", Pool: "baseline", Requests: 1}}, time.Minute); err != nil {
		t.Fatal(err)
	}
	rightsAreAsked(t, p.cl, &calls)
}

// rightsAreAsked compares what was asked with the rules that we install.
func rightsAreAsked(t *testing.T, cl client.Client, calls *kubetest.Calls) {
	t.Helper()
	var role rbacv1.ClusterRole
	if err := cl.Get(t.Context(), client.ObjectKey{Name: "tracegate-controlplane"}, &role); err != nil {
		t.Fatal(err)
	}
	var may, asked []kubetest.Call
	for _, r := range role.Rules {
		for _, resource := range r.Resources {
			for _, verb := range r.Verbs {
				may = append(may, kubetest.Call{Verb: verb, Group: r.APIGroups[0], Resource: resource})
			}
		}
	}
	for c := range calls.Counted() {
		if c.Resource != "" { // what is served may be asked by everybody
			asked = append(asked, c)
		}
		if c.Verb == "watch" { // it begins with a list where the API server is an older one
			asked = append(asked, kubetest.Call{Verb: "list", Group: c.Group, Resource: c.Resource})
		}
	}
	for _, c := range asked {
		if !slices.Contains(may, c) {
			t.Errorf("%s is asked, and not granted", c)
		}
	}
	for _, c := range may {
		if !slices.Contains(asked, c) {
			t.Errorf("%s is granted, and never asked", c)
		}
	}
}
