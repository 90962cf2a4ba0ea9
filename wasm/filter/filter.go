package main

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"

	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm"
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/tracegate/tracegate/wasm/color"
	"github.com/tracegate/tracegate/wasm/route"
)

type vm struct{ types.DefaultVMContext }

func (*vm) NewPluginContext(uint32) types.PluginContext { return &plugin{} }

// plugin is one policy at work.
type plugin struct {
	types.DefaultPluginContext
	assigner *color.Assigner
	request  *color.Request
	random   *randomness
	counters counters
	stream   stream
	panicked bool // and it has been said
}

// flushMillis is how often counters are handed to Envoy.
const flushMillis = 1000

func (p *plugin) OnPluginStart(int) types.OnPluginStartStatus {
	p.counters.define()
	if err := p.start(); err != nil {
		proxywasm.LogCritical("policy refused: " + err.Error())
		p.counters.add(configErrors)
		p.counters.flush()
		return types.OnPluginStartStatusFailed
	}
	return types.OnPluginStartStatusOK
}

func (p *plugin) start() error {
	raw, err := proxywasm.GetPluginConfiguration()
	if err != nil && !errors.Is(err, types.ErrorStatusNotFound) {
		return errors.Join(errors.New("read configuration"), err)
	}
	if p.assigner, err = compile(raw); err != nil {
		return err
	}
	if p.random, err = newRandom(); err != nil {
		return err
	}
	p.request = p.assigner.NewRequest()
	p.stream.plugin = p
	if err := proxywasm.SetTickPeriodMilliSeconds(flushMillis); err != nil {
		// Envoy's capability restrictions may forbid it.
		p.counters.eager = true
		proxywasm.LogWarn("no ticks, so each request pays for its counters: " + err.Error())
	}
	return nil
}

// OnPanic makes the request one without a group: baseline's, or refused by the routes where
// the policy says closed. Only the first is logged, since a client may have found out how.
func (p *plugin) OnPanic(reason any) {
	route.Clear(headers{})
	p.counters.add(panics)
	if !p.panicked {
		p.panicked = true
		proxywasm.LogCritical(fmt.Sprintf("a request has no group, the filter panicked: %v\n%s", reason, debug.Stack()))
	}
}

func (p *plugin) OnTick() { p.counters.flush() }

func (p *plugin) OnPluginDone() bool {
	p.counters.flush()
	return true
}

// NewHttpContext returns the same context for all streams: nothing of a stream
// outlives its one callback.
func (p *plugin) NewHttpContext(uint32) types.HttpContext { return &p.stream }

type stream struct {
	types.DefaultHttpContext
	plugin *plugin
}

func (s *stream) OnHttpRequestHeaders(int, bool) types.Action {
	p := s.plugin
	load(p.request)
	if p.assigner.ReadsPeer() {
		p.request.Peer = peer()
	}
	a := p.assigner.Assign(p.request, p.random.next())
	route.Apply(headers{}, a)
	p.counters.assigned(a)
	return types.ActionContinue
}

// peer is the address of the connection's other end, as Envoy sees it after its
// rules for X-Forwarded-For; the zero Addr where it has none.
func peer() netip.Addr {
	raw, err := proxywasm.GetProperty([]string{"source", "address"})
	if err != nil {
		return netip.Addr{}
	}
	ap, err := netip.ParseAddrPort(string(raw))
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}
