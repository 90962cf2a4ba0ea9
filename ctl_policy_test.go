package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/core/protocol"
)

// TestApplyIsPolicyWithAFile: both read the file before they call anybody, and only
// "policy" goes without one.
func TestApplyIsPolicyWithAFile(t *testing.T) {
	data := dataWithToken(t)
	bad := filepath.Join(data, "policy.yaml")
	if err := os.WriteFile(bad, []byte("servces: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) error {
		t.Helper()
		cmd := newCommand(io.Discard, io.Discard)
		cmd.SetArgs(append([]string{"--data", data, "ctl"}, args...))
		err := cmd.ExecuteContext(t.Context())
		if err == nil {
			t.Fatalf("ctl %q succeeds", args)
		}
		return err
	}
	for _, name := range []string{"policy", "apply"} {
		if err := run(name, bad); !strings.Contains(err.Error(), `servces: unknown key, did you mean "services"?`) || exitCode(err) != exitRefused {
			t.Errorf("ctl %s: %v, code %d", name, err, exitCode(err))
		}
	}
	if err := run("validate", bad); exitCode(err) != exitRefused {
		t.Errorf("ctl validate: %v, code %d", err, exitCode(err))
	}
	if err := run("apply"); !strings.Contains(err.Error(), "accepts 1 arg") || exitCode(err) != 1 {
		t.Errorf("ctl apply without a file: %v, code %d", err, exitCode(err))
	}
}

// TestRefusedOrdersHaveTheirExitCode tells what the control plane refuses from what it
// cannot do now.
func TestRefusedOrdersHaveTheirExitCode(t *testing.T) {
	for _, c := range []struct {
		answer protocol.Error
		code   int
	}{
		{protocol.Error{Code: protocol.CodeNotFound, Message: "no such group was seen"}, exitRefused},
		{protocol.Error{Code: protocol.CodeUnavailable, Message: "busy", Temporary: true}, 1},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.answer.Code.Status())
			_ = json.NewEncoder(w).Encode(&c.answer)
		}))
		cmd := newCommand(io.Discard, io.Discard)
		cmd.SetArgs([]string{"--data", dataWithToken(t), "--set", "controlplane.api=" + strings.TrimPrefix(s.URL, "http://"), "ctl", "isolate", "abcdef"})
		err := cmd.ExecuteContext(t.Context())
		s.Close()
		if err == nil || !strings.Contains(err.Error(), c.answer.Message) || exitCode(err) != c.code {
			t.Errorf("%s: %v, code %d", c.answer.Code, err, exitCode(err))
		}
	}
}

// TestBadDocumentsHaveTheirExitCode, also where they are only looked at; what is wrong is
// said before.
func TestBadDocumentsHaveTheirExitCode(t *testing.T) {
	data := dataWithToken(t)
	if err := os.WriteFile(filepath.Join(data, "secrets", secretClickHouse), []byte("password"), 0o600); err != nil {
		t.Fatal(err)
	}
	policyFile, settingsFile := filepath.Join(data, "bad.yaml"), filepath.Join(data, "settings.yaml")
	for file, text := range map[string]string{policyFile: "servces: []\n", settingsFile: "lgo: {level: debug}\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var answer any
		switch r.URL.Path {
		case ctlapi.PathPolicyCheck:
			answer = ctlapi.Check{Problems: []policy.Problem{{Path: "servces", Line: 1, Message: "unknown key"}}}
		case ctlapi.PathSettings:
			answer = ctlapi.Settings{Documents: []ctlapi.SettingsDocument{{Key: "core", Handed: 1}}}
		default:
			answer = ctlapi.Document{Document: "log: {level: info}\n"}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer s.Close()
	for _, c := range []struct {
		args, says string
	}{
		{"diff " + policyFile, "bad.yaml:1: servces: unknown key"},
		{"diff -o json " + policyFile, `"message": "unknown key"`},
		{"backtest " + policyFile, "bad.yaml:1: servces: unknown key"},
		{"validate " + policyFile, "bad.yaml:1: servces: unknown key"},
		{"validate -o json " + policyFile, `"path": "servces"`},
		{"settings diff core " + settingsFile, "would be refused: line 1: lgo: unknown key"},
		{"settings diff -o json core " + settingsFile, `"refused": "line 1: lgo: unknown key`},
	} {
		var out bytes.Buffer
		cmd := newCommand(&out, io.Discard)
		cmd.SetArgs(append([]string{"--data", data, "--set", "controlplane.api=" + strings.TrimPrefix(s.URL, "http://"), "ctl"}, strings.Fields(c.args)...))
		err := cmd.ExecuteContext(t.Context())
		code, shown := errors.AsType[exitError](err)
		if err == nil || shown && int(code) != exitRefused || !shown && exitCode(err) != exitRefused {
			t.Errorf("%s: %v", c.args, err)
		}
		if said := fmt.Sprint(out.String(), err); !strings.Contains(said, c.says) {
			t.Errorf("%s does not say %q:\n%s", c.args, c.says, said)
		}
		if strings.Contains(c.args, "json") && !json.Valid(out.Bytes()) {
			t.Errorf("%s is no JSON:\n%s", c.args, out.String())
		}
	}
}

// TestEveryEndOfADocumentHasItsExitCode follows one to each.
func TestEveryEndOfADocumentHasItsExitCode(t *testing.T) {
	for state, code := range map[string]int{
		ctlapi.RevisionInForce:    0,
		ctlapi.RevisionPartly:     exitWaiting,
		ctlapi.RevisionPending:    exitWaiting, // for good
		ctlapi.RevisionRefused:    exitRefused,
		ctlapi.RevisionRolledBack: exitRolledBack,
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			_, err := await(t.Context(), func(context.Context) ([]ctlapi.Revision, error) {
				return []ctlapi.Revision{{Number: 2, Digest: "d", State: state}}, nil
			}, "d", 1)
			if got := exitCode(err); err == nil && code != 0 || err != nil && got != code {
				t.Errorf("%s: %v, code %d", state, err, got)
			}
			if waited := time.Since(began); state == ctlapi.RevisionPending && waited < commandTimeout {
				t.Errorf("gave up after %s", waited)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := await(ctx, func(ctx context.Context) ([]ctlapi.Revision, error) {
		cancel()
		return nil, ctx.Err()
	}, "d", 1)
	if errors.Is(err, context.Canceled) || exitCode(err) != exitWaiting {
		t.Errorf("interrupted: %v, which main takes for success", err)
	}
}

// dataWithToken is a data folder with the operator's token.
func dataWithToken(t *testing.T) string {
	t.Helper()
	data := t.TempDir()
	if err := os.Mkdir(filepath.Join(data, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "secrets", secretControl), []byte("token"), 0o600); err != nil {
		t.Fatal(err)
	}
	return data
}
