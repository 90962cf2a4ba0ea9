package policy

import (
	"strings"
	"testing"
)

func TestZones(t *testing.T) {
	t.Parallel()
	e, err := ParseEndpoints([]byte(`
services: {core: {baseline: ["10.0.1.7:9101", "dns://core.internal:9101"]}}
zones: {a: [10.0.0.0/16, "fd00::/16"], b: [10.0.1.0/24, 10.0.2.9]}
`))
	if err != nil {
		t.Fatal(err)
	}
	zone := e.ZoneOf()
	for instance, want := range map[string]string{
		"10.0.0.1:80": "a", "10.0.1.1:80": "b", "10.0.2.9:80": "b", "10.0.2.8:80": "a", "[fd00::1]:80": "a", "[::ffff:10.0.1.1]:80": "b",
		"192.0.2.1:80": "", "dns://core.internal:80": "", "": "",
	} {
		if got := zone(instance); got != want {
			t.Errorf("zone of %q is %q, want %q", instance, got, want)
		}
	}
	if (Endpoints{}).ZoneOf() != nil {
		t.Error("without zones there is a function")
	}
	for doc, want := range map[string]string{
		"zones: {-a: [10.0.0.0/8]}":                    "zones.-a",
		"zones: {a: [10.0.0]}":                         "zones.a[0]",
		"zones: {a: [10.0.0.0/8], b: [x, 10.0.0.0/8]}": "zones.b[1]",
		"zones: {a: [10.0.0.9/8], b: [10.0.0.0/8]}":    "zones.b[0]",
		"zones: {a: [127.0.0.1], b: [127.0.0.1/32]}":   "zones.b[0]",
	} {
		_, err := ParseEndpoints([]byte("services: {core: {baseline: ['10.0.1.7:9101']}}\n" + doc))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", doc, err, want)
		}
	}
}

func TestZoneBalance(t *testing.T) {
	t.Parallel()
	for balance, want := range map[string]string{
		"{prefer: true}": "", "{weights: {a: 3, b: 1}}": "",
		"{}":                              "pools[0].zones",
		"{prefer: true, weights: {a: 1}}": "pools[0].zones",
		"{weights: {a: 0}}":               "zones.weights.a",
		"{weights: {a-: 1}}":              "zones.weights.a-",
		"{weights: {a: 10001}}":           "zones.weights.a",
		"{weights: {a: -1}}":              "zones",
		"{nearest: true}":                 "nearest",
	} {
		_, err := Parse([]byte("services:\n  - name: core\n    pools: [{name: baseline, zones: " + balance + "}]\n    routes: [{prefix: /}]\n"))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", balance, err, want)
		}
	}
}
