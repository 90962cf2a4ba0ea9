// Package stockgo lets a filter that is written on the tetratelabs proxy-wasm SDK
// be compiled by the Go toolchain itself instead of TinyGo, as a wasip1 reactor:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared
//
// Outside TinyGo the SDK sends every host call to a package variable of an
// interface type, which its tests set to an emulator. This package declares an
// interface with the same methods, links its own variable onto the SDK's, and
// implements it by the proxy-wasm ABI 0.2.0; it also exports the callbacks that
// Envoy calls. TinyGo builds leave it out, as the SDK then has all of that itself.
//
// The layout of the SDK's interface is not an API. It is pinned by go.mod to the
// version that [SDKVersion] names, and a test compares method by method.
//
// Only four callbacks are exported: start, configuration, tick and request headers.
// The host does not call what is not exported, and the cheapest callback is none:
// each costs a busy Envoy about as much as two header operations. What follows:
//
//   - A VM has one plugin context, the one configured last, with one HTTP context for
//     all streams. Envoy shares a VM between plugins of the same vm_id and code, and
//     keeps the old one of an updated plugin for a while; streams of the old one get
//     the new policy, which is what an update wants. Plugins that are to differ need
//     a vm_id of their own.
//   - A context's OnHttpRequestBody, OnHttpResponseHeaders, OnHttpStreamDone and so on
//     are never called, nor are the functions for TCP.
//   - A panic at a request is recovered and the request goes on ([Panicked]): for Envoy a
//     VM that ends is one that no longer is there for anybody. What Go cannot recover
//     from (out of memory, a stack without end) ends the VM.
//   - Calls that are answered by a callback (HTTP callouts) are refused.
//
// Caller: wasm/filter. The alternatives that lost: TinyGo is one more toolchain,
// with its own garbage collector and reflection; a copy of the SDK is a fork.
package stockgo

// SDKVersion is the version of the SDK whose insides this package knows.
const SDKVersion = "v0.24.0"
