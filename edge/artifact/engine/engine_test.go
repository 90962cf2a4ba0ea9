//go:build unix

package engine_test

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tracegate/tracegate/edge/artifact/engine"
)

func logger(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func missing(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip(err)
}

func says(t *testing.T, e engine.Engine, program, want string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(e.Bin, program), "--version")
	cmd.Env = append(os.Environ(), e.Env...)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%s --version: %v: %s", program, err, out)
	}
}

func TestRedis(t *testing.T) {
	e, err := engine.Redis(t.Context(), logger(t))
	missing(t, err)
	says(t, e, "redis-server", "Redis server")
	says(t, e, "redis-cli", "redis-cli")
}

func TestValkey(t *testing.T) {
	e, err := engine.Valkey(t.Context(), logger(t))
	missing(t, err)
	says(t, e, "valkey-server", "Valkey server")
}

func TestPostgreSQL(t *testing.T) {
	e, err := engine.PostgreSQL(t.Context(), logger(t))
	missing(t, err)
	for _, program := range []string{"postgres", "initdb", "psql"} {
		says(t, e, program, "PostgreSQL")
	}
}

func TestPrometheus(t *testing.T) {
	e, err := engine.Prometheus(t.Context(), logger(t))
	missing(t, err)
	says(t, e, "promtool", "promtool")
}

func TestKafka(t *testing.T) {
	classpath, err := engine.Kafka(t.Context(), logger(t))
	missing(t, err)
	out, err := exec.CommandContext(t.Context(), "java", "-cp", classpath, "kafka.Kafka", "--version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), engine.KafkaVersion) {
		t.Errorf("kafka --version: %v: %s", err, out)
	}
}

func TestChromium(t *testing.T) {
	path, err := engine.Chromium(t.Context(), logger(t))
	missing(t, err)
	if out, err := exec.CommandContext(t.Context(), path, "--version").CombinedOutput(); err != nil || !strings.Contains(string(out), "Chrom") {
		t.Errorf("%s --version: %v: %s", path, err, out)
	}
}

// TestKubernetes does not build it, which takes minutes.
func TestKubernetes(t *testing.T) {
	e, err := engine.FindKubernetes()
	if err != nil {
		t.Skip(err)
	}
	for program, want := range map[string]string{
		"kube-apiserver": "v" + engine.KubernetesVersion, "kube-controller-manager": "v" + engine.KubernetesVersion,
		"kube-scheduler": "v" + engine.KubernetesVersion, "etcd": "etcd Version", "kwok": "kwok",
	} {
		says(t, e, program, want)
	}
}

func TestAxeCore(t *testing.T) {
	path, err := engine.AxeCore(t.Context(), logger(t))
	missing(t, err)
	source, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(source), "axe v4") {
		t.Errorf("%s: %v, %.100q", path, err, source)
	}
}
