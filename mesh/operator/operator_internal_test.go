package operator

import (
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
)

func TestStatusOfOthersIsNoReasonToLook(t *testing.T) {
	hpa := func(edit func(*autoscalingv2.HorizontalPodAutoscaler)) client.Object {
		o := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "a", ResourceVersion: "1"}}
		edit(o)
		return o
	}
	was := hpa(func(*autoscalingv2.HorizontalPodAutoscaler) {})
	budget := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "1"}}
	for _, tt := range []struct {
		name     string
		old, now client.Object
		look     bool
	}{
		{"measured", was, hpa(func(o *autoscalingv2.HorizontalPodAutoscaler) { o.ResourceVersion, o.Status.DesiredReplicas = "2", 3 }), false},
		{"bounds", was, hpa(func(o *autoscalingv2.HorizontalPodAutoscaler) { o.Spec.MaxReplicas = 3 }), true},
		{"label", was, hpa(func(o *autoscalingv2.HorizontalPodAutoscaler) { o.Labels = map[string]string{"a": "b"} }), true},
		{"owner", was, hpa(func(o *autoscalingv2.HorizontalPodAutoscaler) {
			o.OwnerReferences = []metav1.OwnerReference{{Name: "x"}}
		}), true},
		{"pods", budget, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "2"}, Status: policyv1.PodDisruptionBudgetStatus{CurrentHealthy: 1}}, false},
	} {
		if look := besidesStatus().Update(event.UpdateEvent{ObjectOld: tt.old, ObjectNew: tt.now}); look != tt.look {
			t.Errorf("%s: looks: %v", tt.name, look)
		}
	}
	if was.GetResourceVersion() != "1" {
		t.Error("what is in the cache was changed")
	}
}
