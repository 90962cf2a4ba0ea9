package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
)

func TestDrainAsks(t *testing.T) {
	t.Parallel()
	var path string
	var o ctlapi.DrainOrder
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, o = r.URL.Path, ctlapi.DrainOrder{}
		_ = json.NewDecoder(r.Body).Decode(&o)
		_ = json.NewEncoder(w).Encode(ctlapi.Drain{Service: o.Service, Pool: o.Pool, Instance: o.Instance})
	}))
	defer s.Close()
	data := dataWithToken(t)
	for args, c := range map[string]struct {
		path, said string
		o          ctlapi.DrainOrder
	}{
		"core/canary 10.0.0.1:9102 --for 90s --reason disk": {ctlapi.PathDrain, "core/canary 10.0.0.1:9102 drains\n", ctlapi.DrainOrder{Reason: "disk", ForMS: 90_000}},
		"core/canary 10.0.0.1:9102 --force":                 {ctlapi.PathDrain, "core/canary 10.0.0.1:9102 drains\n", ctlapi.DrainOrder{Reason: "by hand", Force: true}},
		"core/canary 10.0.0.1:9102 --undo":                  {ctlapi.PathUndrain, "core/canary 10.0.0.1:9102 serves again\n", ctlapi.DrainOrder{Reason: "by hand"}},
		"core 10.0.0.1:9102":                                {},
		"core/canary 10.0.0.1:9102 --undo --for 1h":         {},
		"core/canary": {},
	} {
		var out bytes.Buffer
		path = ""
		cmd := newCommand(&out, &out)
		cmd.SetArgs(append([]string{"--data", data, "--set", "controlplane.api=" + strings.TrimPrefix(s.URL, "http://"), "ctl", "drain"}, strings.Fields(args)...))
		err := cmd.ExecuteContext(t.Context())
		if path != c.path || (err == nil) != (c.path != "") {
			t.Errorf("%s: asked %q, %v", args, path, err)
		}
		if c.path == "" {
			continue
		}
		c.o.Service, c.o.Pool, c.o.Instance, c.o.By = "core", "canary", "10.0.0.1:9102", operator()
		if o != c.o || out.String() != c.said {
			t.Errorf("%s: %+v, said %q", args, o, out.String())
		}
	}
}

func TestDrainsInWords(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	d := ctlapi.Drain{By: "alice:ann", Reason: "disk", Since: at}
	if got, want := drainWords(d), "until it is undone, by alice:ann since 2026-01-02 03:04:05: disk"; got != want {
		t.Errorf("got %q", got)
	}
	d.Until, d.Gone = at.Add(time.Hour), at.Add(time.Minute)
	if got, want := drainWords(d), "until 2026-01-02 04:04:05, not there since 03:05:05, by alice:ann since 2026-01-02 03:04:05: disk"; got != want {
		t.Errorf("got %q", got)
	}
	var out strings.Builder
	printEndpoints(&out, []ctlapi.Endpoint{
		{Service: "core", Pool: "baseline", Instance: "10.0.0.1:9101", Zone: "eu-1", State: ctlapi.EndpointDrains},
		{Service: "core", Pool: "baseline", Instance: "10.0.0.2:9101", State: ctlapi.EndpointServes},
	})
	if want := "POOL           INSTANCE       ZONE  STATE\ncore/baseline  10.0.0.1:9101  eu-1  drains\ncore/baseline  10.0.0.2:9101  -     serves\n"; out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
}
