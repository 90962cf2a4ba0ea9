// Package runtest runs parts beside a test. It is a leaf, for tests.
package runtest

import (
	"context"
	"testing"
)

// Background runs a part until the test ends, which fails where the part does.
func Background(tb testing.TB, run func(context.Context) error) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
}
