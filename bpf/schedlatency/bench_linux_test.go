//go:build linux && (amd64 || arm64)

package schedlatency

import (
	"testing"

	"github.com/tracegate/tracegate/bpf/bpftest"
)

// BenchmarkSwitch is two threads that wake each other in turn, with the probe and
// without it: what the probe costs is the difference, and the way into it is in it.
func BenchmarkSwitch(b *testing.B) {
	b.Run("without", func(b *testing.B) { pingPong(b, b.N) })
	b.Run("unwatched", func(b *testing.B) {
		env := bpftest.Env(b)
		env.VerifierLog = nil
		if err := env.Watch.Set(nil); err != nil {
			b.Fatal(err)
		}
		open(b, env, 0)
		b.ResetTimer()
		pingPong(b, b.N)
	})
	b.Run("watched", func(b *testing.B) {
		env := bpftest.Env(b)
		env.VerifierLog = nil
		open(b, env, 0)
		b.ResetTimer()
		pingPong(b, b.N)
	})
}
