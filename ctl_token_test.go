package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/access"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
)

// TestTokensAreMadeAndTakenAway by the command, in the file that the control plane watches.
func TestTokensAreMadeAndTakenAway(t *testing.T) {
	t.Parallel()
	data := dataWithToken(t)
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		cmd := newCommand(&out, &out)
		cmd.SetArgs(append([]string{"--data", data, "ctl", "token"}, args...))
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	file := filepath.Join(data, "secrets", secretTokens)
	known := func() access.Set {
		t.Helper()
		all, err := readTokens(file)
		if err != nil {
			t.Fatal(err)
		}
		return access.NewSet(all...)
	}

	secret, err := run("add", "alice", "--role", "operator")
	if err != nil || len(secret) < 43 || strings.Count(secret, "\n") != 1 {
		t.Fatalf("%q, %v", secret, err)
	}
	secret = strings.TrimSpace(secret)
	if who, ok := known().Find(secret, time.Now().AddDate(10, 0, 0)); !ok || who.Name != "alice" || who.Role != access.Operator {
		t.Errorf("%+v, %v", who, ok)
	}
	raw, err := os.ReadFile(file)
	if info, _ := os.Stat(file); err != nil || strings.Contains(string(raw), secret) || info.Mode().Perm() != 0o600 {
		t.Errorf("%s, %v", raw, err)
	}

	out, err := run("add", "ci", "--for", "1h", "-o", "json")
	var made struct{ Name, Role, Token, SHA256 string }
	if err != nil || json.Unmarshal([]byte(out), &made) != nil || made.Name != "ci" || made.Role != "viewer" || made.SHA256 != "" {
		t.Errorf("%s, %v", out, err)
	}
	if who, ok := known().Find(made.Token, time.Now().Add(59*time.Minute)); !ok || who.Name != "ci" {
		t.Errorf("before its end: %+v, %v", who, ok)
	}
	if _, ok := known().Find(made.Token, time.Now().Add(61*time.Minute)); ok {
		t.Error("it counts after its end")
	}

	for _, args := range [][]string{{"add", "alice"}, {"add", "operator"}, {"add", "Bob"}, {"add", "bob", "--role", "king"}} {
		if out, err := run(args...); err == nil || exitCode(err) != exitRefused {
			t.Errorf("%q: %s, %v", args, out, err)
		}
	}
	if out, err := run("remove", "bob"); err == nil {
		t.Errorf("nobody was removed: %s", out)
	}
	if out, err := run("remove", "alice"); err != nil {
		t.Errorf("%s, %v", out, err)
	}
	if _, ok := known().Find(secret, time.Now()); ok {
		t.Error("alice is still known")
	}
	if out, err := run(); err != nil || !strings.Contains(out, "ci    viewer  20") || strings.Contains(out, "alice") {
		t.Errorf("%s, %v", out, err)
	}
}

func TestAuditAsATable(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	var out strings.Builder
	printAudit(&out, []ctlapi.AuditRecord{
		{Time: at, Who: "alice", By: "alice", Role: "operator", Remote: "10.0.0.1:5", Action: "isolate", Target: "abcdef", Reason: "bad release", Outcome: ctlapi.OutcomeDone, Made: "0199"},
		{Time: at, Who: "operator", By: "ada", Role: "operator", Remote: "10.0.0.1:5", Action: "policy", Digest: "d1"},
		{Time: at, Who: "ci", Role: "viewer", Remote: "10.0.0.1:5", Action: "settings", Target: "core", Digest: "d2", Outcome: "permission_denied"},
	})
	want := `TIME                 WHO           ROLE      FROM        ACTION    TARGET   OUTCOME            REASON
2026-01-02 03:04:05  alice         operator  10.0.0.1:5  isolate   abcdef   done 0199          bad release
2026-01-02 03:04:05  operator:ada  operator  10.0.0.1:5  policy    d1       not known          -
2026-01-02 03:04:05  ci            viewer    10.0.0.1:5  settings  core d2  permission_denied  -
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
