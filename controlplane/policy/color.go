package policy

import (
	"github.com/tracegate/tracegate/mesh/group"
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

// checkColor checks what routing needs of the coloring rules: named cohorts with
// colors of their own.
func (d *document) checkColor(p color.Policy) {
	names, colors := map[string]bool{}, map[group.Color]string{}
	for i, c := range p.Cohorts {
		path := index("color.cohorts", i)
		switch {
		case c.Name == "":
			d.invalid(path+".name", "missing")
			continue
		case names[c.Name]:
			d.invalid(path+".name", "cohort %q appears twice", clip(c.Name))
			continue
		}
		names[c.Name] = true
		if _, ok := group.ParseColor(c.Color); c.Color != "" && !ok {
			d.invalid(path+".color", "%q is not eight lower-case hex digits", clip(c.Color))
			continue
		}
		v := ColorOf(c)
		if v == group.Baseline {
			d.invalid(path+".color", "%s is the color of baseline", v)
		}
		if other, taken := colors[v]; taken {
			d.invalid(path, "has the same color %s as cohort %q: set another by hand", v, clip(other))
		}
		colors[v] = c.Name
	}
}
