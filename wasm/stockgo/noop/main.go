// Command noop is a filter that does nothing, built like the edge filter: what it
// costs is what Envoy and the bridge cost. Configured with "calls" it makes the edge
// filter's calls to the host, without thinking: what that costs is what any Wasm
// filter that does this work must cost. wasm/bench measures both.
package main

func main() {}
