//go:build !linux || !(amd64 || arm64)

package bpf

import (
	"io"
	"log/slog"
	"runtime"
)

type nowhere struct{}

func (nowhere) Watch(map[uint32]uint32) error { return nil }
func (nowhere) Close() error                  { return nil }

// Confine does nothing here: nothing will be loaded.
func Confine() (io.Closer, error) { return nil, nil }

// openProbes says why there are no probes here.
func openProbes(Config, io.Closer, *owners, *slog.Logger) (kernelSide, []loaded, error) {
	return nowhere{}, allOff("kernel probes need Linux on amd64 or arm64, this is " + runtime.GOOS + " on " + runtime.GOARCH), nil
}
