package policy

import (
	"errors"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/wasm/color"
)

// ColorOf returns the color of a cohort: the one its policy fixes, else the one
// of its name.
func ColorOf(c color.Cohort) group.Color {
	if v, ok := group.ParseColor(c.Color); ok {
		return v
	}
	return group.ColorOf(c.Name)
}

// Homes maps the color of each cohort that has a pool of its own to it.
func (p *Policy) Homes() map[group.Color]string {
	out := map[group.Color]string{}
	for _, c := range p.Color.Cohorts {
		if pool := p.CohortPools[c.Name]; pool != "" {
			out[ColorOf(c)] = pool
		}
	}
	return out
}

// InstancesOf maps each service whose pools are the instances of another one to that one.
func (p *Policy) InstancesOf() map[string]string {
	out := map[string]string{}
	for _, s := range p.Services {
		if s.Instances != "" {
			out[s.Name] = s.Instances
		}
	}
	return out
}

// Isolatable are the services that have a pool to isolate in.
func (p *Policy) Isolatable() map[string]bool {
	out := map[string]bool{}
	for _, s := range p.Services {
		for _, pool := range s.Pools {
			if pool.Name == semconv.PoolIsolated {
				out[s.Name] = true
			}
		}
	}
	return out
}

// checkColor refuses what the filter would refuse: both compile the same policy
// with the same code.
func (d *document) checkColor(p color.Policy) {
	if _, err := color.Compile(p); err != nil {
		d.fieldErrors("color", err)
	}
}

// fieldErrors takes a joined error apart.
func (d *document) fieldErrors(path string, err error) {
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		for _, e := range many.Unwrap() {
			d.fieldErrors(path, e)
		}
		return
	}
	var field *color.FieldError
	if errors.As(err, &field) {
		d.invalid(path+"."+field.Field, "%s", field.Problem)
		return
	}
	d.invalid(path, "%v", err)
}
