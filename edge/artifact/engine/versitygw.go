package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
)

// The S3 server that file tests run against. The sum is that of go.sum; the go command
// checks the module's own dependencies against the go.sum it brings along.
const (
	versitygwModule  = "github.com/versity/versitygw"
	versitygwVersion = "v1.8.0"
	versitygwSum     = "h1:au+wI+aybno/STsQiSm35Uu6Q6iK5MWReQxgO6SEMFc="
)

// VersityGW returns the path of versitygw, an S3 server over a folder. It is built from
// its module once, which takes a minute or two, because there is no package of it.
func VersityGW(ctx context.Context, log *slog.Logger) (string, error) {
	if path, err := exec.LookPath("versitygw"); err == nil {
		return path, nil
	}
	dir, err := cached(ctx, "versitygw-"+versitygwVersion, "versitygw", log, func(dir string) error {
		module := versitygwModule + "@" + versitygwVersion
		out, err := run(ctx, dir, []string{"GOFLAGS=-mod=mod"}, "go", "mod", "download", "-json", module)
		if err != nil {
			return err
		}
		var got struct{ Sum, Dir string }
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			return fmt.Errorf("read answer of go mod download: %w", err)
		}
		if got.Sum != versitygwSum {
			return fmt.Errorf("%s has sum %s, want %s", module, got.Sum, versitygwSum)
		}
		_, err = run(ctx, got.Dir, []string{"GOFLAGS=-mod=readonly", "GOWORK=off", "CGO_ENABLED=0"},
			"go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "versitygw"), "./cmd/versitygw")
		return err
	})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "versitygw")
	return path, os.Chmod(path, 0o755)
}
