package main

import (
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm"

	"github.com/tracegate/tracegate/wasm/color"
)

// counter indexes the metrics. Every request is one assigned, one baseline or one panic.
type counter int

const (
	assignedRequests counter = iota
	baselineRequests
	trustedRequests
	malformedTraceparents
	tracestatesCut
	baggagesCut
	valuesRejected
	claimsRejected
	configErrors
	panics
	countersEnd
)

// names are what Envoy shows as wasmcustom.<name>.
func names() [countersEnd]string {
	return [countersEnd]string{
		assignedRequests:      "traffic_assigned",
		baselineRequests:      "traffic_baseline",
		trustedRequests:       "traffic_trusted",
		malformedTraceparents: "traffic_malformed_traceparent",
		tracestatesCut:        "traffic_tracestate_cut",
		baggagesCut:           "traffic_baggage_cut",
		valuesRejected:        "traffic_value_rejected",
		claimsRejected:        "traffic_claims_rejected",
		configErrors:          "traffic_config_errors",
		panics:                "traffic_panics",
	}
}

// counters add up what Envoy has not been told yet.
type counters struct {
	metrics [countersEnd]proxywasm.MetricCounter
	pending [countersEnd]uint64
	eager   bool // hand over at once, for want of ticks
}

func (c *counters) define() {
	for i, name := range names() {
		c.metrics[i] = proxywasm.DefineCounterMetric(name)
	}
}

func (c *counters) add(i counter) { c.pending[i]++ }

func (c *counters) assigned(a *color.Assignment) {
	if a.Cohort == "" {
		c.pending[baselineRequests]++
	} else {
		c.pending[assignedRequests]++
	}
	if a.Events != 0 || c.eager {
		c.events(a.Events)
	}
}

// events is what few requests need.
func (c *counters) events(e color.Events) {
	for i, event := range [...]color.Events{
		trustedRequests:       color.Trusted,
		malformedTraceparents: color.MalformedTraceparent,
		tracestatesCut:        color.TracestateCut,
		baggagesCut:           color.BaggageCut,
		valuesRejected:        color.ValueRejected,
		claimsRejected:        color.ClaimsRejected,
	} {
		if event&e != 0 {
			c.pending[i]++
		}
	}
	if c.eager {
		c.flush()
	}
}

func (c *counters) flush() {
	for i, n := range c.pending {
		if n > 0 {
			c.metrics[i].Increment(n)
			c.pending[i] = 0
		}
	}
}
