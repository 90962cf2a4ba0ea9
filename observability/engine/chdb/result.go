package chdb

import (
	"errors"
	"unsafe"
)

// Result is the encoded outcome of a statement, in memory of the engine.
type Result struct {
	l *Library
	r ptr // nil where a statement gives nothing, e.g. SET
}

// Bytes is the encoded result, valid until Free.
func (r *Result) Bytes() []byte {
	if r.r == nil {
		return nil
	}
	n := r.l.resultLength(r.r)
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(r.l.resultBuffer(r.r)), n)
}

// ReadRows and ReadBytes are what was read from tables.
func (r *Result) ReadRows() uint64  { return r.count(r.l.readRows) }
func (r *Result) ReadBytes() uint64 { return r.count(r.l.readBytes) }

// WrittenRows and WrittenBytes are what was written to tables, views not counted.
func (r *Result) WrittenRows() uint64  { return r.count(r.l.writtenRows) }
func (r *Result) WrittenBytes() uint64 { return r.count(r.l.writtenBytes) }

// Free gives the memory back. A second call does nothing.
func (r *Result) Free() {
	if r.r != nil {
		r.l.destroyResult(r.r)
		r.r = nil
	}
}

func (r *Result) count(f func(ptr) uint64) uint64 {
	if r.r == nil {
		return 0
	}
	return f(r.r)
}

func (r *Result) err() error {
	if r.r == nil {
		return nil
	}
	if msg := r.l.resultError(r.r); msg != "" {
		return errors.New(msg)
	}
	return nil
}
