package policy

import (
	"errors"

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
