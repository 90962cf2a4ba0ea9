package bootstrap_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/edge/bootstrap"
	"github.com/tracegate/tracegate/edge/envoytest"
	"github.com/tracegate/tracegate/mesh/identity"
	"github.com/tracegate/tracegate/mesh/identity/identitytest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Each folder of testdata is a case: config.json over the defaults gives
// bootstrap.json, and a real Envoy accepts it.
func TestGolden(t *testing.T) {
	cases, err := filepath.Glob("testdata/*")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, dir := range cases {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			in, err := os.ReadFile(filepath.Join(dir, "config.json"))
			if err != nil {
				t.Fatal(err)
			}
			cfg := bootstrap.DefaultConfig()
			if err := json.Unmarshal(in, &cfg); err != nil {
				t.Fatal(err)
			}
			b, err := bootstrap.Build(cfg)
			if err != nil {
				t.Fatal(err)
			}
			got, err := bootstrap.JSON(b)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join(dir, "bootstrap.json")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("-want +got (go test ./edge/bootstrap -update rewrites):\n%s", diff)
			}
			envoyAccepts(t, got, cfg)
		})
	}
}

// envoyAccepts puts an identity that can be read where a bootstrap has a name for one.
func envoyAccepts(t *testing.T, js []byte, cfg bootstrap.Config) {
	t.Helper()
	if cfg.Identity != "" {
		dir := t.TempDir()
		identitytest.Put(t, dir, identitytest.NewAuthority(t), identity.Edge, cfg.ID)
		files, err := bootstrap.IdentityFiles(dir)
		if err != nil {
			t.Fatal(err)
		}
		for path, content := range files {
			identitytest.Write(t, path, string(content))
		}
		js = bytes.ReplaceAll(js, []byte(cfg.Identity), []byte(dir))
	}
	path := filepath.Join(t.TempDir(), "bootstrap.json")
	if err := os.WriteFile(path, js, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), envoytest.Binary(t), "--mode", "validate", "--config-path", path, "--log-level", "error", "--disable-hot-restart")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), " OK") {
		t.Errorf("envoy --mode validate: %v\n%s", err, out)
	}
}

func TestValidateNamesTheKey(t *testing.T) {
	tests := []struct {
		name string
		set  func(*bootstrap.Config)
		want string
	}{
		{"id", func(c *bootstrap.Config) { c.ID = "" }, "id: is empty"},
		{"cluster", func(c *bootstrap.Config) { c.Cluster = "" }, "cluster: is empty"},
		{"admin to the world", func(c *bootstrap.Config) { c.Admin = "0.0.0.0:9901" }, "admin: 0.0.0.0:9901 is not a loopback address"},
		{"admin without port", func(c *bootstrap.Config) { c.Admin = "127.0.0.1:0" }, `admin: "127.0.0.1:0" has no port`},
		{"xds to the world", func(c *bootstrap.Config) { c.XDS = "10.0.0.5:18000" }, "xds: 10.0.0.5:18000 is not a loopback address"},
		{"xds by name", func(c *bootstrap.Config) { c.XDS = "localhost:18000" }, `xds: "localhost:18000" is not an ip:port`},
		{"heap", func(c *bootstrap.Config) { c.MaxHeapBytes = 1000 }, "maxHeapBytes: 1000 is too little, Envoy itself needs some 64 MiB"},
		{"connections", func(c *bootstrap.Config) { c.MaxConnections = 0 }, "maxConnections: 0 is not positive"},
		{"pools", func(c *bootstrap.Config) { c.Pools = []string{"a|b"} }, `pools: "a|b": want lower-case letters, digits and dashes`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := bootstrap.DefaultConfig()
			tt.set(&c)
			if _, err := bootstrap.Build(c); err == nil || err.Error() != tt.want {
				t.Errorf("got %v\nwant %s", err, tt.want)
			}
		})
	}
}
