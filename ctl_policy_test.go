package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestApplyIsPolicyWithAFile: both read the file before they call anybody, and only
// "policy" goes without one.
func TestApplyIsPolicyWithAFile(t *testing.T) {
	data := t.TempDir()
	if err := os.Mkdir(filepath.Join(data, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "secrets", secretControl), []byte("token"), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(data, "policy.yaml")
	if err := os.WriteFile(bad, []byte("servces: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := newCommand(io.Discard, io.Discard)
		cmd.SetArgs(append([]string{"--data", data, "ctl"}, args...))
		err := cmd.ExecuteContext(t.Context())
		if err == nil {
			t.Fatalf("ctl %q succeeds", args)
		}
		return err.Error()
	}
	for _, name := range []string{"policy", "apply"} {
		if says := run(name, bad); !strings.Contains(says, `servces: unknown key, did you mean "services"?`) {
			t.Errorf("ctl %s: %s", name, says)
		}
	}
	if says := run("apply"); !strings.Contains(says, "accepts 1 arg") {
		t.Errorf("ctl apply without a file: %s", says)
	}
}
