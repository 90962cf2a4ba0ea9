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
	h.Set(semconv.HeaderGroup, string(a.ID))
	if a.Place != "" {
		h.Set(semconv.HeaderPlace, a.Place)
	}
	if a.Kept&color.KeptTraceparent == 0 {
		h.Set(semconv.HeaderTraceparent, a.Traceparent())
	}
	if a.Kept&color.KeptTracestate == 0 {
		if s := a.Tracestate(); s != "" {
			h.Set(semconv.HeaderTracestate, s)
		} else {
			h.Remove(semconv.HeaderTracestate)
		}
	}
	if a.Kept&color.KeptBaggage == 0 {
		h.Set(semconv.HeaderBaggage, a.Baggage())
	}
	if a.Claims {
		h.Remove(semconv.HeaderClaims)
	}
}

// Clear makes the request carry nothing that the edge says of it.
func Clear(h Headers) {
	for _, name := range []string{semconv.HeaderGroup, semconv.HeaderPlace, semconv.HeaderClaims} {
		h.Remove(name)
	}
}
