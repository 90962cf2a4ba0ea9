package alerts_test

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tracegate/tracegate/edge/artifact/engine"
)

// TestRules has Prometheus' own tool check the rules, and run them on made-up series.
func TestRules(t *testing.T) {
	e, err := engine.Prometheus(t.Context(), slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	for _, args := range [][]string{{"check", "rules", "groups.rules.yaml"}, {"test", "rules", "groups.test.yaml"}} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(e.Bin, "promtool"), args...)
		cmd.Env = append(os.Environ(), e.Env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
