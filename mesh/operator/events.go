package operator

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
)

// notice is what people are told in an event: once for a change, not at each look. (The
// recorder takes events that differ in their note alone for one that goes on, and keeps the
// first note; so what is told of a part names the part, and its field, as related object.)
type notice struct {
	kind, reason, note string
}

// notices says what a service's new status has that the one before had not.
func notices(before, after []metav1.Condition) (out []notice) {
	say := func(kind, condition string) {
		c := meta.FindStatusCondition(after, condition)
		out = append(out, notice{kind, c.Reason, c.Message})
	}
	was, is := meta.FindStatusCondition(before, v1alpha1.ConditionProgrammed), meta.FindStatusCondition(after, v1alpha1.ConditionProgrammed)
	switch {
	case is.Status == metav1.ConditionFalse && (was == nil || was.Status != is.Status || was.Message != is.Message):
		say(corev1.EventTypeWarning, v1alpha1.ConditionProgrammed)
	case is.Status == metav1.ConditionTrue && was != nil && was.Status == metav1.ConditionFalse:
		say(corev1.EventTypeNormal, v1alpha1.ConditionProgrammed)
	}
	if c := meta.FindStatusCondition(after, v1alpha1.ConditionStalled); c.Reason == ReasonRolloutStalls && !has(before, *c) {
		say(corev1.EventTypeWarning, v1alpha1.ConditionStalled)
	}
	switch ready := meta.IsStatusConditionTrue(after, v1alpha1.ConditionReady); {
	case ready && !meta.IsStatusConditionTrue(before, v1alpha1.ConditionReady):
		say(corev1.EventTypeNormal, v1alpha1.ConditionReady)
	case !ready && meta.IsStatusConditionTrue(before, v1alpha1.ConditionReady):
		say(corev1.EventTypeWarning, v1alpha1.ConditionReady)
	}
	return out
}

// policyNotices says what a policy's new status has that the one before had not.
func policyNotices(before, after v1alpha1.ScalingPolicyStatus) (out []notice) {
	c := meta.FindStatusCondition(after.Conditions, v1alpha1.ConditionReady)
	switch {
	case c.Status == metav1.ConditionFalse && !has(before.Conditions, *c):
		out = append(out, notice{corev1.EventTypeWarning, c.Reason, c.Message})
	case after.Floor > before.Floor:
		out = append(out, notice{corev1.EventTypeNormal, ReasonRaised, c.Message})
	case after.Floor == 0 && before.Floor > 0:
		out = append(out, notice{corev1.EventTypeNormal, ReasonEnded, fmt.Sprintf("%d pods are not asked for any more: scaling in is the autoscaler's", before.Floor)})
	}
	return out
}

// has says whether a condition was for the same reason before.
func has(all []metav1.Condition, c metav1.Condition) bool {
	was := meta.FindStatusCondition(all, c.Type)
	return was != nil && was.Status == c.Status && was.Reason == c.Reason
}
