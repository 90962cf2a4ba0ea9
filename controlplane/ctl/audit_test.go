package ctl_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tracegate/tracegate/controlplane/access"
	"github.com/tracegate/tracegate/controlplane/ctl"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/placement"
)

// book is an audit log that is not durable.
type book struct {
	mu    sync.Mutex
	lines []ctlapi.AuditRecord
	asked ctlapi.AuditQuery
	err   error
}

func (b *book) Keep(r ctlapi.AuditRecord) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.lines = append(b.lines, r)
	}
	return b.err
}

func (b *book) KeepRefused(r ctlapi.AuditRecord) error { return b.Keep(r) }

func (b *book) Find(q ctlapi.AuditQuery) []ctlapi.AuditRecord {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = q
	return b.lines
}

func (b *book) take() []ctlapi.AuditRecord {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.lines
	b.lines = nil
	return out
}

// TestEveryChangeIsRecorded: as it is asked for and with what came of it, or once where it
// is refused; questions are not.
func TestEveryChangeIsRecorded(t *testing.T) {
	t.Parallel()
	board, d, b := ctl.NewBoard(), &desk{orders: make(chan ctlapi.Order, 100)}, new(book)
	named := access.NewSet(access.Of("alice", access.Operator, "alice's", time.Time{}), access.Of("bob", access.Viewer, "bob's", time.Time{}))
	s := serveAs(t, ctl.Tokens{Operator: token, Viewer: viewer, Named: func() access.Set { return named }}, board, d, b)
	as := func(token string) *ctlapi.Client {
		return ctlapi.NewClient(strings.TrimPrefix(s.URL, "http://"), token)
	}
	order := ctlapi.Order{Reason: "why", By: "root"}
	group := ctlapi.PathGroups + "/abcdef"
	invalid, denied := string(protocol.CodeInvalidArgument), string(protocol.CodePermissionDenied)
	for what, c := range map[string]struct {
		ask  func(context.Context) error
		err  error // of the desk
		want []ctlapi.AuditRecord
	}{
		"an order": {
			ask:  func(ctx context.Context) error { _, err := as("alice's").Isolate(ctx, "abcdef", order); return err },
			want: []ctlapi.AuditRecord{{Who: "alice", Role: "operator", By: "root", Method: "POST", Path: group + "/isolate", Action: "isolate", Target: "abcdef", Reason: "why", Outcome: ctlapi.OutcomeDone, Made: "1"}},
		},
		"with the generated token": {
			ask: func(ctx context.Context) error {
				_, err := as(token).Confirm(ctx, "7", ctlapi.Order{Reason: "why"})
				return err
			},
			want: []ctlapi.AuditRecord{{Who: "operator", Role: "operator", Method: "POST", Path: ctlapi.PathDecisions + "/7/confirm", Action: "confirm", Target: "7", Reason: "why", Outcome: ctlapi.OutcomeDone, Made: "2"}},
		},
		"an order that fails": {
			ask:  func(ctx context.Context) error { _, err := as("alice's").Release(ctx, "abcdef", order); return err },
			err:  protocol.NewError(protocol.CodeNotFound, "group", "no such group"),
			want: []ctlapi.AuditRecord{{Who: "alice", Role: "operator", By: "root", Method: "POST", Path: group + "/release", Action: "release", Target: "abcdef", Reason: "why", Outcome: string(protocol.CodeNotFound)}},
		},
		"an order that is invalid": {
			ask: func(ctx context.Context) error {
				_, err := as("alice's").Shed(ctx, "abcdef", ctlapi.Order{Reason: strings.Repeat("x", 600), By: "root"})
				return err
			},
			want: []ctlapi.AuditRecord{{Who: "alice", Role: "operator", By: "root", Method: "POST", Path: group + "/shed", Action: "shed", Target: "abcdef", Reason: strings.Repeat("x", 500), Outcome: invalid}},
		},
		"an order of a viewer": {
			ask: func(ctx context.Context) error {
				_, err := as("bob's").Pin(ctx, "abcdef", ctlapi.Order{Reason: "a secret thing", By: "root", Pool: "canary", ForMS: 1})
				return err
			},
			want: []ctlapi.AuditRecord{{Who: "bob", Role: "viewer", Method: "POST", Path: group + "/pin", Action: "pin", Target: "abcdef", Outcome: denied}},
		},
		"a drain": {
			ask: func(ctx context.Context) error {
				d, err := as("alice's").Drain(ctx, ctlapi.DrainOrder{Service: "core", Pool: "baseline", Instance: "10.0.0.1:9101", Reason: "disk", By: "root"})
				if d.By != "alice:root" {
					t.Errorf("by %q", d.By)
				}
				return err
			},
			want: []ctlapi.AuditRecord{{Who: "alice", Role: "operator", By: "root", Method: "POST", Path: ctlapi.PathDrain, Action: "drain", Target: "core/baseline/10.0.0.1:9101", Reason: "disk", Outcome: ctlapi.OutcomeDone}},
		},
		"the end of a drain, without a reason": {
			ask: func(ctx context.Context) error {
				_, err := as("alice's").Undrain(ctx, ctlapi.DrainOrder{Service: "core", Pool: "baseline", Instance: "10.0.0.1:9101"})
				return err
			},
			want: []ctlapi.AuditRecord{{Who: "alice", Role: "operator", Method: "POST", Path: ctlapi.PathUndrain, Action: "undrain", Target: "core/baseline/10.0.0.1:9101", Outcome: invalid}},
		},
		"a policy": {
			ask:  func(ctx context.Context) error { return as("alice's").PutPolicy(ctx, []byte("x"), "root", "better") },
			want: []ctlapi.AuditRecord{{Who: "alice", Role: "operator", By: "root", Method: "PUT", Path: ctlapi.PathPolicy, Action: "policy", Reason: "better", Digest: ctlapi.DigestOf([]byte("x")), Outcome: ctlapi.OutcomeDone}},
		},
		"settings": {
			ask: func(ctx context.Context) error {
				return as("alice's").PutSettings(ctx, "core", []byte("x"), "root", "better")
			},
			want: []ctlapi.AuditRecord{{Who: "alice", Role: "operator", By: "root", Method: "PUT", Path: ctlapi.PathSettingsDocument, Action: "settings", Target: "core", Reason: "better", Digest: ctlapi.DigestOf([]byte("x")), Outcome: ctlapi.OutcomeDone}},
		},
		"settings of nobody": {
			ask: func(ctx context.Context) error {
				return as("alice's").PutSettings(ctx, "core/none", []byte("x"), "root", "better")
			},
			want: []ctlapi.AuditRecord{{Who: "alice", Role: "operator", By: "root", Method: "PUT", Path: ctlapi.PathSettingsDocument, Action: "settings", Target: "core/none", Reason: "better", Outcome: invalid}},
		},
		"a question":     {ask: func(ctx context.Context) error { _, err := as("bob's").Status(ctx); return err }},
		"a wrong token":  {ask: func(ctx context.Context) error { _, err := as("carl's").Isolate(ctx, "abcdef", order); return err }},
		"a viewer's put": {ask: func(ctx context.Context) error { return as(viewer).PutPolicy(ctx, []byte("x"), "", "") }, want: []ctlapi.AuditRecord{{Who: "viewer", Role: "viewer", Method: "PUT", Path: ctlapi.PathPolicy, Action: "policy", Outcome: denied}}},
	} {
		d.err = c.err
		err := c.ask(t.Context())
		lines := b.take()
		if len(c.want) > 0 && (err == nil) != (c.want[0].Outcome == ctlapi.OutcomeDone) {
			t.Errorf("%s: %v", what, err)
		}
		if len(lines) == 2 && lines[0].Outcome == ctlapi.OutcomeUnknown && lines[0].ID == lines[1].ID {
			lines = lines[1:] // it was there before it was carried out
		} else if len(lines) > 0 && (lines[0].Outcome == ctlapi.OutcomeDone || c.err != nil) {
			t.Errorf("%s: recorded only afterwards: %+v", what, lines)
		}
		if diff := cmp.Diff(c.want, lines, cmpopts.IgnoreFields(ctlapi.AuditRecord{}, "ID", "Time", "Remote")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		for _, l := range lines {
			if l.ID == "" || l.Time.IsZero() || !strings.HasPrefix(l.Remote, "127.0.0.1:") {
				t.Errorf("%s: %+v", what, l)
			}
		}
	}
}

// TestNothingIsDoneWithoutARecord holds the promise of the audit log.
func TestNothingIsDoneWithoutARecord(t *testing.T) {
	t.Parallel()
	d, b := &desk{orders: make(chan ctlapi.Order, 100)}, &book{err: errors.New("disk is full")}
	s := serveAs(t, ctl.Tokens{Operator: token}, ctl.NewBoard(), d, b)
	c := ctlapi.NewClient(strings.TrimPrefix(s.URL, "http://"), token)
	var e *protocol.Error
	if _, err := c.Isolate(t.Context(), "abcdef", ctlapi.Order{Reason: "x"}); !errors.As(err, &e) || e.Code != protocol.CodeUnavailable || !e.Temporary || len(d.orders) > 0 {
		t.Errorf("%v, %d orders", err, len(d.orders))
	}
}

// TestNamesOfTokensStandInDecisions, before what who uses one says of themselves.
func TestNamesOfTokensStandInDecisions(t *testing.T) {
	t.Parallel()
	d := &desk{orders: make(chan ctlapi.Order, 100)}
	named := access.NewSet(access.Of("alice", access.Operator, "alice's", time.Time{}))
	s := serveAs(t, ctl.Tokens{Operator: token, Named: func() access.Set { return named }}, ctl.NewBoard(), d, new(book))
	for _, c := range []struct{ token, by, want string }{
		{token, "ann", "operator:ann"}, {token, "", "operator"}, {"alice's", "", "alice"}, {"alice's", "alice", "alice"}, {"alice's", "operator", "alice:operator"}, {"alice's", "policy", "alice:policy"},
	} {
		got, err := ctlapi.NewClient(strings.TrimPrefix(s.URL, "http://"), c.token).Isolate(t.Context(), "abcdef", ctlapi.Order{Reason: "x", By: c.by})
		if err != nil || got.By != c.want {
			t.Errorf("%q of %s: by %q, %v, want %q", c.by, c.token, got.By, err, c.want)
		}
	}
}

func TestAuditIsAskedFor(t *testing.T) {
	t.Parallel()
	b := new(book)
	s := serveAs(t, ctl.Tokens{Operator: token, Viewer: viewer}, ctl.NewBoard(), &desk{}, b)
	c := ctlapi.NewClient(strings.TrimPrefix(s.URL, "http://"), viewer)
	want := ctlapi.AuditQuery{Since: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Who: "a b&c", Limit: 7}
	if _, err := c.Audit(t.Context(), want); err != nil || b.asked != want {
		t.Errorf("asked %+v, %v", b.asked, err)
	}
	for query, field := range map[string]string{"limit=0": "limit", "limit=1001": "limit", "limit=x": "limit", "since=yesterday": "since"} {
		resp := get(t, s.URL+ctlapi.PathAudit+"?"+query, token)
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s, field %s", query, resp.Status, field)
		}
	}
}

func get(t *testing.T, url, token string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestDecisionsAreFound(t *testing.T) {
	t.Parallel()
	board, _, s, c := serve(t)
	at := time.Now()
	board.Record(
		decide.Decision{ID: "1", Time: at, Group: "aaaaaa", Action: decide.Isolate},
		decide.Decision{ID: "2", Time: at.Add(time.Minute), Group: "bbbbbb", Action: decide.Isolate},
		decide.Decision{ID: "3", Time: at.Add(2 * time.Minute), Group: "aaaaaa", Action: decide.Release},
	)
	for want, q := range map[string]ctlapi.DecisionQuery{
		"321": {}, "31": {Group: "aaaaaa"}, "21": {Action: decide.Isolate}, "32": {Since: at.Add(time.Minute)}, "1": {Group: "aaaaaa", Action: decide.Isolate}, "3": {Limit: 1}, "": {Group: "cccccc"},
	} {
		if q.Limit == 0 {
			q.Limit = 10
		}
		ds, err := c.FindDecisions(t.Context(), q)
		got := ""
		for _, d := range ds {
			got += d.ID
		}
		if err != nil || got != want {
			t.Errorf("%+v: %s, %v, want %s", q, got, err, want)
		}
	}
	for _, query := range []string{"group=A", "action=explode", "since=x"} {
		if resp := get(t, s.URL+ctlapi.PathDecisions+"?"+query, token); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s", query, resp.Status)
		}
	}
}

// TestWatchEndsWithItsToken: nobody watches on after their token was taken away.
func TestWatchEndsWithItsToken(t *testing.T) {
	t.Parallel()
	var named atomic.Pointer[access.Set]
	set := access.NewSet(access.Of("bob", access.Viewer, "bob's", time.Time{}))
	named.Store(&set)
	board := ctl.NewBoard()
	board.Write(func(v *ctl.View) { v.Placement = &placement.Placement{Version: 1} })
	s := serveAs(t, ctl.Tokens{Operator: token, Named: func() access.Set { return *named.Load() }}, board, &desk{}, new(book))
	seen := make(chan int64, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- ctlapi.NewClient(strings.TrimPrefix(s.URL, "http://"), "bob's").WatchPlacement(t.Context(), func(p placement.Placement) { seen <- p.Version })
	}()
	want(t, seen, 1)
	named.Store(new(access.Set))
	var e *protocol.Error
	select {
	case err := <-ended: // at the next heartbeat; the client then asks once more
		if !errors.As(err, &e) || e.Code != protocol.CodeUnauthenticated {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("goes on")
	}
}
