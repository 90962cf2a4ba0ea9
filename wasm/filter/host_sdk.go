//go:build !wasip1 || tinygo

package main

import (
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm"

	"github.com/tracegate/tracegate/wasm/color"
)

// load reads all headers of the current request with one host call.
func load(r *color.Request) {
	r.Reset()
	headers, _ := proxywasm.GetHttpRequestHeaders() // an error means none
	for _, h := range headers {
		r.Add(h[0], h[1])
	}
}

// headers are those of the current request.
type headers struct{}

func (headers) Set(name, value string) { _ = proxywasm.ReplaceHttpRequestHeader(name, value) }
func (headers) Remove(name string)     { _ = proxywasm.RemoveHttpRequestHeader(name) }
