package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/operator/render"
)

// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;patch

// Gauge asks a pod for a gauge.
type Gauge func(ctx context.Context, addr, metric string) (float64, error)

const (
	costEvery   = 10 * time.Second
	costTimeout = 2 * time.Second
	costAtOnce  = 16 // pods asked at one time
)

// costs tells Kubernetes which pods to delete first: it asks pods for a gauge and notes it
// at them as pod-deletion-cost. Nothing is written while that stays about the same. A pod
// that does not answer keeps the cost it has; one without has 0, and goes first.
type costs struct {
	client client.Client
	gauge  Gauge
	log    *slog.Logger
}

// run looks every ten seconds until ctx is done.
func (c *costs) run(ctx context.Context) error {
	tick := time.NewTicker(costEvery)
	defer tick.Stop()
	for {
		if err := c.look(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("costs of deleting pods are not all up to date", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *costs) look(ctx context.Context) error {
	var services v1alpha1.MicroServiceList
	if err := c.client.List(ctx, &services); err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	var errs []error
	for i := range services.Items {
		if ms := &services.Items[i]; ms.Spec.ScaleIn != nil {
			errs = append(errs, c.service(ctx, ms))
		}
	}
	return errors.Join(errs...)
}

func (c *costs) service(ctx context.Context, ms *v1alpha1.MicroService) error {
	var port int32
	for _, p := range ms.Spec.Ports {
		if p.Name == ms.Spec.ScaleIn.Port {
			port = p.Port
		}
	}
	var pods corev1.PodList
	if err := c.client.List(ctx, &pods, client.InNamespace(ms.Namespace), client.MatchingLabels{render.LabelService: ms.Name}); err != nil {
		return fmt.Errorf("list pods of %s: %w", ms.Name, err)
	}
	var work errgroup.Group
	work.SetLimit(costAtOnce)
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Status.Phase != corev1.PodRunning || pod.Status.PodIP == "" || pod.DeletionTimestamp != nil {
			continue
		}
		work.Go(func() error {
			ask, cancel := context.WithTimeout(ctx, costTimeout)
			defer cancel()
			v, err := c.gauge(ask, net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(port))), ms.Spec.ScaleIn.Metric)
			if err != nil {
				return fmt.Errorf("ask pod %s: %w", pod.Name, err)
			}
			return c.note(ctx, pod, cost(v))
		})
	}
	return work.Wait()
}

func (c *costs) note(ctx context.Context, pod *corev1.Pod, cost string) error {
	if pod.Annotations[corev1.PodDeletionCost] == cost || cost == "0" && pod.Annotations[corev1.PodDeletionCost] == "" {
		return nil
	}
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, corev1.PodDeletionCost, cost))
	target := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}}
	if err := c.client.Patch(ctx, target, patch, fieldOwner); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("note cost of pod %s: %w", pod.Name, err)
	}
	return nil
}

// cost is the gauge in a tenth more or less, so that it is not written again with each
// connection.
func cost(gauge float64) string {
	if math.IsNaN(gauge) || gauge < 1 {
		return "0"
	}
	step := math.Round(math.Log(gauge) / math.Log(1.1))
	return strconv.Itoa(int(min(math.Round(math.Pow(1.1, step)), math.MaxInt32)))
}
