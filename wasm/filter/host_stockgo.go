//go:build wasip1 && !tinygo

package main

import (
	"runtime/debug"

	"github.com/tracegate/tracegate/wasm/color"
	"github.com/tracegate/tracegate/wasm/stockgo"
)

// The module's only entry: a reactor's main is never called.
func init() {
	// A request leaves no garbage behind, so the heap grows by policies only.
	debug.SetGCPercent(200)
	stockgo.SetVMContext(&vm{})
}

// load reads all headers of the current request with one host call.
func load(r *color.Request) { r.Load(stockgo.RequestHeaders()) }

// headers are those of the current request.
type headers struct{}

func (headers) Set(name, value string) { stockgo.SetRequestHeader(name, value) }
func (headers) Remove(name string)     { stockgo.RemoveRequestHeader(name) }
