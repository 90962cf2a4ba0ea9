//go:build nokubernetes

package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/tracegate/tracegate/controlplane"
)

// errNoKubernetes is what a binary without Kubernetes' libraries says: they are 77 of its
// 179 MB.
var errNoKubernetes = errors.New("this tracegate was built without Kubernetes (tag nokubernetes)")

func runOperator(context.Context, Config, *slog.Logger) error { return errNoKubernetes }

func fromKubernetes(cfg Config, _ *controlplane.Deps, _ *slog.Logger) error {
	if cfg.Kubernetes.Source != "" {
		return errNoKubernetes
	}
	return nil
}
