package controlplane

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server/servertest"
)

// TestPinEnds: a rule's pin ends by the clock, without anything else happening.
func TestPinEnds(t *testing.T) {
	t.Parallel()
	rules := func(pin string) string {
		return strings.Replace(string(policy.Default), "    routes:\n", "    rules:\n      - {name: reports, match: [{prefix: /reports}]"+pin+"}\n    routes:\n", 1)
	}
	cfg := testConfig(t)
	write(t, cfg.Policy, rules(""))
	p := run(t, cfg, newWorld())
	servertest.Connect(t, p.xds, servertest.Options{})
	free := p.status("programmed", acked)

	until := time.Now().Add(8 * time.Second).UTC()
	write(t, cfg.Policy, rules(fmt.Sprintf(", pool: canary, until: %s", until.Format(time.RFC3339Nano))))
	p.status("pinned", func(s ctlapi.Status) bool { return acked(s) && s.Version != free.Version })
	p.status("free again", func(s ctlapi.Status) bool { return acked(s) && s.Version == free.Version })
	if early := time.Until(until); early > 0 {
		t.Errorf("the pin ended %v too early", early)
	}
}
