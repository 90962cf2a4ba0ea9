package store_test

import (
	"fmt"
	"testing"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/store"
)

// BenchmarkGroup asks who may, and stores messages, in groups of two sizes. The cost of
// either must not grow with the group, once its members are remembered.
func BenchmarkGroup(b *testing.B) {
	for _, engine := range []struct {
		name string
		cfg  func(testing.TB) store.Config
	}{{"sqlite", sqliteConfig}, {"postgres", postgresConfig}} {
		for _, members := range []int{10, chat.MaxMembers - 1} {
			s := open(b, engine.cfg(b))
			owner := person(b, s, "owner")
			group(b, s, "g", owner)
			s.FillGroup(b, "g", members)
			b.Run(fmt.Sprintf("first/%s/%d", engine.name, members), func(b *testing.B) { // the members have changed
				for b.Loop() {
					if _, err := s.StandingOf(b.Context(), "g", owner.ID); err != nil {
						b.Fatal(err)
					}
				}
			})
			if _, err := s.Standing(b.Context(), "g"); err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("standing/%s/%d", engine.name, members), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := s.Standing(b.Context(), "g"); err != nil {
						b.Fatal(err)
					}
				}
			})
			n := 0
			b.Run(fmt.Sprintf("append/%s/%d", engine.name, members), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					n++
					appendAll(b, s, record("g", owner, fmt.Sprint(n)))
				}
			})
		}
	}
}
