package engine

import (
	"context"
	"log/slog"
	"os/exec"
	"path/filepath"

	"github.com/tracegate/tracegate/edge/artifact"
)

// Valkey has valkey-server.
func Valkey(ctx context.Context, log *slog.Logger) (Engine, error) {
	path, err := exec.LookPath("valkey-server")
	if err != nil {
		path, err = artifact.Ensure(ctx, "", artifact.Valkey(), log)
	}
	return Engine{Bin: filepath.Dir(path)}, err
}
