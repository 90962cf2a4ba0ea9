// Package render says which Kubernetes resources a MicroService is made of. It is a
// pure function: the operator applies what it returns, and tests read it.
//
//	MicroService chat             for each of its pools
//	  ServiceAccount chat           Deployment chat-POOL
//	  Service chat (all pools)      Service chat-POOL, headless: whose endpoints are the pool's
//	  NetworkPolicy chat            HorizontalPodAutoscaler chat-POOL, where it is autoscaled
//	                                PodDisruptionBudget chat-POOL, where it has several pods
//
// Only fields that the operator owns are set. A Deployment that is autoscaled has no
// replicas, so that applying it never touches the number.
package render

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	metaac "k8s.io/client-go/applyconfigurations/meta/v1"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
)

// Labels and annotations that others may rely on.
const (
	LabelService   = v1alpha1.Group + "/service"
	LabelPool      = v1alpha1.Group + "/pool"
	LabelManagedBy = "app.kubernetes.io/managed-by"
	ManagedBy      = "tracegate"

	// AnnotationApplied is a digest of what was applied last. Where a resource has
	// another one, something may have to be taken away from it.
	AnnotationApplied = v1alpha1.Group + "/applied"
	// AnnotationReplicas says who owns the number of a Deployment's pods: operator or
	// autoscaler.
	AnnotationReplicas = v1alpha1.Group + "/replicas"
	ReplicasOperator   = "operator"
	ReplicasAutoscaler = "autoscaler"
)

// Name of what belongs to one pool.
func Name(ms *v1alpha1.MicroService, pool string) string { return ms.Name + "-" + pool }

// Objects are all resources of a service, what others need first. Autoscalers keep at
// least as many pods as floors say of their pools, where that is more than the service
// does.
func Objects(ms *v1alpha1.MicroService, floors map[string]int32) ([]*unstructured.Unstructured, error) {
	configs := []any{account(ms), service(ms), networkPolicy(ms)}
	for _, pool := range Pools(ms) {
		configs = append(configs, deployment(ms, pool), poolService(ms, pool))
		if pool.Autoscaling != nil {
			configs = append(configs, autoscaler(ms, pool, floors[pool.Name]))
		}
		if b := budget(ms, pool); b != nil {
			configs = append(configs, b)
		}
	}
	out := make([]*unstructured.Unstructured, 0, len(configs))
	for _, c := range configs {
		u, err := object(c)
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

// object takes an apply configuration and notes its digest.
func object(config any) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(config)
	if err != nil {
		return nil, fmt.Errorf("render resource: %w", err)
	}
	u := &unstructured.Unstructured{Object: content}
	if spec, ok := content["spec"].(map[string]any); ok && u.GetKind() == "NetworkPolicy" && spec["ingress"] == nil {
		spec["ingress"] = []any{} // is owned too: left out, whoever adds a rule would have it
	}
	js, err := json.Marshal(content) // keys are sorted
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", u.GetKind(), err)
	}
	sum := sha256.Sum256(js)
	annotations := u.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[AnnotationApplied] = hex.EncodeToString(sum[:8])
	u.SetAnnotations(annotations)
	return u, nil
}

func labels(ms *v1alpha1.MicroService, pool string) map[string]string {
	out := map[string]string{"app.kubernetes.io/name": ms.Name, LabelManagedBy: ManagedBy, LabelService: ms.Name}
	if pool != "" {
		out[LabelPool] = pool
	}
	return out
}

// selector finds pods; unlike labels it can never be changed.
func selector(ms *v1alpha1.MicroService, pool string) map[string]string {
	out := map[string]string{LabelService: ms.Name}
	if pool != "" {
		out[LabelPool] = pool
	}
	return out
}

func owner(ms *v1alpha1.MicroService) *metaac.OwnerReferenceApplyConfiguration {
	return metaac.OwnerReference().
		WithAPIVersion(v1alpha1.GroupVersion.String()).WithKind("MicroService").WithName(ms.Name).WithUID(ms.UID).
		WithController(true).WithBlockOwnerDeletion(true)
}

func labelSelector(match map[string]string) *metaac.LabelSelectorApplyConfiguration {
	return metaac.LabelSelector().WithMatchLabels(match)
}

// Owned says whether the resource belongs to the service.
func Owned(ms *v1alpha1.MicroService, o metav1.Object) bool {
	c := metav1.GetControllerOf(o)
	return c != nil && c.UID == ms.UID
}
