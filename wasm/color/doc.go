// Package color decides, for one request at the edge, its color, env, tenant and
// with them its group, and what its traceparent, tracestate and baggage must be
// from here on.
//
// It is pure: no SDK, no clock, no logger; randomness is an argument. [Compile]
// turns a [Policy] into an [Assigner] once per configuration; the edge filter
// (wasm/filter) feeds it the headers of each request, wasm/route turns its answer
// into header operations, and the control plane uses Compile to refuse a policy
// before it is sent.
//
// Nothing that a client sends is an error here. Whatever cannot be read counts as
// absent, is reported in [Assignment.Events] and leads to baseline or to a default.
//
// Design. Headers are collected by name into numbered slots that Compile laid out,
// so rules compare strings they already have and the filter may fetch all headers
// with one host call. The alternative, a lookup function called by each rule, costs
// a crossing of the Wasm border per rule. Groups are computed once for each (cohort,
// tenant) that occurs and remembered, because md5 is the dearest step.
package color
