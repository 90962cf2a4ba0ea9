// Package route says which header operations carry an assignment: the routes of the
// edge match what is set here (x-traffic-group, the color in traceparent), and the
// services read it.
//
// It is pure and knows no SDK. Each operation is a crossing of the Wasm border, so
// it asks for the fewest that make the request right. Caller: wasm/filter.
package route

import (
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/wasm/color"
)

// Headers takes the operations. They are methods and not a list because building a
// list costs a Wasm filter more than acting.
type Headers interface {
	// Set makes a header have one value, whatever it was and however often.
	Set(name, value string)
	// Remove takes a header away, if it is there.
	Remove(name string)
}

// Apply makes the request carry a.
func Apply(h Headers, a *color.Assignment) {
	var ops [4]struct{ name, value string }
	ops[0].name, ops[0].value = semconv.HeaderGroup, string(a.ID)
	n := 1
	if a.Kept&color.KeptTraceparent == 0 {
		ops[n].name, ops[n].value = semconv.HeaderTraceparent, a.Traceparent()
		n++
	}
	if a.Kept&color.KeptTracestate == 0 {
		ops[n].name, ops[n].value = semconv.HeaderTracestate, a.Tracestate()
		n++
	}
	if a.Kept&color.KeptBaggage == 0 {
		ops[n].name, ops[n].value = semconv.HeaderBaggage, a.Baggage()
		n++
	}
	for i := range ops[:n] {
		if ops[i].value == "" {
			h.Remove(ops[i].name)
		} else {
			h.Set(ops[i].name, ops[i].value)
		}
	}
	if a.Claims {
		h.Remove(semconv.HeaderClaims)
	}
}
