package controlplane

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tracegate/tracegate/controlplane/access"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/server/servertest"
	"github.com/tracegate/tracegate/core/protocol"
)

func writeTokens(t *testing.T, file string, tokens ...access.Token) {
	t.Helper()
	content, err := access.Format(tokens)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file+".new", string(content))
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func denied(err error, code protocol.Code) bool {
	var e *protocol.Error
	return errors.As(err, &e) && e.Code == code && !e.Temporary
}

// TestNamedTokens come and go with their file while the control plane runs, and stand in
// what was decided and asked for, after a restart too.
func TestNamedTokens(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Tokens = filepath.Join(filepath.Dir(cfg.Policy), "tokens.yaml")
	writeTokens(t, cfg.Tokens, access.Of("alice", access.Operator, "alice's", time.Time{}), access.Of("old", access.Operator, "old one's", time.Now().Add(-time.Second)))
	p := run(t, cfg, newWorld())
	servertest.Connect(t, p.xds, servertest.Options{})
	p.status("programmed", acked)
	as := func(token string) *ctlapi.Client { return ctlapi.NewClient(p.control, token) }

	d, err := as("alice's").Isolate(t.Context(), sick.ID(), byHand)
	if err != nil || d.By != "alice:ann" {
		t.Fatalf("by %q, %v", d.By, err)
	}
	for _, token := range []string{"old one's", "bob's"} {
		if _, err := as(token).Status(t.Context()); !denied(err, protocol.CodeUnauthenticated) {
			t.Errorf("%s: %v", token, err)
		}
	}

	writeTokens(t, cfg.Tokens, access.Of("bob", access.Viewer, "bob's", time.Time{}))
	eventually(t, "another file counts", func() bool {
		_, err := as("bob's").Status(t.Context())
		return err == nil
	}, func() any { return nil })
	if _, err := as("alice's").Status(t.Context()); !denied(err, protocol.CodeUnauthenticated) {
		t.Errorf("a token that was taken away: %v", err)
	}
	if _, err := as("bob's").Release(t.Context(), sick.ID(), byHand); !denied(err, protocol.CodePermissionDenied) {
		t.Errorf("a viewer's order: %v", err)
	}

	write(t, cfg.Tokens, "tokens: [{name: bob, role: king}]")
	p.status("a mistake is shown", func(s ctlapi.Status) bool {
		return strings.Contains(s.Sources["tokens"].Error, `"king" is neither`)
	})
	if _, err := as("bob's").Status(t.Context()); err != nil {
		t.Errorf("the file before goes on: %v", err)
	}
	if err := os.Remove(cfg.Tokens); err != nil {
		t.Fatal(err)
	}
	p.status("without a file nothing is wrong", func(s ctlapi.Status) bool { return s.Sources["tokens"].Error == "" })
	if _, err := as("bob's").Status(t.Context()); !denied(err, protocol.CodeUnauthenticated) {
		t.Errorf("and nobody is known: %v", err)
	}

	want := []ctlapi.AuditRecord{
		{Who: "bob", Role: "viewer", Method: "POST", Path: ctlapi.PathGroups + "/" + string(sick.ID()) + "/release", Action: "release", Target: string(sick.ID()), Outcome: string(protocol.CodePermissionDenied)},
		{Who: "alice", Role: "operator", By: "ann", Method: "POST", Path: ctlapi.PathGroups + "/" + string(sick.ID()) + "/isolate", Action: "isolate", Target: string(sick.ID()), Reason: "try", Outcome: ctlapi.OutcomeDone, Made: d.ID},
	}
	for _, when := range []string{"now", "after a restart"} {
		got, err := p.api.Audit(t.Context(), ctlapi.AuditQuery{Limit: 10})
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(ctlapi.AuditRecord{}, "ID", "Time", "Remote")); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", when, err, diff)
		}
		if ds, err := p.api.FindDecisions(t.Context(), ctlapi.DecisionQuery{Group: sick.ID(), Action: decide.Isolate, Limit: 10}); err != nil || len(ds) != 1 || ds[0].By != "alice:ann" {
			t.Errorf("%s: %+v, %v", when, ds, err)
		}
		p.stop()
		p = run(t, cfg, newWorld())
	}
	raw, err := os.ReadFile(filepath.Join(cfg.Dir, auditFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{token, "alice's", "bob's", access.Of("", "", "bob's", time.Time{}).SHA256} {
		if strings.Contains(string(raw), secret) {
			t.Errorf("%q is in the audit log", secret)
		}
	}
}
