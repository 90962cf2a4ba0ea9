package operator

import (
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/operator/render"
)

const (
	// fieldOwner owns everything the operator writes.
	fieldOwner = client.FieldOwner("tracegate")
	// handOver owns nothing but the number of pods a new autoscaler starts from. If the
	// operator let go of the number with nobody else to own it, it would become 1.
	handOver = client.FieldOwner("tracegate-handover")
)

// change is something that was written.
type change struct {
	action string // one of the reasons of events
	kind   string
	name   string
	field  string // of a Corrected: what had been changed by somebody else
}

// The reasons of events about changes.
const (
	created   = "Created"
	updated   = "Updated"
	corrected = "DriftCorrected"
	deleted   = "Deleted"
)

// applier writes what differs. Its reader is a cache, so finding that nothing does
// asks the API server nothing.
type applier struct {
	client client.Client
	scheme *runtime.Scheme
}

// apply brings one resource to what want says. want holds what is stored afterwards.
func (a applier) apply(ctx context.Context, want *unstructured.Unstructured) (*change, error) {
	have, err := a.read(ctx, want)
	if err != nil {
		return nil, err
	}
	c := &change{action: created, kind: want.GetKind(), name: want.GetName()}
	autoscaled := want.GetAnnotations()[render.AnnotationReplicas] == render.ReplicasAutoscaler
	if have != nil {
		field := differs(have.Object, want.Object)
		switch {
		case field == "":
			want.Object = have.Object
			return nil, nil
		case have.GetAnnotations()[render.AnnotationApplied] != want.GetAnnotations()[render.AnnotationApplied]:
			c.action = updated
		default:
			c.action, c.field = corrected, field
		}
		if autoscaled && have.GetAnnotations()[render.AnnotationReplicas] == render.ReplicasOperator {
			n, _, _ := unstructured.NestedInt64(have.Object, "spec", "replicas")
			if err := a.handOver(ctx, want, n); err != nil {
				return nil, err
			}
		}
	}
	if err := a.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(want), fieldOwner, client.ForceOwnership); err != nil {
		return nil, fmt.Errorf("apply %s %s: %w", c.kind, c.name, err)
	}
	return c, nil
}

// handOver gives the number of a Deployment's pods away, unchanged.
func (a applier) handOver(ctx context.Context, d *unstructured.Unstructured, replicas int64) error {
	u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"replicas": replicas}}}
	u.SetGroupVersionKind(d.GroupVersionKind())
	u.SetNamespace(d.GetNamespace())
	u.SetName(d.GetName())
	if err := a.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), handOver, client.ForceOwnership); err != nil {
		return fmt.Errorf("hand number of pods of %s over: %w", d.GetName(), err)
	}
	return nil
}

// read returns nil where there is none. A resource that lacks our label is not in the
// cache, and gets it back.
func (a applier) read(ctx context.Context, want *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	typed, err := a.scheme.New(want.GroupVersionKind())
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", want.GetKind(), err)
	}
	obj := typed.(client.Object) // all our kinds are
	err = a.client.Get(ctx, client.ObjectKeyFromObject(want), obj)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read %s %s: %w", want.GetKind(), want.GetName(), err)
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", want.GetKind(), want.GetName(), err)
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(want.GroupVersionKind()) // caches leave it out
	return u, nil
}

// prune deletes what belongs to the service and is not wanted any more: pools that
// are gone, autoscalers and budgets that were switched off.
func (a applier) prune(ctx context.Context, ms *v1alpha1.MicroService, want []*unstructured.Unstructured) ([]change, error) {
	wanted := map[string]bool{}
	for _, w := range want {
		wanted[w.GetKind()+"/"+w.GetName()] = true
	}
	var out []change
	var errs []error
	for _, l := range []struct {
		kind string
		list client.ObjectList
	}{
		{"HorizontalPodAutoscaler", &autoscalingv2.HorizontalPodAutoscalerList{}}, // before the Deployment that it would scale
		{"PodDisruptionBudget", &policyv1.PodDisruptionBudgetList{}},
		{"Deployment", &appsv1.DeploymentList{}},
		{"Service", &corev1.ServiceList{}},
	} {
		objects, err := a.list(ctx, ms, l.list)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, o := range objects {
			if wanted[l.kind+"/"+o.GetName()] || !render.Owned(ms, o) || o.GetDeletionTimestamp() != nil {
				continue
			}
			uid := o.GetUID()
			err := a.client.Delete(ctx, o, client.Preconditions{UID: &uid}, client.PropagationPolicy("Background"))
			if err != nil && !apierrors.IsNotFound(err) {
				errs = append(errs, fmt.Errorf("delete %s %s: %w", l.kind, o.GetName(), err))
				continue
			}
			out = append(out, change{action: deleted, kind: l.kind, name: o.GetName()})
		}
	}
	return out, errors.Join(errs...)
}

// byService is what caches find the resources of a service by, whatever their number.
const byService = "service"

func indexByService(ctx context.Context, m ctrl.Manager) error {
	for _, o := range []client.Object{&autoscalingv2.HorizontalPodAutoscaler{}, &policyv1.PodDisruptionBudget{}, &appsv1.Deployment{}, &corev1.Service{}} {
		of := func(o client.Object) []string { return []string{o.GetLabels()[render.LabelService]} }
		if err := m.GetFieldIndexer().IndexField(ctx, o, byService, of); err != nil {
			return fmt.Errorf("find resources by service: %w", err)
		}
	}
	return nil
}

func (a applier) list(ctx context.Context, ms *v1alpha1.MicroService, list client.ObjectList) ([]client.Object, error) {
	if err := a.client.List(ctx, list, client.InNamespace(ms.Namespace), client.MatchingFields{byService: ms.Name}); err != nil {
		return nil, fmt.Errorf("list resources: %w", err)
	}
	var out []client.Object
	switch l := list.(type) {
	case *autoscalingv2.HorizontalPodAutoscalerList:
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	case *policyv1.PodDisruptionBudgetList:
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	case *appsv1.DeploymentList:
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	case *corev1.ServiceList:
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	}
	return out, nil
}
