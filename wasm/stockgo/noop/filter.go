//go:build wasip1 && !tinygo

package main

import (
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm"
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/wasm/stockgo"
)

func init() { stockgo.SetVMContext(&vm{}) }

type vm struct{ types.DefaultVMContext }

func (*vm) NewPluginContext(uint32) types.PluginContext { return &plugin{} }

type plugin struct {
	types.DefaultPluginContext
	calls bool
}

func (p *plugin) OnPluginStart(int) types.OnPluginStartStatus {
	config, err := proxywasm.GetPluginConfiguration()
	p.calls = err == nil && string(config) == "calls"
	return types.OnPluginStartStatusOK
}

func (p *plugin) NewHttpContext(uint32) types.HttpContext {
	if p.calls {
		return &caller{}
	}
	return &types.DefaultHttpContext{}
}

// caller makes the edge filter's host calls, with values that are always the same.
type caller struct{ types.DefaultHttpContext }

func (*caller) OnHttpRequestHeaders(int, bool) types.Action {
	_ = stockgo.RequestHeaders()
	stockgo.SetRequestHeader(semconv.HeaderGroup, "000000")
	stockgo.SetRequestHeader(semconv.HeaderTraceparent, "00-00000000000000000000000000000001-0000000000000001-03")
	stockgo.SetRequestHeader(semconv.HeaderTracestate, "tg=0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331")
	stockgo.SetRequestHeader(semconv.HeaderBaggage, "traffic.env=canary,traffic.tenant=search,user.kind=free")
	return types.ActionContinue
}
