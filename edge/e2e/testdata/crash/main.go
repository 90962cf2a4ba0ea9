// Command crash is a filter that names a group, and then panics for a request with the
// header x-crash: panic, and ends its virtual machine with x-crash: fatal.
package main

import (
	"sync"

	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm"
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/tracegate/tracegate/wasm/stockgo"
)

func main() {}

func init() { stockgo.SetVMContext(&vm{}) }

type vm struct{ types.DefaultVMContext }

func (*vm) NewPluginContext(uint32) types.PluginContext { return &plugin{} }

type plugin struct{ types.DefaultPluginContext }

func (*plugin) OnPanic(any) { _ = proxywasm.RemoveHttpRequestHeader("x-traffic-group") }

func (*plugin) NewHttpContext(uint32) types.HttpContext { return &stream{} }

type stream struct{ types.DefaultHttpContext }

func (*stream) OnHttpRequestHeaders(int, bool) types.Action {
	_ = proxywasm.ReplaceHttpRequestHeader("x-traffic-group", "abcdef")
	switch how, _ := proxywasm.GetHttpRequestHeader("x-crash"); how {
	case "panic":
		panic("asked to panic")
	case "fatal":
		new(sync.Mutex).Unlock() // a fatal error of Go, which nothing recovers from
	}
	return types.ActionContinue
}
