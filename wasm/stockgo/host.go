//go:build wasip1 && !tinygo

package stockgo

import (
	"unsafe"

	_ "github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm" // its internals are linked to
)

// host is the SDK's internal.ProxyWasmHost with its named types spelled out. The two
// interfaces have the same methods in the same (alphabetical) order, so a value of
// one is laid out as a value of the other.
type host interface {
	ProxyLog(logLevel uint32, messageData *byte, messageSize int) uint32
	ProxySetProperty(pathData *byte, pathSize int, valueData *byte, valueSize int) uint32
	ProxyGetProperty(pathData *byte, pathSize int, returnValueData **byte, returnValueSize *int) uint32
	ProxySendLocalResponse(statusCode uint32, statusCodeDetailData *byte, statusCodeDetailsSize int, bodyData *byte, bodySize int, headersData *byte, headersSize int, grpcStatus int32) uint32
	ProxyGetSharedData(keyData *byte, keySize int, returnValueData **byte, returnValueSize *int, returnCas *uint32) uint32
	ProxySetSharedData(keyData *byte, keySize int, valueData *byte, valueSize int, cas uint32) uint32
	ProxyRegisterSharedQueue(nameData *byte, nameSize int, returnID *uint32) uint32
	ProxyResolveSharedQueue(vmIDData *byte, vmIDSize int, nameData *byte, nameSize int, returnID *uint32) uint32
	ProxyDequeueSharedQueue(queueID uint32, returnValueData **byte, returnValueSize *int) uint32
	ProxyEnqueueSharedQueue(queueID uint32, valueData *byte, valueSize int) uint32
	ProxyGetHeaderMapValue(mapType uint32, keyData *byte, keySize int, returnValueData **byte, returnValueSize *int) uint32
	ProxyAddHeaderMapValue(mapType uint32, keyData *byte, keySize int, valueData *byte, valueSize int) uint32
	ProxyReplaceHeaderMapValue(mapType uint32, keyData *byte, keySize int, valueData *byte, valueSize int) uint32
	ProxyContinueStream(streamType uint32) uint32
	ProxyCloseStream(streamType uint32) uint32
	ProxyRemoveHeaderMapValue(mapType uint32, keyData *byte, keySize int) uint32
	ProxyGetHeaderMapPairs(mapType uint32, returnValueData **byte, returnValueSize *int) uint32
	ProxySetHeaderMapPairs(mapType uint32, mapData *byte, mapSize int) uint32
	ProxyGetBufferBytes(bufferType uint32, start int, maxSize int, returnBufferData **byte, returnBufferSize *int) uint32
	ProxySetBufferBytes(bufferType uint32, start int, maxSize int, bufferData *byte, bufferSize int) uint32
	ProxyHttpCall(upstreamData *byte, upstreamSize int, headerData *byte, headerSize int, bodyData *byte, bodySize int, trailersData *byte, trailersSize int, timeout uint32, calloutIDPtr *uint32) uint32
	ProxyCallForeignFunction(funcNamePtr *byte, funcNameSize int, paramPtr *byte, paramSize int, returnData **byte, returnSize *int) uint32
	ProxySetTickPeriodMilliseconds(period uint32) uint32
	ProxySetEffectiveContext(contextID uint32) uint32
	ProxyDone() uint32
	ProxyDefineMetric(metricType uint32, metricNameData *byte, metricNameSize int, returnMetricIDPtr *uint32) uint32
	ProxyIncrementMetric(metricID uint32, offset int64) uint32
	ProxyRecordMetric(metricID uint32, value uint64) uint32
	ProxyGetMetric(metricID uint32, returnMetricValue *uint64) uint32
}

// currentHost is the SDK's variable, of which this is another name.
//
//go:linkname currentHost github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.currentHost
var currentHost host

// install makes the SDK's host calls end in this package.
//
// The method expressions keep the methods alive: the linker drops a method that
// nobody calls through an interface type which it knows the value to have, and all
// callers go through the SDK's type, which it cannot relate to ours. A dropped method
// traps with "unreachable method called".
func install() []any {
	currentHost = envoy{}
	return []any{
		host.ProxyLog, host.ProxySetProperty, host.ProxyGetProperty, host.ProxySendLocalResponse,
		host.ProxyGetSharedData, host.ProxySetSharedData, host.ProxyRegisterSharedQueue,
		host.ProxyResolveSharedQueue, host.ProxyDequeueSharedQueue, host.ProxyEnqueueSharedQueue,
		host.ProxyGetHeaderMapValue, host.ProxyAddHeaderMapValue, host.ProxyReplaceHeaderMapValue,
		host.ProxyContinueStream, host.ProxyCloseStream, host.ProxyRemoveHeaderMapValue,
		host.ProxyGetHeaderMapPairs, host.ProxySetHeaderMapPairs, host.ProxyGetBufferBytes,
		host.ProxySetBufferBytes, host.ProxyHttpCall, host.ProxyCallForeignFunction,
		host.ProxySetTickPeriodMilliseconds, host.ProxySetEffectiveContext, host.ProxyDone,
		host.ProxyDefineMetric, host.ProxyIncrementMetric, host.ProxyRecordMetric, host.ProxyGetMetric,
	}
}

const statusUnimplemented = 12

// envoy implements host by the ABI's imports (imports.go).
type envoy struct{}

func (envoy) ProxyLog(level uint32, p *byte, n int) uint32 {
	return proxyLog(level, ptr(p), uint32(n))
}

func (envoy) ProxySetProperty(p *byte, n int, v *byte, vn int) uint32 {
	return proxySetProperty(ptr(p), uint32(n), ptr(v), uint32(vn))
}

func (envoy) ProxyGetProperty(p *byte, n int, out **byte, outN *int) uint32 {
	var r result
	return r.into(out, outN, proxyGetProperty(ptr(p), uint32(n), r.data(), r.size()))
}

func (envoy) ProxySendLocalResponse(code uint32, details *byte, detailsN int, body *byte, bodyN int, headers *byte, headersN int, grpc int32) uint32 {
	return proxySendLocalResponse(code, ptr(details), uint32(detailsN), ptr(body), uint32(bodyN), ptr(headers), uint32(headersN), grpc)
}

func (envoy) ProxyGetSharedData(k *byte, kn int, out **byte, outN *int, cas *uint32) uint32 {
	var r result
	return r.into(out, outN, proxyGetSharedData(ptr(k), uint32(kn), r.data(), r.size(), unsafe.Pointer(cas)))
}

func (envoy) ProxySetSharedData(k *byte, kn int, v *byte, vn int, cas uint32) uint32 {
	return proxySetSharedData(ptr(k), uint32(kn), ptr(v), uint32(vn), cas)
}

func (envoy) ProxyRegisterSharedQueue(p *byte, n int, id *uint32) uint32 {
	return proxyRegisterSharedQueue(ptr(p), uint32(n), unsafe.Pointer(id))
}

func (envoy) ProxyResolveSharedQueue(vm *byte, vmN int, p *byte, n int, id *uint32) uint32 {
	return proxyResolveSharedQueue(ptr(vm), uint32(vmN), ptr(p), uint32(n), unsafe.Pointer(id))
}

func (envoy) ProxyDequeueSharedQueue(id uint32, out **byte, outN *int) uint32 {
	var r result
	return r.into(out, outN, proxyDequeueSharedQueue(id, r.data(), r.size()))
}

func (envoy) ProxyEnqueueSharedQueue(id uint32, v *byte, n int) uint32 {
	return proxyEnqueueSharedQueue(id, ptr(v), uint32(n))
}

func (envoy) ProxyGetHeaderMapValue(m uint32, k *byte, kn int, out **byte, outN *int) uint32 {
	var r result
	return r.into(out, outN, proxyGetHeaderMapValue(m, ptr(k), uint32(kn), r.data(), r.size()))
}

func (envoy) ProxyAddHeaderMapValue(m uint32, k *byte, kn int, v *byte, vn int) uint32 {
	return proxyAddHeaderMapValue(m, ptr(k), uint32(kn), ptr(v), uint32(vn))
}

func (envoy) ProxyReplaceHeaderMapValue(m uint32, k *byte, kn int, v *byte, vn int) uint32 {
	return proxyReplaceHeaderMapValue(m, ptr(k), uint32(kn), ptr(v), uint32(vn))
}

func (envoy) ProxyContinueStream(s uint32) uint32 { return proxyContinueStream(s) }

func (envoy) ProxyCloseStream(s uint32) uint32 { return proxyCloseStream(s) }

func (envoy) ProxyRemoveHeaderMapValue(m uint32, k *byte, kn int) uint32 {
	return proxyRemoveHeaderMapValue(m, ptr(k), uint32(kn))
}

func (envoy) ProxyGetHeaderMapPairs(m uint32, out **byte, outN *int) uint32 {
	var r result
	return r.into(out, outN, proxyGetHeaderMapPairs(m, r.data(), r.size()))
}

func (envoy) ProxySetHeaderMapPairs(m uint32, p *byte, n int) uint32 {
	return proxySetHeaderMapPairs(m, ptr(p), uint32(n))
}

func (envoy) ProxyGetBufferBytes(b uint32, start, limit int, out **byte, outN *int) uint32 {
	var r result
	return r.into(out, outN, proxyGetBufferBytes(b, uint32(start), uint32(limit), r.data(), r.size()))
}

func (envoy) ProxySetBufferBytes(b uint32, start, limit int, v *byte, n int) uint32 {
	return proxySetBufferBytes(b, uint32(start), uint32(limit), ptr(v), uint32(n))
}

// ProxyHttpCall is refused: the answer comes by a callback that is not exported.
func (envoy) ProxyHttpCall(*byte, int, *byte, int, *byte, int, *byte, int, uint32, *uint32) uint32 {
	return statusUnimplemented
}

func (envoy) ProxyCallForeignFunction(name *byte, nameN int, arg *byte, argN int, out **byte, outN *int) uint32 {
	var r result
	return r.into(out, outN, proxyCallForeignFunction(ptr(name), uint32(nameN), ptr(arg), uint32(argN), r.data(), r.size()))
}

func (envoy) ProxySetTickPeriodMilliseconds(ms uint32) uint32 {
	return proxySetTickPeriodMilliseconds(ms)
}

func (envoy) ProxySetEffectiveContext(id uint32) uint32 { return proxySetEffectiveContext(id) }

func (envoy) ProxyDone() uint32 { return proxyDone() }

func (envoy) ProxyDefineMetric(kind uint32, name *byte, n int, id *uint32) uint32 {
	return proxyDefineMetric(kind, ptr(name), uint32(n), unsafe.Pointer(id))
}

func (envoy) ProxyIncrementMetric(id uint32, offset int64) uint32 {
	return proxyIncrementMetric(id, offset)
}

func (envoy) ProxyRecordMetric(id uint32, value uint64) uint32 { return proxyRecordMetric(id, value) }

func (envoy) ProxyGetMetric(id uint32, value *uint64) uint32 {
	return proxyGetMetric(id, unsafe.Pointer(value))
}

func ptr(p *byte) unsafe.Pointer { return unsafe.Pointer(p) }
