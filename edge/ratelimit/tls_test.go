package ratelimit

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/tracegate/tracegate/edge/artifact/engine"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/mesh/tlsdial"
	"github.com/tracegate/tracegate/mesh/tlsdial/tlsdialtest"
)

// startSecure runs a cluster of one Redis that lets in who has a certificate, and knows a
// user edge.
func startSecure(t *testing.T, files tlsdialtest.Files) (addr string) {
	t.Helper()
	e, err := engine.Redis(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("redis is required when CI=true: %v", err)
		}
		t.Skipf("no real redis: %v", err)
	}
	port, err := freeport.Row("127.0.0.1", 2, 10_000) // the cluster's bus listens 10000 above
	if err != nil {
		t.Fatal(err)
	}
	plain := startRedis(t, e, "--tls-port", fmt.Sprint(port), "--tls-cert-file", files.ServerCert, "--tls-key-file", files.ServerKey, "--tls-ca-cert-file", files.CA,
		"--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1", "--tls-cluster", "yes")
	admin := redis.NewClient(&redis.Options{Addr: plain})
	defer admin.Close()
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "edge", "on", ">of edge", "~*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	if err := admin.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); !strings.Contains(admin.ClusterInfo(t.Context()).Val(), "cluster_state:ok"); {
		if time.Now().After(deadline) {
			t.Fatal("no cluster")
		}
	}
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "default", "resetpass", ">of nobody").Err(); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// TestOfAClusterByTLSAndUserName: by one of its addresses.
func TestOfAClusterByTLSAndUserName(t *testing.T) {
	files, others := tlsdialtest.New(t), tlsdialtest.New(t)
	cfg := DefaultConfig()
	cfg.Redis, cfg.Timeout = []string{startSecure(t, files)}, 20*time.Second
	cfg.Cluster, cfg.TLS, cfg.Username, cfg.Password = true, files.Client(), "edge", "of edge"
	s := serviceOf(t, cfg)
	const both, of = "limit=a rate=1/3600 closed=true", "limit=b rate=1/3600 closed=true" // of two slots
	if r := ask(t, s, both, of); !passes(r) {
		t.Errorf("the first: %v", r)
	}
	if r := ask(t, s, both, of); passes(r) || r.GetStatuses()[0].GetCurrentLimit() == nil {
		t.Errorf("the second: %v, want what a count refuses", r)
	}
	for name, edit := range map[string]func(*Config){
		"a server of another authority":  func(c *Config) { c.TLS = others.Client() },
		"a client without a certificate": func(c *Config) { c.TLS = tlsdial.Config{Enabled: true, CAFile: files.CA} },
		"another password":               func(c *Config) { c.Password = "of somebody else" },
		"without a user name":            func(c *Config) { c.Username = "" },
	} {
		refused := cfg
		edit(&refused)
		if r := ask(t, serviceOf(t, refused), "limit=c rate=9/3600 closed=true"); passes(r) || r.GetStatuses()[0].GetCurrentLimit() != nil {
			t.Errorf("%s: %v, want no counts", name, r)
		}
	}
}

func TestConfigNamesTheKeyOfTLS(t *testing.T) {
	cfg := DefaultConfig()
	cfg.TLS.CAFile = "nowhere"
	if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), "tls.enabled: ") {
		t.Errorf("got %v", err)
	}
	cfg.TLS.Enabled = true
	if _, err := New(cfg, prometheus.NewRegistry(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "read tls.ca_file: ") {
		t.Errorf("got %v", err)
	}
}
