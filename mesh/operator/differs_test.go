package operator

import (
	"testing"

	"sigs.k8s.io/yaml"
)

func TestDiffers(t *testing.T) {
	for _, c := range []struct{ name, have, want, at string }{
		{"the same", `{a: {b: 1}}`, `{a: {b: 1}}`, ""},
		{"defaults do not count", `{a: {b: 1, c: 2}, d: x}`, `{a: {b: 1}}`, ""},
		{"another value", `{a: {b: 2}}`, `{a: {b: 1}}`, "a.b"},
		{"nothing there", `{}`, `{a: {b: 1}}`, "a.b"},
		{"empty map", `{}`, `{resources: {}}`, ""},
		{"somebody's container", `{containers: [{name: sidecar}, {name: app, image: x}]}`, `{containers: [{name: app, image: x}]}`, ""},
		{"our container", `{containers: [{name: sidecar}, {name: app, image: y}]}`, `{containers: [{name: app, image: x}]}`, "containers[0].image"},
		{"container away", `{containers: [{name: sidecar}]}`, `{containers: [{name: app, image: x}]}`, "containers[0]"},
		{"argument added", `{args: [a, b]}`, `{args: [a]}`, "args"},
		{"argument changed", `{args: [b]}`, `{args: [a]}`, "args[0]"},
		{"rule added", `{spec: {ingress: [{}, {from: [{}]}]}}`, `{spec: {ingress: [{from: [{}]}]}}`, "spec.ingress"},
		{"nobody", `{spec: {}}`, `{spec: {ingress: []}}`, ""},
		{"everybody", `{spec: {ingress: [{}]}}`, `{spec: {ingress: []}}`, "spec.ingress"},
		{"port of a rule added", `{ingress: [{ports: [{port: 1}, {port: 2}]}]}`, `{ingress: [{ports: [{port: 1}]}]}`, "ingress[0].ports"},
	} {
		var have, want map[string]any
		for text, into := range map[string]*map[string]any{c.have: &have, c.want: &want} {
			if err := yaml.Unmarshal([]byte(text), into); err != nil {
				t.Fatal(err)
			}
		}
		if c.have == c.want {
			have = want
		}
		if at := differs(have, want); at != c.at {
			t.Errorf("%s: %q, want %q", c.name, at, c.at)
		}
	}
}
