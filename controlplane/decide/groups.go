package decide

import (
	"fmt"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
)

// GroupPolicy is what holds for one group instead of the policy's own. What is not set is
// as in the policy.
//
// The objectives are a yardstick: while the group is judged, all that it is compared with
// (its tenant in baseline, the rest of its pool, those in the isolated pool) is held against
// them too. So a group of strict objectives is not moved for a fault that others have as
// well, nor to a pool that would not keep them.
type GroupPolicy struct {
	Name string `yaml:"name"` // what people call it

	// Which group: its id as telemetry shows it, or env and tenant, with a color where it
	// is a cohort's.
	ID     string `yaml:"id,omitempty"`
	Color  string `yaml:"color,omitempty"` // 8 hex digits; 00000000 where empty
	Env    string `yaml:"env,omitempty"`
	Tenant string `yaml:"tenant,omitempty"`

	Mode          Mode          `yaml:"mode,omitempty"`
	MaxErrorRatio *float64      `yaml:"maxErrorRatio,omitempty"` // 0 to 1
	MaxP95        time.Duration `yaml:"maxP95,omitempty"`
	MaxP99        time.Duration `yaml:"maxP99,omitempty"`
}

// Group is the id of the group that it is about; an error names the key that is wrong.
func (g GroupPolicy) Group() (group.ID, *FieldError) {
	named := g.Env != "" || g.Tenant != "" || g.Color != ""
	switch {
	case g.ID == "" && !named:
		return "", &FieldError{"id", "a group has an id, or env and tenant"}
	case g.ID != "" && named:
		return "", &FieldError{"id", "a group has either an id, or env and tenant"}
	case g.ID != "" && !group.ID(g.ID).Valid():
		return "", &FieldError{"id", fmt.Sprintf("%q is not 6 lower-case hex digits", g.ID)}
	case g.ID != "":
		return group.ID(g.ID), nil
	case g.Env == "":
		return "", &FieldError{"env", "a group without an id has both env and tenant"}
	case g.Tenant == "":
		return "", &FieldError{"tenant", "a group without an id has both env and tenant"}
	}
	of := group.Group{Env: g.Env, Tenant: g.Tenant}
	if g.Color != "" {
		c, ok := group.ParseColor(g.Color)
		if !ok {
			return "", &FieldError{"color", fmt.Sprintf("%q is not 8 lower-case hex digits", g.Color)}
		}
		of.Color = c
	}
	return of.ID(), nil
}

// For is the policy as it holds for one group.
func (p Policy) For(id group.ID) Policy {
	for _, g := range p.Groups {
		if is, err := g.Group(); err == nil && is == id {
			return g.over(p)
		}
	}
	return p
}

// over is p with what the group has of its own.
func (g GroupPolicy) over(p Policy) Policy {
	if g.Mode != "" {
		p.Mode = g.Mode
	}
	if g.MaxErrorRatio != nil {
		p.MaxErrorRatio = *g.MaxErrorRatio
	}
	if g.MaxP95 > 0 {
		p.MaxP95 = g.MaxP95
	}
	if g.MaxP99 > 0 {
		p.MaxP99 = g.MaxP99
	}
	return p
}

// special are the policies of groups that have one of their own.
func (p Policy) special() map[group.ID]Policy {
	out := make(map[group.ID]Policy, len(p.Groups))
	for _, g := range p.Groups {
		if id, err := g.Group(); err == nil {
			out[id] = g.over(p)
		}
	}
	return out
}

// maxGroupPolicies bounds what each evaluation goes through.
const maxGroupPolicies = 1000

func (p Policy) validateGroups() []*FieldError {
	if len(p.Groups) > maxGroupPolicies {
		return []*FieldError{{"groups", fmt.Sprintf("%d groups, more than %d", len(p.Groups), maxGroupPolicies)}}
	}
	var errs []*FieldError
	names, owners := map[string]bool{}, map[group.ID]string{}
	for i, g := range p.Groups {
		bad := func(key, format string, args ...any) {
			errs = append(errs, &FieldError{fmt.Sprintf("groups[%d].%s", i, key), fmt.Sprintf(format, args...)})
		}
		if g.Name == "" || len(g.Name) > 253 {
			bad("name", "%d characters, not 1 to 253", len(g.Name))
		}
		if names[g.Name] {
			bad("name", "group %q appears twice", g.Name)
		}
		names[g.Name] = true
		id, err := g.Group()
		switch owner, taken := owners[id]; {
		case err != nil:
			bad(err.Field, "%s", err.Err)
		case taken:
			bad("name", "%q is the same group, %s, as %q", g.Name, id, owner)
		default:
			owners[id] = g.Name
		}
		if g.Mode != "" && !g.Mode.known() {
			bad("mode", "%q is none of %q, %q and %q", g.Mode, ModeObserve, ModeRecommend, ModeAct)
		}
		if r := g.MaxErrorRatio; r != nil && !(*r >= 0 && *r <= 1) {
			bad("maxErrorRatio", "%v is not between 0 and 1", *r)
		}
		if g.MaxP95 < 0 {
			bad("maxP95", "%v is not above 0", g.MaxP95)
		}
		if g.MaxP99 < 0 {
			bad("maxP99", "%v is not above 0", g.MaxP99)
		}
	}
	return errs
}
