package ctl_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/controlplane/ctl"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/placement"
)

const (
	token  = "0123456789abcdef"
	viewer = "fedcba9876543210"
)

// TestViewersChangeNothing: they may ask everything.
func TestViewersChangeNothing(t *testing.T) {
	t.Parallel()
	_, d, s, _ := serve(t)
	c := ctlapi.NewClient(strings.TrimPrefix(s.URL, "http://"), viewer)
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := c.Revisions(t.Context()); err != nil {
		t.Error(err)
	}
	_, isolate := c.Isolate(t.Context(), "abcdef", ctlapi.Order{Reason: "x", By: "y"})
	_, release := c.Release(t.Context(), "abcdef", ctlapi.Order{Reason: "x", By: "y"})
	_, pin := c.Pin(t.Context(), "abcdef", ctlapi.Order{Reason: "x", By: "y", Pool: "canary", ForMS: 1})
	_, shed := c.Shed(t.Context(), "abcdef", ctlapi.Order{Reason: "x", By: "y", Requests: 1})
	_, lift := c.Lift(t.Context(), "abcdef", ctlapi.Order{Reason: "x", By: "y"})
	_, drain := c.Drain(t.Context(), ctlapi.DrainOrder{Reason: "x"})
	_, undrain := c.Undrain(t.Context(), ctlapi.DrainOrder{Reason: "x"})
	_, confirm := c.Confirm(t.Context(), "1", ctlapi.Order{Reason: "x", By: "y"})
	for what, err := range map[string]error{"isolate": isolate, "release": release, "pin": pin, "shed": shed, "lift": lift, "confirm": confirm, "drain": drain, "undrain": undrain, "policy": c.PutPolicy(t.Context(), []byte("x"), "y", "")} {
		var e *protocol.Error
		if !errors.As(err, &e) || e.Code != protocol.CodePermissionDenied || e.Temporary {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(d.orders) > 0 {
		t.Error("a viewer's order was taken")
	}
}

// desk takes orders.
type desk struct {
	err    error
	orders chan ctlapi.Order
}

func (d *desk) Order(_ context.Context, a decide.Action, id group.ID, o ctlapi.Order) (decide.Decision, error) {
	d.orders <- o
	return decide.Decision{ID: "1", Action: a, Group: id, By: o.By}, d.err
}

func (d *desk) Confirm(_ context.Context, id string, o ctlapi.Order) (decide.Decision, error) {
	d.orders <- o
	return decide.Decision{ID: "2", Confirms: id, By: o.By}, d.err
}

func (d *desk) Drain(_ context.Context, o ctlapi.DrainOrder) (ctlapi.Drain, error) {
	return ctlapi.Drain{Service: o.Service, Pool: o.Pool, Instance: o.Instance, By: o.By}, d.err
}

func (d *desk) Undrain(ctx context.Context, o ctlapi.DrainOrder) (ctlapi.Drain, error) {
	return d.Drain(ctx, o)
}

func (d *desk) PutPolicy(context.Context, []byte, string, string) error { return d.err }

func (d *desk) PutSettings(context.Context, string, []byte, string, string) error { return d.err }

func (d *desk) List() []ctlapi.Revision { return nil }

func (d *desk) Document(int) ([]byte, error) { return nil, d.err }

func serve(t *testing.T) (*ctl.Board, *desk, *httptest.Server, *ctlapi.Client) {
	t.Helper()
	board, d := ctl.NewBoard(), &desk{orders: make(chan ctlapi.Order, 100)}
	s := serveAs(t, ctl.Tokens{Operator: token, Viewer: viewer}, board, d, new(book))
	return board, d, s, ctlapi.NewClient(strings.TrimPrefix(s.URL, "http://"), token)
}

func serveAs(t *testing.T, tokens ctl.Tokens, board *ctl.Board, d *desk, b *book) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(ctl.New(tokens, ctl.Deps{
		Board: board, Orders: d, Drains: d, History: d, Audit: b, Metrics: http.NotFoundHandler(), Unauthenticated: prometheus.NewCounter(prometheus.CounterOpts{Name: "x"}),
	}, slog.New(slog.DiscardHandler)))
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections)
	return s
}

func TestEveryPathWantsTheToken(t *testing.T) {
	t.Parallel()
	_, d, s, _ := serve(t)
	for _, c := range []struct{ method, path string }{
		{"GET", ctlapi.PathStatus},
		{"GET", ctlapi.PathPlacement},
		{"GET", ctlapi.PathPlacementWatch},
		{"GET", ctlapi.PathGroups},
		{"POST", ctlapi.PathGroups + "/abcdef/isolate"},
		{"POST", ctlapi.PathGroups + "/abcdef/release"},
		{"POST", ctlapi.PathGroups + "/abcdef/shed"},
		{"POST", ctlapi.PathGroups + "/abcdef/lift"},
		{"POST", ctlapi.PathGroups + "/abcdef/pin"},
		{"POST", ctlapi.PathDecisions + "/1/confirm"},
		{"GET", ctlapi.PathDecisions},
		{"GET", ctlapi.PathDecisionsWatch},
		{"PUT", ctlapi.PathPolicy},
		{"GET", ctlapi.PathPolicy},
		{"POST", ctlapi.PathPolicyCheck},
		{"GET", ctlapi.PathRevisions},
		{"GET", ctlapi.PathRevisions + "/1"},
		{"GET", ctlapi.PathRoutes},
		{"POST", ctlapi.PathExplain},
		{"GET", ctlapi.PathAudit},
		{"GET", ctlapi.PathEndpoints},
		{"POST", ctlapi.PathDrain},
		{"POST", ctlapi.PathUndrain},
		{"GET", "/v1/none"},
	} {
		for _, auth := range []string{"", "Bearer ", token, "Bearer " + token + "x", "Bearer " + token[1:], "Basic " + token} {
			req, _ := http.NewRequestWithContext(t.Context(), c.method, s.URL+c.path, strings.NewReader(`{"reason":"x","by":"y"}`))
			req.Header.Set("Authorization", auth)
			resp, err := s.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			var e protocol.Error
			if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || resp.StatusCode != http.StatusUnauthorized || e.Code != protocol.CodeUnauthenticated {
				t.Errorf("%s %s with %q: %d, %+v", c.method, c.path, auth, resp.StatusCode, e)
			}
			resp.Body.Close()
		}
	}
	if len(d.orders) > 0 {
		t.Error("an order was taken without the token")
	}
}

func TestOrdersAreChecked(t *testing.T) {
	t.Parallel()
	_, d, s, c := serve(t)
	g := group.Group{Color: 1, Env: "prod", Tenant: "x"}
	for name, tc := range map[string]struct{ id, body, field string }{
		"no group id":      {"ABCDEF", `{"reason":"x","by":"y"}`, "group"},
		"no JSON":          {"abcdef", `{`, ""},
		"unknown field":    {"abcdef", `{"reason":"x","by":"y","force":true}`, ""},
		"no reason":        {"abcdef", `{"by":"y"}`, "reason"},
		"long reason":      {"abcdef", `{"by":"y","reason":"` + strings.Repeat("x", 501) + `"}`, "reason"},
		"long by":          {"abcdef", `{"reason":"x","by":"` + strings.Repeat("y", 65) + `"}`, "by"},
		"negative time":    {"abcdef", `{"reason":"x","by":"y","for_ms":-1}`, "for_ms"},
		"too long a time":  {"abcdef", `{"reason":"x","by":"y","for_ms":9223372036854775807}`, "for_ms"},
		"color":            {"abcdef", `{"reason":"x","by":"y","identity":{"color":"x"}}`, "identity.color"},
		"another identity": {"abcdef", `{"reason":"x","by":"y","identity":{"color":"00000001","env":"prod","tenant":"x"}}`, "identity"},
		"too large":        {"abcdef", `{"reason":"` + strings.Repeat("x", 20000) + `"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			resp := post(t, s.Client(), s.URL+ctlapi.PathGroups+"/"+tc.id+"/isolate", tc.body)
			defer resp.Body.Close()
			var e protocol.Error
			if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || resp.StatusCode != http.StatusBadRequest || e.Field != tc.field || e.Temporary {
				t.Errorf("%d, %+v, %v", resp.StatusCode, e, err)
			}
		})
	}
	for field, o := range map[string]ctlapi.Order{"pool": {Reason: "x", By: "y", ForMS: 1}, "for_ms": {Reason: "x", By: "y", Pool: "canary"}} {
		var e *protocol.Error
		if _, err := c.Pin(t.Context(), "abcdef", o); !errors.As(err, &e) || e.Code != protocol.CodeInvalidArgument || e.Field != field {
			t.Errorf("a pin without %s: %v", field, err)
		}
	}
	if len(d.orders) > 0 {
		t.Error("a bad order was taken")
	}
	resp := post(t, s.Client(), s.URL+ctlapi.PathGroups+"/"+string(g.ID())+"/release", `{"reason":"x","by":"y","identity":{"color":"00000001","env":"prod","tenant":"x"}}`)
	resp.Body.Close()
	if o := <-d.orders; resp.StatusCode != http.StatusOK || o.Identity.Tenant != "x" {
		t.Errorf("a good order: %d, %+v", resp.StatusCode, o)
	}
}

func post(t *testing.T, client *http.Client, url, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestInternalErrorsStayInside(t *testing.T) {
	t.Parallel()
	_, d, _, c := serve(t)
	d.err = errors.New("open /secret/place: permission denied")
	err := c.PutPolicy(t.Context(), []byte("x"), "ann", "")
	var e *protocol.Error
	if !errors.As(err, &e) || e.Code != protocol.CodeInternal || !e.Temporary || strings.Contains(err.Error(), "secret") {
		t.Errorf("error: %v", err)
	}
}

func TestNothingPublishedYet(t *testing.T) {
	t.Parallel()
	_, _, _, c := serve(t)
	var e *protocol.Error
	if _, err := c.Placement(t.Context()); !errors.As(err, &e) || e.Code != protocol.CodeUnavailable || !e.Temporary {
		t.Errorf("placement: %v", err)
	}
	if gs, err := c.Groups(t.Context()); err != nil || gs == nil || len(gs) != 0 {
		t.Errorf("groups: %v, %v", gs, err)
	}
	if ds, err := c.Decisions(t.Context(), 5); err != nil || ds == nil || len(ds) != 0 {
		t.Errorf("decisions: %v, %v", ds, err)
	}
	if _, err := c.Decisions(t.Context(), 0); !errors.As(err, &e) || e.Field != "limit" {
		t.Errorf("limit 0: %v", err)
	}
}

func TestRoutesAreThoseOfTheLastPlan(t *testing.T) {
	t.Parallel()
	board, _, _, c := serve(t)
	var e *protocol.Error
	if _, err := c.Routes(t.Context()); !errors.As(err, &e) || e.Code != protocol.CodeUnavailable {
		t.Errorf("before there is one: %v", err)
	}
	board.Write(func(v *ctl.View) {
		v.Basis = &ctl.Basis{Plan: plan.Plan{Services: []plan.Service{{Name: "core", Routes: []plan.Route{{Name: "all", Prefix: "/"}}}}}}
	})
	if all, err := c.Routes(t.Context()); err != nil || len(all) != 1 || all[0].Name != "all" {
		t.Errorf("routes: %+v, %v", all, err)
	}
}

func TestWatchPlacementHasTheStateFirst(t *testing.T) {
	t.Parallel()
	board, _, _, c := serve(t)
	publish := func(v int64) {
		board.Write(func(view *ctl.View) { view.Placement = &placement.Placement{Version: v} })
	}
	publish(1)
	got := make(chan int64, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.WatchPlacement(ctx, func(p placement.Placement) { got <- p.Version }) }()
	want(t, got, 1)
	board.Write(func(*ctl.View) {}) // a change of something else is no news
	publish(2)
	want(t, got, 2)
	publish(2)
	publish(3)
	want(t, got, 3)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("watch ended with %v", err)
	}
}

func want(t *testing.T, got <-chan int64, v int64) {
	t.Helper()
	select {
	case g := <-got:
		if g != v {
			t.Fatalf("version %d, want %d", g, v)
		}
	case <-time.After(time.Minute):
		t.Fatalf("version %d: not within a minute", v)
	}
}

// TestWatchSurvivesTheServer cuts the connection; the client comes back and gets
// what it missed, once.
func TestWatchSurvivesTheServer(t *testing.T) {
	t.Parallel()
	board, _, s, c := serve(t)
	board.Write(func(v *ctl.View) { v.Placement = &placement.Placement{Version: 1} })
	got := make(chan int64, 100)
	go c.WatchPlacement(t.Context(), func(p placement.Placement) { got <- p.Version })
	want(t, got, 1)
	s.CloseClientConnections()
	board.Write(func(v *ctl.View) { v.Placement = &placement.Placement{Version: 2} })
	want(t, got, 2)
}

func TestWatchEndsForAWrongToken(t *testing.T) {
	t.Parallel()
	_, _, s, _ := serve(t)
	c := ctlapi.NewClient(strings.TrimPrefix(s.URL, "http://"), "wrong")
	var e *protocol.Error
	if err := c.WatchPlacement(t.Context(), func(placement.Placement) {}); !errors.As(err, &e) || e.Code != protocol.CodeUnauthenticated {
		t.Errorf("watch ended with %v", err)
	}
}

func TestDecisionsComeAgainWhenTheyChange(t *testing.T) {
	t.Parallel()
	board, _, _, c := serve(t)
	at := time.Now()
	board.Record(decide.Decision{ID: "1", Time: at}, decide.Decision{ID: "2", Time: at.Add(1)})
	got := make(chan string, 100)
	go c.WatchDecisions(t.Context(), func(d decide.Decision) { got <- d.ID + d.Version })
	next := func(want string) {
		t.Helper()
		select {
		case g := <-got:
			if g != want {
				t.Fatalf("decision %s, want %s", g, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("decision %s: not within a minute", want)
		}
	}
	next("1")
	next("2")
	board.Record(decide.Decision{ID: "1", Time: at, Version: "v"})
	next("1v")
	board.Record(decide.Decision{ID: "3", Time: at.Add(2)})
	next("3")
	ds, err := c.Decisions(t.Context(), 2)
	if err != nil || len(ds) != 2 || ds[0].ID != "3" || ds[1].ID != "2" {
		t.Errorf("newest first: %+v, %v", ds, err)
	}
	var many []decide.Decision
	for i := range 2 * ctl.MaxDecisions {
		many = append(many, decide.Decision{ID: "many" + time.Duration(i).String(), Time: at.Add(time.Second)})
	}
	board.Record(many...)
	if v, _ := board.Read(); len(v.Decisions) != ctl.MaxDecisions {
		t.Errorf("%d decisions are remembered", len(v.Decisions))
	}
}

func TestWatchesAreBounded(t *testing.T) {
	t.Parallel()
	board, _, s, _ := serve(t)
	board.Write(func(v *ctl.View) { v.Placement = &placement.Placement{Version: 1} })
	open := func() *http.Response {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+ctlapi.PathPlacementWatch, nil)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	for i := range 64 {
		resp := open()
		if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("watch %d: %d, %q, %v", i, resp.StatusCode, line, err)
		}
	}
	resp := open()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("the 65th watch: %d, %s", resp.StatusCode, body)
	}
}
