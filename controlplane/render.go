package controlplane

import (
	"fmt"
	"slices"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/xds"
)

// renderer makes the plans of some edges, one after the other.
type renderer struct {
	builder  xds.Builder
	services []string // of the last plan
	retired  []string // services that are gone, in the last plan
}

// render makes a plan of documents and of where groups are, and its resources.
func (r *renderer) render(pol policy.Policy, e policy.Endpoints, of plan.Groups, edge plan.Edge) (plan.Plan, *xds.Snapshot, error) {
	p, err := plan.Build(pol, e, of, edge)
	if err != nil {
		return p, nil, fmt.Errorf("plan: %w", err)
	}
	names := serviceNames(pol)
	p.Retired = retire(r.retired, r.services, names)
	snapshot, err := r.builder.Build(p)
	if err != nil {
		return p, nil, fmt.Errorf("render plan: %w", err)
	}
	r.services, r.retired = names, p.Retired
	return p, snapshot, nil
}

// served notes that an edge had services of another plan, which the next one tells it are
// gone.
func (r *renderer) served(names []string) {
	for _, name := range names {
		if !slices.Contains(r.services, name) {
			r.services = append(slices.Clip(r.services), name)
		}
	}
}

// another is a renderer for an edge that has what this one made last.
func (r *renderer) another() renderer {
	return renderer{services: slices.Clone(r.services), retired: slices.Clone(r.retired)}
}

func serviceNames(p policy.Policy) []string {
	var out []string
	for _, s := range p.Services {
		out = append(out, s.Name)
	}
	return out
}

// maxRetired bounds how many services that are gone edges are told of. An edge that
// was away while more of them went refuses new routes until it is started again.
const maxRetired = 64

// retire is which services are gone, the last to go last.
func retire(retired, before, now []string) []string {
	out := slices.Clone(retired)
	for _, name := range before {
		if !slices.Contains(now, name) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	out = slices.DeleteFunc(out, func(name string) bool { return slices.Contains(now, name) })
	return out[max(0, len(out)-maxRetired):]
}
