package controlplane

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/explain"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server/servertest"
	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/placement"
	"github.com/tracegate/tracegate/mesh/secret"
	"github.com/tracegate/tracegate/mesh/webhook"
	"github.com/tracegate/tracegate/observability/semconv"
)

// renamed is the default policy with another name for its last route.
func renamed(name string) []byte {
	return []byte(strings.Replace(string(policy.Default), "{name: /, prefix: /}", "{name: "+name+", prefix: /}", 1))
}

// newest waits for what becomes of the newest revision.
func (p *plane) newest(what string, ok func(ctlapi.Revision) bool) ctlapi.Revision {
	p.t.Helper()
	var all []ctlapi.Revision
	eventually(p.t, what, func() bool {
		var err error
		all, err = p.api.Revisions(p.t.Context())
		return err == nil && len(all) > 0 && ok(all[0])
	}, func() any { return all })
	return all[0]
}

// TestHistoryOfPolicies: each policy is a revision with its author and its end, over
// a restart too.
func TestHistoryOfPolicies(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	p := run(t, cfg, newWorld())
	edge := servertest.Connect(t, p.xds, servertest.Options{})
	inForce := func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionInForce }
	first := p.newest("first", inForce)
	if first.Number != 1 || first.By != "file" || first.Digest != ctlapi.DigestOf(policy.Default) || first.Since.IsZero() {
		t.Errorf("first: %+v", first)
	}
	if err := p.api.PutPolicy(t.Context(), renamed("rest"), "ann", "a better name"); err != nil {
		t.Fatal(err)
	}
	second := p.newest("second", func(r ctlapi.Revision) bool { return r.Number == 2 && inForce(r) })
	if second.By != "operator:ann" || second.Reason != "a better name" {
		t.Errorf("second: %+v", second)
	}
	edge.Answer(func(typ xds.Type, r *discoveryv3.DeltaDiscoveryResponse) string {
		for _, res := range r.GetResources() {
			if typ == xds.Routes && strings.Contains(string(res.GetResource().GetValue()), "poison") {
				return "no poison here"
			}
		}
		return ""
	})
	write(t, cfg.Policy, string(renamed("poison")))
	third := p.newest("refused", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionRefused })
	if third.Number != 3 || !strings.HasSuffix(third.Why, "no poison here") {
		t.Errorf("third: %+v", third)
	}
	p.status("rolled back", acked)
	p.stop()

	p = run(t, cfg, newWorld())
	all, err := p.api.Revisions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, r := range all {
		states = append(states, r.State)
	}
	if got := strings.Join(states, " "); got != "refused in_force superseded" {
		t.Errorf("after a restart: %s", got)
	}
	d, err := p.api.Revision(t.Context(), 2)
	if err != nil || d.Document != string(renamed("rest")) {
		t.Errorf("document of revision 2: %v", err)
	}
	var e *protocol.Error
	if _, err := p.api.Revision(t.Context(), 4); !errors.As(err, &e) || e.Code != protocol.CodeNotFound || e.Field != "number" {
		t.Errorf("revision that is not there: %v", err)
	}
}

// TestCheckAndExplain: what would be is said without changing what is.
func TestCheckAndExplain(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	p := run(t, cfg, newWorld())
	servertest.Connect(t, p.xds, servertest.Options{})
	before := p.status("programmed", acked)
	if d, err := p.api.Policy(t.Context()); err != nil || d.Document != string(policy.Default) || d.Revision == nil || d.Revision.Number != 1 {
		t.Errorf("policy: %+v, %v", d.Revision, err)
	}
	c, err := p.api.CheckPolicy(t.Context(), renamed("rest"))
	if err != nil || len(c.Problems) != 0 || len(c.Changes) != 1 || c.Changes[0] != (ctlapi.Change{Type: "rds", Name: "edge", What: "changed"}) {
		t.Errorf("check: %+v, %v", c, err)
	}
	c, err = p.api.CheckPolicy(t.Context(), []byte("services: []\nfailure: x\n"))
	if err != nil || len(c.Changes) != 0 || len(c.Problems) < 2 || c.Problems[0].Line == 0 {
		t.Errorf("check of a bad one: %+v, %v", c, err)
	}

	ask := ctlapi.Question{Request: explain.Request{Method: "GET", Host: "localhost", Path: "/v1/me", Header: http.Header{"X-Env": {"canary"}}}}
	ask.Request.Header.Set("X-Tenant", "payment")
	o, err := p.api.Explain(t.Context(), ask)
	if err != nil || o.Action != explain.Serve {
		t.Fatalf("explain: %+v, %v", o, err)
	}
	if _, err := p.api.Isolate(t.Context(), sick.ID(), byHand); err != nil {
		t.Fatal(err)
	}
	p.placed("isolated", func(pl placement.Placement) bool { return pl.Pool(sick) == semconv.PoolIsolated })
	ask.Document = string(renamed("rest"))
	if o, err = p.api.Explain(t.Context(), ask); err != nil || o.Route != "rest" {
		t.Errorf("explain under another policy: %+v, %v", o, err)
	}
	var e *protocol.Error
	for field, change := range map[string]func(*ctlapi.Question){
		"document": func(q *ctlapi.Question) { q.Document = "x: [" },
		"method":   func(q *ctlapi.Question) { q.Request.Method = "" },
	} {
		q := ask
		change(&q)
		if _, err := p.api.Explain(t.Context(), q); !errors.As(err, &e) || e.Code != protocol.CodeInvalidArgument || e.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	p.status("as before but for the group", func(s ctlapi.Status) bool { return acked(s) && s.Version != before.Version })
	if r := p.newest("no other revision", func(ctlapi.Revision) bool { return true }); r.Number != 1 {
		t.Errorf("revision %d was made by asking", r.Number)
	}
}

// TestSignedUpdate: whoever has the key brings a policy, once; nobody else does, and a
// bad one is refused with its line.
func TestSignedUpdate(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.UpdateSecret = secret.Text(webhook.NewSecret([32]byte{7}))
	p := run(t, cfg, newWorld())
	servertest.Connect(t, p.xds, servertest.Options{})
	p.status("programmed", acked)
	send := func(key secret.Text, id string, document []byte) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.control+ctlapi.PathUpdates+"?by=repo&reason=merge", bytes.NewReader(document))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := webhook.Key(key)
		if err != nil {
			t.Fatal(err)
		}
		webhook.SetHeaders(req.Header, raw, id, time.Now(), document)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	if code, body := send(cfg.UpdateSecret, "1", renamed("signed")); code != http.StatusOK || !strings.Contains(body, ctlapi.DigestOf(renamed("signed"))) {
		t.Errorf("signed: %d %s", code, body)
	}
	r := p.newest("in force", func(r ctlapi.Revision) bool { return r.Number == 2 && r.State == ctlapi.RevisionInForce })
	if r.By != "webhook:repo" || r.Reason != "merge" {
		t.Errorf("revision: %+v", r)
	}
	for what, c := range map[string]struct {
		key      secret.Text
		id, doc  string
		code     int
		contains string
	}{
		"again":       {cfg.UpdateSecret, "1", string(renamed("signed")), http.StatusConflict, "taken before"},
		"another key": {secret.Text(webhook.NewSecret([32]byte{8})), "2", string(renamed("forged")), http.StatusUnauthorized, "Webhook-Signature"},
		"a bad one":   {cfg.UpdateSecret, "3", "services: []\n", http.StatusBadRequest, "line 1: services"},
	} {
		if code, body := send(c.key, c.id, []byte(c.doc)); code != c.code || !strings.Contains(body, c.contains) {
			t.Errorf("%s: %d %s", what, code, body)
		}
	}
	if all, err := p.api.Revisions(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("revisions: %+v, %v", all, err)
	}
	var got []string
	all, err := p.api.Audit(t.Context(), ctlapi.AuditQuery{Who: "webhook", Limit: 10})
	for _, r := range all {
		got = append(got, strings.Join([]string{r.By, r.Action, r.Reason, r.Digest, r.Outcome}, " "))
	}
	want := []string{"repo policy merge " + ctlapi.DigestOf([]byte("services: []\n")) + " invalid_argument", "repo policy merge " + ctlapi.DigestOf(renamed("signed")) + " done"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("audit: %v (-want +got):\n%s", err, diff)
	}
}
