package fanout_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/tracegate/tracegate/core/fanout"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/mesh/tlsdial"
	"github.com/tracegate/tracegate/mesh/tlsdial/tlsdialtest"
)

// startSecure runs a real Redis that lets in who has a certificate, and knows a user core.
func startSecure(t *testing.T, files tlsdialtest.Files) (addr string) {
	t.Helper()
	addr = freeport.ForTest(t)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	_, plain := startRedis(t, 0, "--tls-port", port, "--tls-cert-file", files.ServerCert, "--tls-key-file", files.ServerKey, "--tls-ca-cert-file", files.CA)
	admin := redis.NewClient(&redis.Options{Addr: plain, Password: password})
	defer admin.Close()
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "core", "on", ">of core", "~*", "&*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	return addr
}

// crosses checks that a push of one process reaches a user of another.
func crosses(t *testing.T, cfg fanout.Config) {
	t.Helper()
	one, two := start(t, cfg, "n1"), start(t, cfg, "n2")
	users := []string{"ann", "bob", "cid", "dan"}
	for _, u := range users {
		two.Subscribe(u)
		eventually(t, "subscribed", func() bool { return two.in.subscribed(u) > 0 })
	}
	eventually(t, "healthy", func() bool { return one.Healthy() && two.Healthy() })
	for _, u := range users {
		one.Publish([]fanout.Push{push(u, 1)})
		eventually(t, "the push", func() bool { return len(two.in.of(u)) == 1 })
	}
}

func TestByTLSAndUserName(t *testing.T) {
	files := tlsdialtest.New(t)
	cfg := config(startSecure(t, files))
	cfg.Username, cfg.Password, cfg.TLS = "core", "of core", files.Client()
	crosses(t, cfg)
}

// TestOneAddressOfACluster finds the others by it.
func TestOneAddressOfACluster(t *testing.T) {
	cfg := config(startCluster(t, redisBinary)[0])
	cfg.Cluster = true
	crosses(t, cfg)
}

// TestServersAndClientsRefuse: what is logged says what has failed.
func TestServersAndClientsRefuse(t *testing.T) {
	files, others := tlsdialtest.New(t), tlsdialtest.New(t)
	addr := startSecure(t, files)
	for name, tc := range map[string]struct {
		tls  tlsdial.Config
		want string // empty where the server's word may be lost with the connection
	}{
		"a server of another authority":  {others.Client(), "connect to " + addr + " by tls: tls: failed to verify certificate: x509"},
		"a client of another authority":  {tlsdial.Config{Enabled: true, CAFile: files.CA, CertFile: others.ClientCert, KeyFile: others.ClientKey}, ""},
		"a client without a certificate": {tlsdial.Config{Enabled: true, CAFile: files.CA}, ""},
		"another password":               {files.Client(), "WRONGPASS"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(addr)
			cfg.Username, cfg.Password, cfg.TLS = "core", "of somebody else", tc.tls
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			log := lines(make(chan string, 1))
			f, err := fanout.New(cfg, "n1", prometheus.NewRegistry(), slog.New(slog.NewTextHandler(log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- f.Run(ctx, &inbox{}) }()
			select {
			case line := <-log:
				if !strings.Contains(line, "redis is not ready") || !strings.Contains(line, tc.want) || strings.Contains(line, "somebody else") {
					t.Errorf("logged %s, want %q", line, tc.want)
				}
			case err := <-done:
				t.Fatal("ended:", err)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// lines are those that are logged first.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	select {
	case l <- string(p):
	default:
	}
	return len(p), nil
}

func TestFilesThatAreNotThere(t *testing.T) {
	cfg := config("127.0.0.1:1")
	cfg.TLS = tlsdial.Config{Enabled: true, CAFile: "nowhere"}
	if _, err := fanout.New(cfg, "n1", prometheus.NewRegistry(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "read tls.ca_file: ") {
		t.Errorf("got %v", err)
	}
}
