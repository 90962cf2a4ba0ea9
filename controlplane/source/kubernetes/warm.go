package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/group"
)

// +kubebuilder:rbac:groups=mesh.tracegate.io,resources=scalingpolicies,verbs=list;patch

// Warmer asks the operator for room: it notes at the ScalingPolicies of a pool what the pool
// will get besides its rate, and until when. So a pool without a policy is left alone, no
// policy is raised beyond its bounds, and room that nobody asks for again ends by itself.
type Warmer struct {
	client    client.Client
	namespace string
	now       func() time.Time
}

// NewWarmer asks nobody yet.
func NewWarmer(cluster *rest.Config, namespace string) (*Warmer, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("make room: %w", err)
	}
	c, err := client.New(cluster, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("make room: %w", err)
	}
	return &Warmer{client: c, namespace: namespace, now: time.Now}, nil
}

// Warm asks for room in all pools; one that cannot be asked for stops no other.
func (w *Warmer) Warm(ctx context.Context, _ group.ID, room []decide.Load, during time.Duration) error {
	var policies v1alpha1.ScalingPolicyList
	if err := w.client.List(ctx, &policies, client.InNamespace(w.namespace)); err != nil {
		return fmt.Errorf("list scaling policies: %w", err)
	}
	until := w.now().Add(during).UTC().Format(time.RFC3339)
	var errs []error
	for _, load := range room {
		for _, sp := range policies.Items {
			if sp.Spec.Target.Service != load.Service || sp.Spec.Target.Pool != load.Pool {
				continue
			}
			patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{
				v1alpha1.AnnotationRoom: strconv.FormatFloat(load.Requests, 'f', 1, 64), v1alpha1.AnnotationRoomUntil: until,
			}}})
			if err != nil {
				return fmt.Errorf("note room: %w", err)
			}
			target := &v1alpha1.ScalingPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: sp.Namespace, Name: sp.Name}}
			if err := w.client.Patch(ctx, target, client.RawPatch(types.MergePatchType, patch), client.FieldOwner("tracegate-controlplane")); err != nil {
				errs = append(errs, fmt.Errorf("note room at scaling policy %s: %w", sp.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}
