package kubernetes_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/source/kubernetes"
	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/deploy"
	"github.com/tracegate/tracegate/mesh/operator"
)

// TestWarmNotesRoom at the policies of the pools that a decision names, and at no others.
func TestWarmNotesRoom(t *testing.T) {
	c := kube.Cluster(t)
	if err := c.ApplyFiles(t.Context(), deploy.CRDs, "chart/crds/*.yaml", ""); err != nil {
		t.Fatal(err)
	}
	scheme, err := operator.NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	cl, err := client.New(c.Admin(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	if err := cl.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "warm"}}); err != nil {
		t.Fatal(err)
	}
	for _, pool := range []string{"baseline", "isolated"} {
		sp := &v1alpha1.ScalingPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "warm", Name: pool}, Spec: v1alpha1.ScalingPolicySpec{
			Target: v1alpha1.ScaleTarget{Service: "core", Pool: pool}, QPSPerPod: 100, Bounds: v1alpha1.Bounds{Min: 1, Max: 5}, HoldSeconds: 60,
		}}
		if err := cl.Create(t.Context(), sp); err != nil {
			t.Fatal(err)
		}
	}
	w, err := kubernetes.NewWarmer(user(t, cl, "warm"), "warm")
	if err != nil {
		t.Fatal(err)
	}
	room := []decide.Load{{Service: "core", Pool: "isolated", Requests: 123.4}, {Service: "mail", Pool: "isolated", Requests: 7}}
	begin := time.Now().Truncate(time.Second)
	if err := w.Warm(t.Context(), "aaaaaa", room, time.Minute); err != nil {
		t.Fatal(err)
	}
	for pool, want := range map[string]string{"baseline": "", "isolated": "123.4"} {
		var sp v1alpha1.ScalingPolicy
		if err := cl.Get(t.Context(), client.ObjectKey{Namespace: "warm", Name: pool}, &sp); err != nil {
			t.Fatal(err)
		}
		if got := sp.Annotations[v1alpha1.AnnotationRoom]; got != want {
			t.Errorf("%s: room %q, want %q", pool, got, want)
		}
		if want == "" {
			continue
		}
		until, err := time.Parse(time.RFC3339, sp.Annotations[v1alpha1.AnnotationRoomUntil])
		if err != nil || until.Before(begin.Add(time.Minute)) {
			t.Errorf("%s: until %v, %v", pool, until, err)
		}
	}
	stranger, err := c.User("nobody")
	if err != nil {
		t.Fatal(err)
	}
	if w, err = kubernetes.NewWarmer(stranger, "warm"); err != nil {
		t.Fatal(err)
	}
	if err := w.Warm(t.Context(), "aaaaaa", room, time.Minute); err == nil || !strings.Contains(err.Error(), "list scaling policies") {
		t.Errorf("without the right to: %v", err)
	}
}
