//go:build !unix

package artifact

import (
	"context"
	"log/slog"
)

// lock is nothing here: no artifact is offered for a platform without flock.
func lock(context.Context, string, *slog.Logger) (unlock func(), err error) { return func() {}, nil }
