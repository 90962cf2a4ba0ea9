package ctl

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/core/protocol"
)

// Drains carries out orders about instances; its errors are as those of [Orders].
type Drains interface {
	// Drain returns when the order is durable and on its way to the edges.
	Drain(ctx context.Context, o ctlapi.DrainOrder) (ctlapi.Drain, error)
	// Undrain returns the drain that ended, likewise.
	Undrain(ctx context.Context, o ctlapi.DrainOrder) (ctlapi.Drain, error)
}

func (a *api) drain(do func(context.Context, ctlapi.DrainOrder) (ctlapi.Drain, error)) reader {
	return func(w http.ResponseWriter, r *http.Request) (change, error) {
		var o ctlapi.DrainOrder
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&o); err != nil {
			return change{}, protocol.NewError(protocol.CodeInvalidArgument, "", "body is not the JSON of an order: "+err.Error())
		}
		return change{
			target: o.Service + "/" + o.Pool + "/" + o.Instance, by: o.By, reason: o.Reason,
			do: func(ctx context.Context, by string) (any, string, error) {
				o.By = by
				d, err := do(ctx, o)
				return d, "", err
			},
		}, checkOrder(o.Reason, o.By, o.ForMS)
	}
}

// endpoints are the instances that edges were last given.
func (a *api) endpoints(w http.ResponseWriter, r *http.Request) {
	b, err := a.basis()
	if err != nil {
		a.fail(w, r, err)
		return
	}
	out := []ctlapi.Endpoint{}
	for _, s := range b.Plan.Services {
		for _, pool := range s.Pools {
			for i, instance := range slices.Concat(pool.Endpoints, pool.Backup) {
				e := ctlapi.Endpoint{Service: s.Name, Pool: pool.Name, Instance: instance, Zone: pool.Zones[instance], State: ctlapi.EndpointServes}
				switch {
				case i >= len(pool.Endpoints):
					e.State = ctlapi.EndpointBackup
				case slices.Contains(pool.Draining, instance):
					e.State = ctlapi.EndpointDrains
				}
				out = append(out, e)
			}
		}
	}
	reply(w, out)
}
