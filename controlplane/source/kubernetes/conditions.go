package kubernetes

import (
	"errors"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tracegate/tracegate/controlplane/source"
	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
)

// The reasons of conditions.
const (
	reasonUsed       = "Used"           // part of the policy
	reasonInForce    = "InForce"        // every edge has it
	reasonWaiting    = "Waiting"        // for edges
	reasonRefused    = "Refused"        // it does not go together with the rest
	reasonConflicted = "Conflicted"     // another resource is about the same
	reasonEdges      = "RefusedByEdges" // edges are kept from this rule, others have what they should
	reasonPolicy     = "PolicyNotInForce"
	reasonAsExpected = "AsExpected"
)

// standing is how a resource fares, and why.
type standing struct {
	accepted, programmed bool
	stalled              bool // nothing happens until somebody changes something
	reason, message      string
}

// stand is a pure function: refused is why the resource is not part of the policy, inForce
// says that the policy of all edges has it, f is what became of the newest policy.
func stand(r resource, refused error, inForce bool, f source.Fate) standing {
	var conflict *conflictError
	switch held := f.Held[r.rule]; {
	case errors.As(refused, &conflict):
		return standing{stalled: true, reason: reasonConflicted, message: refused.Error()}
	case refused != nil:
		return standing{stalled: true, reason: reasonRefused, message: refused.Error()}
	case r.rule != "" && held != "":
		return standing{accepted: true, stalled: true, reason: reasonEdges, message: held}
	case inForce:
		return standing{accepted: true, programmed: true, reason: reasonInForce, message: r.says}
	case f.Refused != "":
		return standing{accepted: true, stalled: true, reason: reasonPolicy, message: "the policy that it is part of is not in force: " + f.Refused}
	}
	return standing{accepted: true, reason: reasonWaiting, message: "not every edge has it yet, or none is connected"}
}

// conditions are all of a resource; one that stays as it was keeps its time.
func (s standing) conditions(before []metav1.Condition, generation int64) []metav1.Condition {
	var out []metav1.Condition
	set := func(condition string, is bool, reason, message string) {
		c := metav1.Condition{Type: condition, Status: metav1.ConditionFalse, ObservedGeneration: generation, Reason: reason, Message: clip(message)}
		if is {
			c.Status = metav1.ConditionTrue
		}
		if was := meta.FindStatusCondition(before, condition); was != nil {
			out = append(out, *was.DeepCopy())
		}
		meta.SetStatusCondition(&out, c)
	}
	set(v1alpha1.ConditionReady, s.programmed, s.reason, s.message)
	if s.accepted {
		set(v1alpha1.ConditionAccepted, true, reasonUsed, "part of the policy")
	} else {
		set(v1alpha1.ConditionAccepted, false, s.reason, s.message)
	}
	set(v1alpha1.ConditionProgrammed, s.programmed, s.reason, s.message)
	if waits := !s.programmed && !s.stalled; waits {
		set(v1alpha1.ConditionProgressing, true, s.reason, s.message)
	} else {
		set(v1alpha1.ConditionProgressing, false, reasonAsExpected, "")
	}
	if s.stalled {
		set(v1alpha1.ConditionStalled, true, s.reason, s.message)
	} else {
		set(v1alpha1.ConditionStalled, false, reasonAsExpected, "")
	}
	return out
}

// ours are those that the control plane writes, in its order.
func ours(all []metav1.Condition) (out []metav1.Condition) {
	for _, name := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionAccepted, v1alpha1.ConditionProgrammed, v1alpha1.ConditionProgressing, v1alpha1.ConditionStalled} {
		if c := meta.FindStatusCondition(all, name); c != nil {
			out = append(out, *c)
		}
	}
	return out
}

func clip(s string) string {
	const most = 1024
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
