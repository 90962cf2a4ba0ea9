//go:build !unix

package artifact

import (
	"context"
	"log/slog"
)

// Lock is nothing here: no artifact is offered for a platform without flock.
func Lock(context.Context, string, *slog.Logger) (unlock func(), err error) { return func() {}, nil }
