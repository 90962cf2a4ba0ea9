// Command filter is the edge filter: a Wasm module inside Envoy that colors each
// request, names its group and writes the trace headers that carry both.
//
// It only joins parts: wasm/color decides, wasm/route says which headers change,
// and what differs between toolchains is in host_*.go (stock Go by wasm/stockgo,
// TinyGo and native tests by the SDK). wasm/module builds it; Envoy loads it.
//
// One policy (color.Policy as JSON) is the plugin's configuration. A policy that
// cannot be compiled is refused, so that Envoy keeps the configuration it has and
// says so to the control plane; it is also logged and counted.
//
// A request at which the code panics passes without a group, counted as traffic_panics;
// the next one is colored again.
//
// Counters go through Envoy's Wasm stats as wasmcustom.traffic_*. An increment is a
// call to the host, so they are added up here and handed over once a second: per
// request they cost nothing, and at most a second of counts is lost with a VM.
package main

// main is for the linker: a reactor's main is never called (host_stockgo.go), and
// under TinyGo host_tinygo.go has it.
