package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/edge/artifact/engine"
	"github.com/tracegate/tracegate/edge/load/chat"
)

// loadChat runs `tracegate load chat` as people do and returns its report.
func loadChat(t *testing.T, args ...string) chat.Report {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "chat")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append([]string{"load", "chat", "-o", "json", "--keep", dir}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	var r chat.Report
	if jerr := json.Unmarshal(out.Bytes(), &r); jerr != nil {
		t.Fatalf("%v, %v: %s\n%s", err, jerr, out.String(), errOut.String())
	}
	if err != nil || !r.OK {
		t.Errorf("%v: %s\n%s", err, out.String(), errOut.String())
		if log, err := os.ReadFile(filepath.Join(dir, "up.log")); err == nil {
			t.Logf("%s", log[max(0, len(log)-20_000):])
		}
	}
	return r
}

// realEngines skips where they are not to be had.
func realEngines(t *testing.T) {
	t.Helper()
	log := newLogger(t.Output(), LogConfig{Level: "info"}, "test")
	_, kafka := engine.Kafka(t.Context(), log)
	_, redis := engine.Redis(t.Context(), log)
	_, postgres := engine.PostgreSQL(t.Context(), log)
	for _, err := range []error{kafka, redis, postgres} {
		if err != nil && os.Getenv("CI") == "true" {
			t.Fatal(err)
		} else if err != nil {
			t.Skip(err)
		}
	}
}

// TestLoadChat asks for each promise once, on the embedded engines.
func TestLoadChat(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the product")
	}
	r := loadChat(t)
	if len(r.Promises) != 7 || r.Messages.Accepted < 200 || r.Messages.Accepted != r.Messages.Stored {
		t.Errorf("that was no test: %+v", r)
	}
}

// TestLoadChatFaults breaks what can be broken for some seconds, by a fixed seed.
func TestLoadChatFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the product")
	}
	for _, engines := range []string{"embedded", "real"} {
		t.Run(engines, func(t *testing.T) {
			if engines == "real" {
				realEngines(t)
			}
			r := loadChat(t, "--faults", "--seed", "3", "--duration", "10s", "--hall", "0", "--users", "4", "--engines", engines)
			if len(r.Faults) < 1 || r.Messages.Accepted < 50 {
				t.Errorf("that was no test: %+v", r)
			}
		})
	}
}

func TestLoadChatRefuses(t *testing.T) {
	for want, args := range map[string][]string{
		`engines: "mine" is neither embedded, real nor valkey`: {"--engines", "mine"},
		"unknown flag": {"--storm"},
	} {
		var out, errOut bytes.Buffer
		cmd := newCommand(&out, &errOut)
		cmd.SetArgs(append([]string{"load", "chat", "--keep", t.TempDir()}, args...))
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v", args, err)
		}
	}
}
