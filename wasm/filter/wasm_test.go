package main

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/proxytest"
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/tracegate/tracegate/wasm/module"
)

// vms are the two ways to run the filter: its Go code in this process, and the
// module that the Go toolchain makes of it, in wazero.
var vms = []struct {
	name string
	vm   func(t *testing.T) types.VMContext
}{
	{"native", func(*testing.T) types.VMContext { return &vm{} }},
	{"wasm", wasmVM},
}

// compiled is one VM for all tests: it takes a second to compile, and one VM that
// gets one plugin after the other is what Envoy has as well.
var compiled struct {
	once sync.Once
	vm   proxytest.WasmVMContext
	err  error
}

func wasmVM(t *testing.T) types.VMContext {
	if testing.Short() {
		t.Skip("builds the module")
	}
	compiled.once.Do(func() {
		out := filepath.Join(t.TempDir(), "filter.wasm")
		cmd := exec.Command("go", "build", "-tags", "proxytest", "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, ".")
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
		if msg, err := cmd.CombinedOutput(); err != nil {
			t.Logf("%s", msg)
			compiled.err = err
			return
		}
		raw, err := os.ReadFile(out)
		if err != nil {
			compiled.err = err
			return
		}
		compiled.vm, compiled.err = proxytest.NewWasmVMContext(asCommand(raw))
	})
	if compiled.err != nil {
		t.Fatal(compiled.err)
	}
	return compiled.vm
}

// wasmFile is the module that Envoy gets.
func wasmFile(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("runs Envoy")
	}
	path, err := module.Ensure(t.Context(), filepath.Join(os.TempDir(), "tracegate-filter-test"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// asCommand renames a reactor's _initialize to _start, which is what proxytest calls
// (Envoy calls either).
func asCommand(wasm []byte) []byte {
	const exports = 7
	out := bytes.Clone(wasm[:8])
	for rest := wasm[8:]; len(rest) > 0; {
		size, n := binary.Uvarint(rest[1:])
		body := rest[1+n : 1+n+int(size)]
		id := rest[0]
		rest = rest[1+n+int(size):]
		if id == exports {
			body = bytes.Replace(body, []byte("\x0b_initialize"), []byte("\x06_start"), 1)
		}
		out = append(binary.AppendUvarint(append(out, id), uint64(len(body))), body...)
	}
	return out
}
