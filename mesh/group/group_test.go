package group_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/tracegate/tracegate/mesh/group"
)

// vector is one line of testdata/vectors.json, which was computed outside Go so
// that the package is not its own witness. The filter and ClickHouse are held to
// the same file.
type vector struct {
	Name    string   `json:"name"`
	TraceID string   `json:"traceid"`
	Env     string   `json:"env"`
	Tenant  string   `json:"tenant"`
	Group   group.ID `json:"group"`
}

func vectors(t *testing.T) []vector {
	t.Helper()
	raw, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v []vector
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	if len(v) == 0 {
		t.Fatal("no vectors")
	}
	return v
}

func TestIDAgreesWithTheVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			c, ok := group.OfTrace(v.TraceID)
			if !ok {
				t.Fatalf("trace id %q refused", v.TraceID)
			}
			g := group.Group{Color: c, Env: v.Env, Tenant: v.Tenant}
			if got := g.ID(); got != v.Group {
				t.Errorf("group = %s, want %s", got, v.Group)
			}
			if !v.Group.Valid() {
				t.Errorf("%s is not a valid id", v.Group)
			}
		})
	}
}

func TestIDValid(t *testing.T) {
	for id, want := range map[group.ID]bool{
		"a1b2c3": true, "000000": true, "ffffff": true,
		"": false, "a1b2c": false, "a1b2c3d": false, "A1B2C3": false, "a1b2cg": false, "a1b2c ": false, "äb2c": false,
	} {
		if got := id.Valid(); got != want {
			t.Errorf("ID(%q).Valid() = %v, want %v", id, got, want)
		}
	}
}

func TestIDAllocatesForTheResultOnly(t *testing.T) {
	g := group.Group{Color: 0xf3aa1c20, Env: "canary", Tenant: "payment"}
	if n := testing.AllocsPerRun(100, func() { _ = g.ID() }); n > 1 {
		t.Errorf("%v allocations, want at most one", n)
	}
}

func TestClickHouseIDTakesTwoColumns(t *testing.T) {
	got := fmt.Sprintf(group.ClickHouseID, "Env", "Tenant")
	if strings.Contains(got, "%!") || !strings.Contains(got, "'|', Env, '|', Tenant") {
		t.Errorf("expression %q", got)
	}
}

func ExampleGroup_ID() {
	color, _ := group.OfTrace("f3aa1c20c4a9e6f0d1b2c3d4e5f60718")
	fmt.Println(group.Group{Color: color, Env: "canary", Tenant: "payment"}.ID())
	// Output: 127d33
}

func BenchmarkID(b *testing.B) {
	g := group.Group{Color: 0xf3aa1c20, Env: "canary", Tenant: "payment"}
	b.ReportAllocs()
	for b.Loop() {
		_ = g.ID()
	}
}
