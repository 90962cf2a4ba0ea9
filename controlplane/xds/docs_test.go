package xds

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/edge/envoytest"
)

// examples are the YAML blocks of docs/routing.md: rules, and pools where the
// block says so.
func examples(t *testing.T) (rules, pools []string) {
	t.Helper()
	raw, err := os.ReadFile("../../docs/routing.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?s)```yaml( pools)?\n(.*?)```").FindAllStringSubmatch(string(raw), -1) {
		if m[1] == "" {
			rules = append(rules, m[2])
		} else {
			pools = append(pools, m[2])
		}
	}
	return rules, pools
}

func indent(s, by string) string { return by + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n"+by) }

// TestDocumentedRules holds docs/routing.md to the policy and to the real Envoy.
func TestDocumentedRules(t *testing.T) {
	t.Parallel()
	rules, _ := examples(t)
	if len(rules) < 8 {
		t.Fatalf("only %d examples of rules: the pattern is off or the documentation is", len(rules))
	}
	doc := "color: {cohorts: [{name: beta, match: {path: /beta}}]}\nservices:\n  - name: core\n    pools: [{name: baseline}, {name: canary}, {name: isolated}]\n    routes: [{prefix: /}]\n    rules:\n"
	for _, r := range rules {
		doc += indent(r, "      ") + "\n"
	}
	accepted(t, envoytest.Binary(t), build(t, doc))
}

// TestDocumentedPoolDefaults: what the page calls defaults are those.
func TestDocumentedPoolDefaults(t *testing.T) {
	t.Parallel()
	_, pools := examples(t)
	if len(pools) != 1 {
		t.Fatalf("%d examples of pools", len(pools))
	}
	cluster := func(pool string) resources {
		r, err := render(build(t, "services:\n  - name: core\n    pools:\n"+indent(pool, "      ")+"\n    routes: [{prefix: /}]\n"))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	named, bare := cluster(pools[0]), cluster("- name: baseline")
	for _, c := range named.clusters {
		if p := c.GetCommonLbConfig().GetHealthyPanicThreshold(); p.GetValue() == 50 {
			c.CommonLbConfig.HealthyPanicThreshold = nil // Envoy's own default
		}
	}
	if diff := cmp.Diff(bare.clusters, named.clusters, protocmp.Transform()); diff != "" {
		t.Errorf("defaults (-code +page):\n%s", diff)
	}
}

// TestDefaultPolicysRules reads the rules that the first policy has as comments.
func TestDefaultPolicysRules(t *testing.T) {
	t.Parallel()
	doc := regexp.MustCompile(`(?m)^    #( |$)`).ReplaceAllString(string(policy.Default), "    ")
	p, err := policy.Parse([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(p.Services[1].Rules); n < 3 {
		t.Errorf("%d rules", n)
	}
	accepted(t, envoytest.Binary(t), build(t, doc))
}

// TestDocumentedTLS holds the examples of docs/tls.md to the policy and to the real Envoy.
func TestDocumentedTLS(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../docs/tls.md")
	if err != nil {
		t.Fatal(err)
	}
	example := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)```yaml (\\w+)\n(.*?)```").FindAllStringSubmatch(string(raw), -1) {
		example[m[1]] = m[2]
	}
	doc := example["tls"] + strings.Replace(example["grpc"], "services:\n", "services:\n  - name: core\n    pools:\n"+indent(example["pools"], "      ")+"\n    routes: [{prefix: /v1}]\n", 1)
	p, err := policy.Parse([]byte(doc))
	if err != nil {
		t.Fatalf("%v\n%s", err, doc)
	}
	if len(p.TLS.Certificates) != 2 || len(p.Services) != 2 || p.Services[0].Pools[0].TLS == nil {
		t.Errorf("parsed %+v", p)
	}
	accepted(t, envoytest.Binary(t), build(t, doc))
}
