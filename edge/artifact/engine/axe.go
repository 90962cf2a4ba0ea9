package engine

import (
	"context"
	"log/slog"

	"github.com/tracegate/tracegate/edge/artifact"
)

// AxeCore returns the path of axe.min.js, which checks a page's accessibility from inside.
func AxeCore(ctx context.Context, log *slog.Logger) (string, error) {
	return artifact.Ensure(ctx, "", artifact.AxeCore(), log)
}
