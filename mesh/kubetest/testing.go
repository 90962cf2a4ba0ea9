package kubetest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"

	"github.com/tracegate/tracegate/edge/artifact/engine"
)

// required is set by `go tool task test:kube`, which builds Kubernetes: there no test
// may be skipped.
const required = "TRACEGATE_TEST_KUBE"

// Shared is one cluster for all tests of a package: `TestMain` calls Main, tests call
// Cluster and keep to a namespace of their own.
type Shared struct {
	cluster *Cluster
	missing error
}

// Main runs the tests of a package with a cluster, and returns the exit code.
func (s *Shared) Main(cfg Config, run func() int) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if _, s.missing = engine.FindKubernetes(); s.missing != nil && os.Getenv(required) == "" {
		return run()
	}
	dir, err := os.MkdirTemp("", "kubetest")
	if err != nil {
		log.Error("make folder", "error", err)
		return 1
	}
	defer os.RemoveAll(dir)
	if s.cluster, err = Start(context.Background(), cfg, dir, log); err != nil {
		log.Error("tests need Kubernetes", "error", err)
		return 1
	}
	defer s.cluster.Close()
	return run()
}

// Cluster skips the test where there is none.
func (s *Shared) Cluster(tb testing.TB) *Cluster {
	tb.Helper()
	if s.cluster == nil {
		tb.Skip(s.missing)
	}
	return s.cluster
}

// New runs a cluster for one test.
func New(tb testing.TB, cfg Config) *Cluster {
	tb.Helper()
	if _, err := engine.FindKubernetes(); err != nil && os.Getenv(required) == "" {
		tb.Skip(err)
	}
	c, err := Start(tb.Context(), cfg, tb.TempDir(), slog.New(slog.NewTextHandler(tb.Output(), nil)))
	if err != nil {
		tb.Fatal(fmt.Errorf("start Kubernetes: %w", err))
	}
	tb.Cleanup(c.Close)
	return c
}
