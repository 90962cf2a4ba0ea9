//go:build wasip1 && !tinygo

package stockgo

import "unsafe"

const requestHeaders = 0 // the ABI's map type

// RequestHeaders returns all request headers as the ABI lays them out (see the
// SDK's internal.DeserializeMap). They are valid until the callback returns.
//
// This and the next two do what functions of the SDK do, without values to build and
// layers to cross: a request pays for each instruction that is not in the cache. One
// call for all headers costs what two for one header each do.
func RequestHeaders() []byte {
	got.address, got.n = 0, 0
	proxyGetHeaderMapPairs(requestHeaders, got.data(), got.size())
	return unsafe.Slice(got.pointer(), int(got.n))
}

// got is a variable of the package so that its address is no allocation.
var got result

// SetRequestHeader sets a header, whatever it was and however often.
func SetRequestHeader(name, value string) {
	proxyReplaceHeaderMapValue(requestHeaders,
		unsafe.Pointer(unsafe.StringData(name)), uint32(len(name)),
		unsafe.Pointer(unsafe.StringData(value)), uint32(len(value)))
}

// RemoveRequestHeader removes a header.
func RemoveRequestHeader(name string) {
	proxyRemoveHeaderMapValue(requestHeaders, unsafe.Pointer(unsafe.StringData(name)), uint32(len(name)))
}
