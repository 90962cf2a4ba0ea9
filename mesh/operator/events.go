package operator

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/reference"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
)

// notice is what people are told in an event: once for a change, not at each look.
type notice struct {
	kind, reason, note string
	related            *corev1.ObjectReference // the part that it is about, where it is about one
}

// recorder writes events, one call each. client-go's recorder lost: it takes events that differ in
// their note alone for one that goes on, and writes of such again minutes later, when nothing happens.
type recorder struct {
	client   client.Writer
	scheme   *runtime.Scheme
	instance string // of the operator
	log      *slog.Logger
}

// tell writes one event for each notice. What cannot be written is logged, and not tried again.
func (r recorder) tell(ctx context.Context, about client.Object, action string, all ...notice) {
	for _, n := range all {
		if err := r.write(ctx, about, action, n); err != nil && ctx.Err() == nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			r.log.Warn("event is not written", "namespace", about.GetNamespace(), "name", about.GetName(), "reason", n.reason, "error", err)
		}
	}
}

func (r recorder) write(ctx context.Context, about client.Object, action string, n notice) error {
	ref, err := reference.GetReference(r.scheme, about)
	if err != nil {
		return fmt.Errorf("refer to %s: %w", about.GetName(), err)
	}
	return r.client.Create(ctx, &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: about.GetNamespace(), GenerateName: about.GetName() + "-"},
		EventTime:  metav1.NowMicro(), ReportingController: "tracegate-operator", ReportingInstance: r.instance,
		Regarding: *ref, Related: n.related, Type: n.kind, Reason: n.reason, Action: action, Note: clip(n.note),
	})
}

// changeNotices says what was written: what somebody else had changed each by itself, all
// else of a look together.
func changeNotices(namespace string, changes []change) (out []notice) {
	parts := map[string][]string{}
	for _, c := range changes {
		if c.action == corrected {
			related := &corev1.ObjectReference{Kind: c.kind, Namespace: namespace, Name: c.name, FieldPath: c.field}
			out = append(out, notice{corev1.EventTypeWarning, corrected, fmt.Sprintf("%s %s: %s had been changed by somebody else", c.kind, c.name, c.field), related})
			continue
		}
		parts[c.action] = append(parts[c.action], c.kind+" "+c.name)
	}
	for _, action := range []string{created, updated, deleted} {
		if len(parts[action]) > 0 {
			out = append(out, notice{corev1.EventTypeNormal, action, strings.Join(parts[action], ", "), nil})
		}
	}
	return out
}

// notices says what a service's new status has that the one before had not.
func notices(before, after []metav1.Condition) (out []notice) {
	say := func(kind, condition string) {
		c := meta.FindStatusCondition(after, condition)
		out = append(out, notice{kind, c.Reason, c.Message, nil})
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
		out = append(out, notice{corev1.EventTypeWarning, c.Reason, c.Message, nil})
	case after.Floor > before.Floor:
		out = append(out, notice{corev1.EventTypeNormal, ReasonRaised, c.Message, nil})
	case after.Floor == 0 && before.Floor > 0:
		out = append(out, notice{corev1.EventTypeNormal, ReasonEnded, fmt.Sprintf("%d pods are not asked for any more: scaling in is the autoscaler's", before.Floor), nil})
	}
	return out
}

// has says whether a condition was for the same reason before.
func has(all []metav1.Condition, c metav1.Condition) bool {
	was := meta.FindStatusCondition(all, c.Type)
	return was != nil && was.Status == c.Status && was.Reason == c.Reason
}
