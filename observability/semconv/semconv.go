// Package semconv holds every name that two parts must agree on: headers at the
// edge, baggage keys, span attributes, log keys. An OpenTelemetry convention wins
// wherever one exists; what stands here is only what OpenTelemetry does not name.
//
// It is a leaf: constants only, no imports, so the edge filter can use it too.
package semconv

// Headers that the edge writes. Whatever a client sends under these names is
// removed before the filter runs.
const (
	// HeaderGroup carries the group id to the services and back to the client.
	// Its presence proves that the edge filter ran.
	HeaderGroup = "x-traffic-group"
	// HeaderPool names the pool that served a request. Services set it on responses.
	HeaderPool = "x-traffic-pool"
	// HeaderPlace is the user's place (two digits, see mesh/group.Place), in requests of
	// groups that are released step by step.
	HeaderPlace = "x-traffic-place"
	// HeaderClaims carries a verified JWT payload (base64url JSON, no padding) from
	// Envoy's jwt_authn filter to the edge filter, which removes it.
	HeaderClaims = "x-traffic-claims"
	// HeaderEdge names the Envoy a request came by, as mesh/placement reads it: an edge's
	// id and the generation of its process.
	HeaderEdge = "x-traffic-edge"
	// HeaderPrefix is shared by all of them: unknown headers below it are removed.
	HeaderPrefix = "x-traffic-"
)

// W3C headers.
const (
	HeaderTraceparent = "traceparent"
	HeaderTracestate  = "tracestate"
	HeaderBaggage     = "baggage"
	// HeaderTraceresponse tells the client the trace of its request, as the edge
	// colored it (W3C Trace Context, editor's draft of level 2, "traceresponse").
	HeaderTraceresponse = "traceresponse"
	// TracestateKey is the tracestate member under which the edge keeps the
	// client's own trace-id and span-id ("<32 hex>-<16 hex>").
	TracestateKey = "tg"
)

// Attributes and baggage keys. Baggage carries env and tenant; color and group
// follow from the TraceID.
const (
	Group  = "traffic.group"
	Color  = "traffic.color"
	Env    = "traffic.env"
	Tenant = "traffic.tenant"
	Pool   = "traffic.pool"
	// Entry marks the span a user waits for: an edge request that is no upgrade,
	// or one WebSocket command. Group SLIs count entry spans only, so a request
	// that crosses several services is counted once.
	Entry = "traffic.entry"
	// BaggagePrefix is shared by the baggage keys the edge owns.
	BaggagePrefix = "traffic."
)

// Metrics by which the instances of a pool say how full they are: gauges, 1 is full.
const (
	// CPUUtilization is OpenTelemetry's: CPU time by the time that went by and the CPUs that
	// the process may use. Where it is cut by a mode, the modes add up.
	CPUUtilization = "process.cpu.utilization"
	// QueueUtilization is of a bounded queue, which the attribute Queue names.
	QueueUtilization = "traffic.queue.utilization"
	Queue            = "traffic.queue"
)

// Names of services as they appear in service.name.
const (
	ServiceEdge         = "edge"
	ServiceCore         = "core"
	ServiceControlPlane = "controlplane"
	ServiceOperator     = "operator"
)

// Pools.
const (
	PoolBaseline = "baseline"
	PoolCanary   = "canary"
	PoolIsolated = "isolated"
)
