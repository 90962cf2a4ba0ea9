// Command noop is a filter that does nothing, built like the edge filter: what it
// costs is what Envoy and the bridge cost. wasm/bench measures it.
package main

func main() {}
