//go:build wasip1 && !tinygo

package stockgo

import "github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/types"

// The state of the VM, which has one thread. The ABI's callbacks have no receiver,
// so this is where a filter's globals are.
var (
	memory  arena
	vm      types.VMContext     = &types.DefaultVMContext{}
	plugin  types.PluginContext = &types.DefaultPluginContext{}
	stream  types.HttpContext   = &types.DefaultHttpContext{}
	methods                     = install()
)

// SetVMContext is to a stock Go build what proxywasm.SetVMContext is to TinyGo. Call
// it from an init function: a reactor's main is never called.
func SetVMContext(c types.VMContext) { vm = c }

// Panicked is a plugin context that wants to know of a panic in a request's callback. The
// request goes on when OnPanic returns; until then its headers can be changed.
type Panicked interface{ OnPanic(reason any) }

//go:wasmexport proxy_abi_version_0_2_0
func abiVersion() {}

//go:wasmexport proxy_on_vm_start
func onVMStart(_, size uint32) uint32 {
	memory.reset()
	return asInt(vm.OnVMStart(int(size)))
}

// onConfigure starts a plugin context, and ends the one before it.
//
//go:wasmexport proxy_on_configure
func onConfigure(id, size uint32) uint32 {
	memory.reset()
	next := vm.NewPluginContext(id)
	ok := next.OnPluginStart(int(size))
	if ok {
		plugin.OnPluginDone()
		plugin, stream = next, next.NewHttpContext(0)
	}
	return asInt(ok)
}

//go:wasmexport proxy_on_tick
func onTick(uint32) {
	memory.reset()
	plugin.OnTick()
}

// onRequestHeaders lets a request go on that the filter panics at (the result is then
// types.ActionContinue), so that the VM outlives it.
//
//go:wasmexport proxy_on_request_headers
func onRequestHeaders(_, n, end uint32) uint32 {
	memory.reset()
	defer recovered()
	return uint32(stream.OnHttpRequestHeaders(int(n), end != 0))
}

func recovered() {
	reason := recover()
	if reason == nil {
		return
	}
	if p, ok := plugin.(Panicked); ok {
		p.OnPanic(reason)
	}
}

func asInt[T ~bool](ok T) uint32 {
	if ok {
		return 1
	}
	return 0
}
