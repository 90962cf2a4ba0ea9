//go:build wasip1 && !tinygo && proxytest

package stockgo

// The SDK's proxytest calls two more callbacks than Envoy needs. Only the module
// that its tests build has them.

//go:wasmexport proxy_on_context_create
func onContextCreate(_, _ uint32) {}

//go:wasmexport proxy_on_done
func onDone(uint32) uint32 { return asInt(plugin.OnPluginDone()) }
