package metricsapi

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/group"
)

// Groups knows the ids of TrafficGroups, from a watch.
type Groups struct{ cache cache.Cache }

// NewGroups watches nothing before [Groups.Run].
func NewGroups(cluster *rest.Config) (*Groups, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("watch groups: %w", err)
	}
	c, err := cache.New(cluster, cache.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("watch groups: %w", err)
	}
	return &Groups{cache: c}, nil
}

// Run watches until ctx is done.
func (g *Groups) Run(ctx context.Context) error { return g.cache.Start(ctx) }

// ID is for [API.Group]. A group that the operator has not named yet is unknown.
func (g *Groups) ID(ctx context.Context, namespace, name string) (group.ID, bool) {
	var tg v1alpha1.TrafficGroup
	if err := g.cache.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &tg); err != nil {
		return "", false
	}
	return group.ID(tg.Status.Group), tg.Status.Group != ""
}
