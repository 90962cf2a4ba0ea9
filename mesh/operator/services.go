package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/operator/render"
)

// What follows is what the operator may do, no more: `go tool task generate` makes its
// role of it.
//
// +kubebuilder:rbac:groups=mesh.tracegate.io,resources=microservices;trafficgroups;scalingpolicies,verbs=get;list;watch
// +kubebuilder:rbac:groups=mesh.tracegate.io,resources=microservices/status;trafficgroups/status;scalingpolicies/status,verbs=patch
// +kubebuilder:rbac:groups=mesh.tracegate.io,resources=microservices/finalizers,verbs=update
// +kubebuilder:rbac:groups="",resources=serviceaccounts,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups="",resources=services,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups=apps,resources=deployments,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=apps,resources=deployments/scale,verbs=patch
// +kubebuilder:rbac:groups=autoscaling,resources=horizontalpodautoscalers,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=tracegate,resources=leases,verbs=get;create;update
// +kubebuilder:rbac:groups="",namespace=tracegate,resources=events,verbs=create;patch

// services looks after MicroServices.
type services struct {
	applier
	recorder recorder
	log      *slog.Logger
}

// Reconcile brings one service to what its spec says.
func (s *services) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var ms v1alpha1.MicroService
	if err := s.client.Get(ctx, req.NamespacedName, &ms); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if ms.DeletionTimestamp != nil {
		return reconcile.Result{}, nil // its resources go with it
	}
	var policies v1alpha1.ScalingPolicyList
	if err := s.client.List(ctx, &policies, client.InNamespace(ms.Namespace)); err != nil {
		return reconcile.Result{}, fmt.Errorf("list scaling policies: %w", err)
	}
	now := time.Now()
	floors, ends := floors(policies.Items, ms.Name, now)
	want, err := render.Objects(&ms, floors)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("render: %w", err)
	}
	changes, err := s.sync(ctx, &ms, want)
	deployments, readErr := poolDeployments(want)
	err = errors.Join(err, s.raise(ctx, deployments, floors))
	next := status(&ms, deployments, err)
	err = errors.Join(err, readErr, s.writeStatus(ctx, &ms, next))
	s.recorder.tell(ctx, &ms, "Apply", changeNotices(ms.Namespace, changes)...)
	s.recorder.tell(ctx, &ms, "Look", notices(ms.Status.Conditions, next.Conditions)...)
	var result reconcile.Result
	if !ends.IsZero() {
		result.RequeueAfter = ends.Sub(now)
	}
	return result, err
}

// raise gives autoscaled pools the pods of their floor at once: an autoscaler looks
// every 15 s only. It never takes one away.
func (s *services) raise(ctx context.Context, deployments map[string]*appsv1.Deployment, floors map[string]int32) error {
	var errs []error
	for pool, d := range deployments {
		n := floors[pool]
		if d.Annotations[render.AnnotationReplicas] != render.ReplicasAutoscaler || d.Spec.Replicas == nil || *d.Spec.Replicas >= n || *d.Spec.Replicas == 0 {
			continue // an autoscaler leaves a pool that was scaled to nothing, too
		}
		patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n))
		if err := s.client.SubResource("scale").Patch(ctx, d, patch, fieldOwner); err != nil {
			errs = append(errs, fmt.Errorf("raise pool %s: %w", pool, err))
			continue
		}
		s.log.Info("pool raised before it is needed", "namespace", d.Namespace, "deployment", d.Name, "pods", n)
	}
	return errors.Join(errs...)
}

// ofPolicy are the services that a ScalingPolicy speaks of.
func ofPolicy(_ context.Context, o client.Object) []reconcile.Request {
	sp, ok := o.(*v1alpha1.ScalingPolicy)
	if !ok {
		return nil
	}
	of := func(name string) reconcile.Request {
		return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: sp.Namespace, Name: name}}
	}
	out := []reconcile.Request{of(sp.Spec.Target.Service)}
	for _, f := range sp.Status.Path {
		out = append(out, of(f.Service))
	}
	return out
}

// sync writes what differs, and says what did; one resource that cannot be written stops no other.
func (s *services) sync(ctx context.Context, ms *v1alpha1.MicroService, want []*unstructured.Unstructured) ([]change, error) {
	changes, err := s.prune(ctx, ms, want)
	errs := []error{err}
	for _, w := range want {
		c, err := s.apply(ctx, w)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if c == nil {
			continue
		}
		changes = append(changes, *c)
		if c.action == created {
			errs = append(errs, s.firstPods(ctx, ms, w))
		}
	}
	for _, c := range changes {
		s.report(ms, c)
	}
	return changes, errors.Join(errs...)
}

// firstPods lets a new pool start with as many pods as its autoscaler will keep at
// least, rather than with one until the autoscaler first looks at it.
func (s *services) firstPods(ctx context.Context, ms *v1alpha1.MicroService, d *unstructured.Unstructured) error {
	if d.GetAnnotations()[render.AnnotationReplicas] != render.ReplicasAutoscaler {
		return nil
	}
	for _, pool := range render.Pools(ms) {
		if pool.Name == d.GetLabels()[render.LabelPool] && pool.Floor() > 1 {
			return s.handOver(ctx, d, int64(pool.Floor()))
		}
	}
	return nil
}

func (s *services) report(ms *v1alpha1.MicroService, c change) {
	log := s.log.With("namespace", ms.Namespace, "service", ms.Name, "kind", c.kind, "name", c.name)
	if c.action == corrected {
		log.Warn("changed by somebody else, put back", "field", c.field)
		return
	}
	log.Info("resource written", "action", c.action)
}

// poolDeployments are those among the objects that are stored, by pool.
func poolDeployments(objects []*unstructured.Unstructured) (map[string]*appsv1.Deployment, error) {
	out := map[string]*appsv1.Deployment{}
	for _, o := range objects {
		if o.GetKind() != "Deployment" || o.GetResourceVersion() == "" {
			continue
		}
		d := &appsv1.Deployment{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, d); err != nil {
			return nil, fmt.Errorf("read deployment %s: %w", o.GetName(), err)
		}
		out[d.Labels[render.LabelPool]] = d
	}
	return out, nil
}

// writeStatus writes only what is new.
func (s *services) writeStatus(ctx context.Context, ms *v1alpha1.MicroService, next v1alpha1.MicroServiceStatus) error {
	if equality.Semantic.DeepEqual(ms.Status, next) {
		return nil
	}
	return applyStatus(ctx, s.client, ms, "MicroService", next)
}

// applyStatus writes a status by server-side apply.
func applyStatus(ctx context.Context, c client.Client, o client.Object, kind string, status any) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&struct {
		Status any `json:"status"`
	}{status})
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	u.SetNamespace(o.GetNamespace())
	u.SetName(o.GetName())
	err = c.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), fieldOwner, client.ForceOwnership)
	return client.IgnoreNotFound(err) // it was deleted meanwhile
}
