//go:build wasip1 && !tinygo

package stockgo

import "unsafe"

// arena is the memory that the host fills with what it returns from a call. It is
// used again by the next callback from the host, so a request costs no garbage; a
// filter must copy what it keeps longer.
type arena struct {
	chunk []byte
	used  int
	// older are chunks that earlier answers of the same callback point into.
	older [][]byte
}

// chunkSize is what the arena keeps between callbacks, in bytes.
const chunkSize = 64 << 10

//go:wasmexport proxy_on_memory_allocate
func onMemoryAllocate(size uint32) unsafe.Pointer {
	if free := memory.chunk[memory.used:]; int(size) < len(free) {
		memory.used += int(size)
		return unsafe.Pointer(unsafe.SliceData(free))
	}
	return memory.grow(int(size))
}

// grow is rare, so it stays out of the code that is not.
//
//go:noinline
func (a *arena) grow(size int) unsafe.Pointer {
	a.older = append(a.older, a.chunk)
	a.chunk, a.used = make([]byte, max(size, chunkSize)), size
	return unsafe.Pointer(unsafe.SliceData(a.chunk))
}

// reset starts a callback.
func (a *arena) reset() {
	a.used = 0
	if a.older != nil {
		a.shrink()
	}
}

//go:noinline
func (a *arena) shrink() {
	a.older = nil
	if len(a.chunk) > chunkSize {
		a.chunk = nil
	}
}

// result is where the host puts the address and the size of what it returns, four
// bytes each; eight are room for an address as Go has it. It has no pointer for Go to
// look after: the address points into the arena, which holds the memory.
type result struct {
	address uint64
	n       uint32
}

func (r *result) data() unsafe.Pointer { return unsafe.Pointer(&r.address) }
func (r *result) size() unsafe.Pointer { return unsafe.Pointer(&r.n) }

func (r *result) pointer() *byte { return *(**byte)(unsafe.Pointer(&r.address)) }

func (r *result) into(data **byte, size *int, status uint32) uint32 {
	*data, *size = r.pointer(), int(r.n)
	return status
}
