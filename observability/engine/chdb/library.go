// Package chdb binds libchdb.so, the ClickHouse engine as a library, without cgo.
//
// It offers what observability/engine needs: connections, buffered and streaming
// queries, and streaming INSERT (chDB 26.7 or later). It knows nothing of HTTP and
// manages no threads: a [Conn] runs one statement at a time, and whoever opened it
// closes it.
//
// The library is a foreign body: it may abort the process that loads it, and it
// locks its data folder. So it is loaded by the child process `tracegate clickhouse`
// only. The official chdb-go binds an older C API without streaming INSERT, which
// leaves only INSERTs whose whole text is in memory; hence this binding.
package chdb

import (
	"fmt"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// ptr is a C pointer.
type ptr = unsafe.Pointer

// Library is a loaded libchdb.so. It cannot be unloaded, and its threads end with the
// process: chdb_shutdown, meant to join them, declines as long as a MergeTree table
// exists (26.7.3), so it is not bound.
type Library struct {
	// connecting serializes opening and closing of connections, which the engine
	// does not do by itself.
	connecting sync.Mutex

	connect       func(argc int32, argv ptr) ptr
	closeConn     func(conn ptr)
	query         func(conn, sql ptr, sqlLen uintptr, format ptr, formatLen uintptr) ptr
	queryParams   func(conn, sql ptr, sqlLen uintptr, format ptr, formatLen uintptr, names, nameLens, values, valueLens ptr, n uintptr) ptr
	stream        func(conn, sql ptr, sqlLen uintptr, format ptr, formatLen uintptr) ptr
	streamParams  func(conn, sql ptr, sqlLen uintptr, format ptr, formatLen uintptr, names, nameLens, values, valueLens ptr, n uintptr) ptr
	streamFetch   func(conn, result ptr) ptr
	streamCancel  func(conn, result ptr)
	destroyResult func(result ptr)
	resultBuffer  func(result ptr) ptr
	resultLength  func(result ptr) uintptr
	resultError   func(result ptr) string
	readRows      func(result ptr) uint64
	readBytes     func(result ptr) uint64
	writtenRows   func(result ptr) uint64
	writtenBytes  func(result ptr) uint64
	insert        func(conn, sql ptr, sqlLen uintptr, format ptr, formatLen uintptr) ptr
	insertAppend  func(stream, data ptr, n uintptr) int32
	insertDone    func(stream ptr) ptr
	insertCancel  func(stream ptr)
	insertError   func(stream ptr) string
	insertDestroy func(stream ptr)
	setSignals    func(enabled int32)
	version       func() string
}

// Open loads the library at path and switches its signal handlers off, which would
// otherwise replace those of the Go runtime.
func Open(path string) (*Library, error) {
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	l := &Library{}
	for _, f := range []struct {
		name string
		into any
	}{
		{"chdb_connect", &l.connect},
		{"chdb_close_conn", &l.closeConn},
		{"chdb_query_n", &l.query},
		{"chdb_query_with_params_n", &l.queryParams},
		{"chdb_stream_query_n", &l.stream},
		{"chdb_stream_query_with_params_n", &l.streamParams},
		{"chdb_stream_fetch_result", &l.streamFetch},
		{"chdb_stream_cancel_query", &l.streamCancel},
		{"chdb_destroy_query_result", &l.destroyResult},
		{"chdb_result_buffer", &l.resultBuffer},
		{"chdb_result_length", &l.resultLength},
		{"chdb_result_error", &l.resultError},
		{"chdb_result_storage_rows_read", &l.readRows},
		{"chdb_result_bytes_read", &l.readBytes},
		{"chdb_result_rows_written", &l.writtenRows},
		{"chdb_result_bytes_written", &l.writtenBytes},
		{"chdb_stream_insert_n", &l.insert},
		{"chdb_stream_append", &l.insertAppend},
		{"chdb_stream_done", &l.insertDone},
		{"chdb_stream_cancel_insert", &l.insertCancel},
		{"chdb_stream_insert_error", &l.insertError},
		{"chdb_destroy_insert_stream", &l.insertDestroy},
		{"chdb_set_signal_handlers_enabled", &l.setSignals},
		{"chdb_version", &l.version},
	} {
		sym, err := purego.Dlsym(handle, f.name)
		if err != nil {
			return nil, fmt.Errorf("load %s: no function %s (chDB 26.7 or later is needed): %w", path, f.name, err)
		}
		purego.RegisterFunc(f.into, sym)
	}
	l.setSignals(0)
	return l, nil
}

// Version is chDB's own version; SELECT version() gives ClickHouse's.
func (l *Library) Version() string { return l.version() }
