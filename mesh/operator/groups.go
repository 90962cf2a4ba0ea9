package operator

import (
	"cmp"
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/group"
)

// groups tells TrafficGroups the id by which telemetry names them. Their conditions are the
// control plane's, who knows what decisions go by.
type groups struct{ client client.Client }

// Reconcile names one group.
func (g *groups) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var tg v1alpha1.TrafficGroup
	if err := g.client.Get(ctx, req.NamespacedName, &tg); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	next := v1alpha1.TrafficGroupStatus{ObservedGeneration: tg.Generation, Group: string(GroupID(tg.Spec.Selector))}
	if tg.Status.ObservedGeneration == next.ObservedGeneration && tg.Status.Group == next.Group {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{}, applyStatus(ctx, g.client, &tg, "TrafficGroup", next)
}

// GroupID is the id that the edge's filter gives to the requests of a selector.
func GroupID(s v1alpha1.GroupSelector) group.ID {
	if s.ID != "" {
		return group.ID(s.ID)
	}
	color, _ := group.ParseColor(cmp.Or(s.Color, "00000000")) // the API server has checked it
	return group.Group{Color: color, Env: s.Env, Tenant: s.Tenant}.ID()
}
