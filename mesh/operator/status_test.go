package operator

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
)

// deployment is one as its controller reports it.
func deployment(wanted, replicas, updated, ready int32, stalls bool) *appsv1.Deployment {
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Generation: 2},
		Spec:       appsv1.DeploymentSpec{Replicas: &wanted, ProgressDeadlineSeconds: new(int32(120))},
		Status:     appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: replicas, UpdatedReplicas: updated, ReadyReplicas: ready},
	}
	if stalls {
		d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: "ProgressDeadlineExceeded"}}
	}
	return d
}

func words(all []metav1.Condition) string {
	var out []string
	for _, name := range []string{"Ready", "Programmed", "Progressing", "Stalled"} {
		for _, c := range all {
			if c.Type == name {
				out = append(out, string(c.Status)+"/"+c.Reason)
			}
		}
	}
	return strings.Join(out, " ")
}

func TestConditions(t *testing.T) {
	two := func(pools ...v1alpha1.Pool) v1alpha1.MicroServiceSpec {
		return v1alpha1.MicroServiceSpec{Replicas: new(int32(2)), Pools: append([]v1alpha1.Pool{{Name: "baseline"}}, pools...)}
	}
	canary := v1alpha1.Pool{Name: "canary", Replicas: new(int32(1))}
	scaled := v1alpha1.MicroServiceSpec{Autoscaling: &v1alpha1.Autoscaling{MinReplicas: 2, MaxReplicas: 9}, Pools: []v1alpha1.Pool{{Name: "baseline"}}}
	invalid := apierrors.NewInvalid(schema.GroupKind{Kind: "Deployment"}, "a", nil)
	for _, tt := range []struct {
		name        string
		spec        v1alpha1.MicroServiceSpec
		deployments map[string]*appsv1.Deployment
		err         error
		want        string // Ready, Programmed, Progressing, Stalled
		pods        string
	}{
		{"nothing is there yet", two(), nil, nil, "False/PodsNotReady True/Applied True/RollingOut False/AsExpected", "0/2"},
		{"pods start", two(), map[string]*appsv1.Deployment{"baseline": deployment(2, 2, 2, 1, false)}, nil, "False/PodsNotReady True/Applied True/RollingOut False/AsExpected", "1/2"},
		{"all is well", two(), map[string]*appsv1.Deployment{"baseline": deployment(2, 2, 2, 2, false)}, nil, "True/PodsReady True/Applied False/Complete False/AsExpected", "2/2"},
		{"old pods serve while new ones start", two(), map[string]*appsv1.Deployment{"baseline": deployment(2, 3, 1, 2, false)}, nil, "True/PodsReady True/Applied True/RollingOut False/AsExpected", "2/2"},
		{"new pods do not start, old ones serve", two(), map[string]*appsv1.Deployment{"baseline": deployment(2, 3, 1, 2, true)}, nil, "True/PodsReady True/Applied False/Complete True/RolloutStalls", "2/2"},
		{"no pod starts", two(), map[string]*appsv1.Deployment{"baseline": deployment(2, 2, 2, 0, true)}, nil, "False/PodsNotReady True/Applied False/Complete True/RolloutStalls", "0/2"},
		{
			"one of two pools has none", two(canary), map[string]*appsv1.Deployment{"baseline": deployment(2, 2, 2, 2, false), "canary": deployment(1, 1, 1, 0, false)}, nil,
			"False/PodsNotReady True/Applied True/RollingOut False/AsExpected", "2/3",
		},
		{
			"a resource could not be written, the rest was", two(), map[string]*appsv1.Deployment{"baseline": deployment(2, 2, 2, 2, false)}, errors.New("apply Service a: timeout"),
			"True/PodsReady False/ApplyFailed True/RollingOut False/AsExpected", "2/2",
		},
		{
			"a resource is refused among other mistakes", two(), map[string]*appsv1.Deployment{"baseline": deployment(2, 2, 2, 2, false)}, errors.Join(errors.New("timeout"), invalid),
			"True/PodsReady False/ApplyFailed True/RollingOut True/Refused", "2/2",
		},
		{"the autoscaler has asked for more", scaled, map[string]*appsv1.Deployment{"baseline": deployment(5, 5, 5, 3, false)}, nil, "True/PodsReady True/Applied True/RollingOut False/AsExpected", "3/5"},
		{"below what the autoscaler keeps", scaled, map[string]*appsv1.Deployment{"baseline": deployment(5, 5, 5, 1, false)}, nil, "False/PodsNotReady True/Applied True/RollingOut False/AsExpected", "1/5"},
		{"scaled to nothing by hand", scaled, map[string]*appsv1.Deployment{"baseline": deployment(0, 0, 0, 0, false)}, nil, "False/PodsNotReady True/Applied False/Complete False/AsExpected", "0/0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ms := &v1alpha1.MicroService{ObjectMeta: metav1.ObjectMeta{Generation: 7}, Spec: tt.spec}
			s := status(ms, tt.deployments, tt.err)
			if got := words(s.Conditions); got != tt.want || s.Pods != tt.pods {
				t.Errorf("%s, pods %s; want %s, %s", got, s.Pods, tt.want, tt.pods)
			}
			for _, c := range s.Conditions {
				if c.ObservedGeneration != 7 {
					t.Errorf("%+v", c)
				}
				if c.Message == "" && c.Type != v1alpha1.ConditionStalled {
					t.Errorf("%s says nothing", c.Type)
				}
			}
		})
	}
}

// TestNotices plays a service's life: what people are told of, and that it is once.
func TestNotices(t *testing.T) {
	ms := &v1alpha1.MicroService{Spec: v1alpha1.MicroServiceSpec{Replicas: new(int32(2)), Pools: []v1alpha1.Pool{{Name: "baseline"}}}}
	for _, step := range []struct {
		name string
		d    *appsv1.Deployment
		err  error
		want string
	}{
		{"made", nil, nil, ""},
		{"half", deployment(2, 2, 2, 1, false), nil, ""},
		{"ready", deployment(2, 2, 2, 2, false), nil, "Normal PodsReady"},
		{"again", deployment(2, 2, 2, 2, false), nil, ""},
		{"not written", deployment(2, 2, 2, 2, false), errors.New("timeout"), "Warning ApplyFailed"},
		{"not written again", deployment(2, 2, 2, 2, false), errors.New("timeout"), ""},
		{"for another reason", deployment(2, 2, 2, 2, false), errors.New("conflict"), "Warning ApplyFailed"},
		{"written", deployment(2, 2, 2, 2, false), nil, "Normal Applied"},
		{"stalls", deployment(2, 3, 1, 2, true), nil, "Warning RolloutStalls"},
		{"stalls still", deployment(2, 3, 1, 2, true), nil, ""},
		{"and loses pods", deployment(2, 2, 1, 0, true), nil, "Warning PodsNotReady"},
		{"well", deployment(2, 2, 2, 2, false), nil, "Normal PodsReady"},
	} {
		deployments := map[string]*appsv1.Deployment{}
		if step.d != nil {
			deployments["baseline"] = step.d
		}
		next := status(ms, deployments, step.err)
		var got []string
		for _, n := range notices(ms.Status.Conditions, next.Conditions) {
			got = append(got, n.kind+" "+n.reason)
			if n.note == "" {
				t.Errorf("%s: %s says nothing", step.name, n.reason)
			}
		}
		if diff := cmp.Diff(step.want, strings.Join(got, ", ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
		ms.Status = next
	}
}

// TestChangeNotices tells of drift part by part, and of everything else of a look at once.
func TestChangeNotices(t *testing.T) {
	got := changeNotices("shop", []change{
		{created, "Service", "a", ""}, {corrected, "Deployment", "a-baseline", "spec.replicas"}, {created, "Deployment", "a-canary", ""},
		{deleted, "Service", "a-old", ""}, {corrected, "NetworkPolicy", "a", "spec.ingress"},
	})
	var words []string
	for _, n := range got {
		field := ""
		if n.related != nil {
			field = " (" + n.related.Namespace + "/" + n.related.Name + " " + n.related.FieldPath + ")"
		}
		words = append(words, n.kind+" "+n.reason+": "+n.note+field)
	}
	want := []string{
		"Warning DriftCorrected: Deployment a-baseline: spec.replicas had been changed by somebody else (shop/a-baseline spec.replicas)",
		"Warning DriftCorrected: NetworkPolicy a: spec.ingress had been changed by somebody else (shop/a spec.ingress)",
		"Normal Created: Service a, Deployment a-canary",
		"Normal Deleted: Service a-old",
	}
	if diff := cmp.Diff(want, words); diff != "" {
		t.Error(diff)
	}
}

func TestPolicyNotices(t *testing.T) {
	at := func(floor int32, ready metav1.ConditionStatus, reason string) v1alpha1.ScalingPolicyStatus {
		return v1alpha1.ScalingPolicyStatus{Floor: floor, Conditions: []metav1.Condition{{Type: "Ready", Status: ready, Reason: reason, Message: reason}}}
	}
	watching, raised, away := at(0, "True", ReasonWatching), at(5, "True", ReasonRaised), at(5, "False", ReasonNoStatistics)
	for _, tt := range []struct {
		name          string
		before, after v1alpha1.ScalingPolicyStatus
		want          string
	}{
		{"first look", v1alpha1.ScalingPolicyStatus{}, watching, ""},
		{"raised", watching, raised, "Normal Raised"},
		{"kept", raised, raised, ""},
		{"raised more", raised, at(6, "True", ReasonRaised), "Normal Raised"},
		{"nobody knows", raised, away, "Warning NoStatistics"},
		{"nobody knows still", away, away, ""},
		{"over", raised, watching, "Normal Ended"},
		{"no such service", watching, at(0, "False", ReasonNoTarget), "Warning NoTarget"},
	} {
		var got []string
		for _, n := range policyNotices(tt.before, tt.after) {
			got = append(got, n.kind+" "+n.reason)
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s: %v, want %q", tt.name, got, tt.want)
		}
	}
}
