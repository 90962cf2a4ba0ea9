package operator

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/operator/render"
)

// The reasons of conditions.
const (
	ReasonReady         = "PodsReady"
	ReasonNotReady      = "PodsNotReady"
	ReasonApplied       = "Applied"
	ReasonApplyFailed   = "ApplyFailed"
	ReasonRefused       = "Refused" // the API server will not take it, however often it is tried
	ReasonRollingOut    = "RollingOut"
	ReasonComplete      = "Complete"
	ReasonRolloutStalls = "RolloutStalls"
	ReasonAsExpected    = "AsExpected"
)

// status says how the service fares: deployments are its own by pool, as far as they
// exist, and err is what went wrong when they were applied. It is a pure function; a
// condition that stays as it was keeps its time.
func status(ms *v1alpha1.MicroService, deployments map[string]*appsv1.Deployment, err error) v1alpha1.MicroServiceStatus {
	s := v1alpha1.MicroServiceStatus{ObservedGeneration: ms.Generation}
	for _, c := range ms.Status.Conditions {
		s.Conditions = append(s.Conditions, *c.DeepCopy())
	}
	var notReady, rolling, stalled []string
	var ready, wanted int32
	for _, pool := range render.Pools(ms) {
		p, floor := v1alpha1.PoolStatus{Name: pool.Name, Wanted: pool.Floor()}, pool.Floor()
		d := deployments[pool.Name]
		if d != nil {
			p.Ready, p.Updated = d.Status.ReadyReplicas, d.Status.UpdatedReplicas
			if d.Spec.Replicas != nil {
				p.Wanted = *d.Spec.Replicas
			}
		}
		if p.Ready < min(floor, max(p.Wanted, 1)) {
			notReady = append(notReady, fmt.Sprintf("pool %s: %d of %d pods are ready", pool.Name, p.Ready, p.Wanted))
		}
		switch {
		case d != nil && exceeded(d):
			stalled = append(stalled, fmt.Sprintf("pool %s: no new pod has become ready for %d s", pool.Name, *d.Spec.ProgressDeadlineSeconds))
		case d == nil || d.Status.ObservedGeneration < d.Generation || p.Updated < p.Wanted || d.Status.Replicas > min(p.Updated, p.Wanted) || p.Ready < p.Wanted:
			rolling = append(rolling, fmt.Sprintf("pool %s: %d of %d pods are new", pool.Name, p.Updated, p.Wanted))
		}
		ready, wanted = ready+p.Ready, wanted+p.Wanted
		s.Pools = append(s.Pools, p)
	}
	s.Pods, s.PoolCount = fmt.Sprintf("%d/%d", ready, wanted), int32(len(s.Pools))

	set := func(condition string, is bool, reason, message string) {
		value := metav1.ConditionFalse
		if is {
			value = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&s.Conditions, metav1.Condition{
			Type: condition, Status: value, ObservedGeneration: ms.Generation, Reason: reason, Message: clip(message),
		})
	}
	switch {
	case err != nil:
		set(v1alpha1.ConditionProgrammed, false, ReasonApplyFailed, err.Error())
	default:
		set(v1alpha1.ConditionProgrammed, true, ReasonApplied, "all resources are as they should be")
	}
	switch {
	case len(rolling) > 0 || err != nil:
		set(v1alpha1.ConditionProgressing, true, ReasonRollingOut, cmp.Or(strings.Join(rolling, "; "), "what could not be written is tried again"))
	default:
		set(v1alpha1.ConditionProgressing, false, ReasonComplete, "every pod is of the newest template")
	}
	switch {
	case refused(err):
		set(v1alpha1.ConditionStalled, true, ReasonRefused, err.Error())
	case len(stalled) > 0:
		set(v1alpha1.ConditionStalled, true, ReasonRolloutStalls, strings.Join(stalled, "; "))
	default:
		set(v1alpha1.ConditionStalled, false, ReasonAsExpected, "")
	}
	switch {
	case len(notReady) > 0:
		set(v1alpha1.ConditionReady, false, ReasonNotReady, strings.Join(notReady, "; "))
	default:
		set(v1alpha1.ConditionReady, true, ReasonReady, "every pool has its pods")
	}
	return s
}

// refused says whether trying again cannot help.
func refused(err error) bool {
	if err == nil {
		return false
	}
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		for _, e := range many.Unwrap() {
			if refused(e) {
				return true
			}
		}
		return false
	}
	return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err)
}

func exceeded(d *appsv1.Deployment) bool {
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentProgressing {
			return c.Status == corev1.ConditionFalse && c.Reason == "ProgressDeadlineExceeded"
		}
	}
	return false
}

// clip keeps messages below what an event may hold, and far below what a condition may.
func clip(s string) string {
	const most = 1000
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
