// Command crash is a filter that names a group, and ends its virtual machine for a
// request with the header x-crash.
package main

import (
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm"
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/tracegate/tracegate/wasm/stockgo"
)

func main() {}

func init() { stockgo.SetVMContext(&vm{}) }

type vm struct{ types.DefaultVMContext }

func (*vm) NewPluginContext(uint32) types.PluginContext { return &plugin{} }

type plugin struct{ types.DefaultPluginContext }

func (*plugin) NewHttpContext(uint32) types.HttpContext { return &stream{} }

type stream struct{ types.DefaultHttpContext }

func (*stream) OnHttpRequestHeaders(int, bool) types.Action {
	if _, err := proxywasm.GetHttpRequestHeader("x-crash"); err == nil {
		panic("asked to crash")
	}
	_ = proxywasm.ReplaceHttpRequestHeader("x-traffic-group", "abcdef")
	return types.ActionContinue
}
