package store_test

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/mesh/tlsdial"
	"github.com/tracegate/tracegate/mesh/tlsdial/tlsdialtest"
	"github.com/tracegate/tracegate/observability/engine/enginetest"
	"github.com/tracegate/tracegate/observability/store"
)

// terminate stands before an engine, which has no TLS of its own.
func terminate(t *testing.T, c *tls.Config, engine string) (addr string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", engine)
			if err != nil {
				from.Close()
				continue
			}
			for a, b := range map[net.Conn]net.Conn{from: to, to: from} {
				go func() {
					_, _ = io.Copy(a, b)
					a.Close()
				}()
			}
		}
	}()
	return l.Addr().String()
}

// TestByTLS: schema, inserts and queries, which go by two clients.
func TestByTLS(t *testing.T) {
	_, plain, e := open(t)
	files, others := tlsdialtest.New(t), tlsdialtest.New(t)
	cfg := config(e)
	cfg.Addr, cfg.TLS = terminate(t, files.Server(t), e.Addr), files.Client()
	s, err := store.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.InsertSpans(t.Context(), "by tls", []store.Span{entry(1, "prod", "search", "baseline", at(0), time.Millisecond, "Ok")}); err != nil {
		t.Fatal(err)
	}
	if n := count(t, plain, "SELECT count() FROM otel_traces"); n != 1 {
		t.Errorf("%d spans, want 1", n)
	}
	for name, tc := range map[string]struct {
		tls  tlsdial.Config
		want string // empty where the server's word may be lost with the connection
	}{
		"a server of another authority":  {others.Client(), "connect to " + cfg.Addr + " by tls: tls: failed to verify certificate: x509"},
		"a client without a certificate": {tlsdial.Config{Enabled: true, CAFile: files.CA}, ""},
	} {
		cfg.TLS = tc.tls
		refused, err := store.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		asked := refused.Ping(t.Context())
		inserted := refused.InsertSpans(t.Context(), name, []store.Span{entry(1, "prod", "search", "baseline", at(0), time.Millisecond, "Ok")})
		for what, err := range map[string]error{"ping": asked, "insert": inserted} {
			if err == nil || !strings.Contains(err.Error(), tc.want) || !store.Temporary(err) {
				t.Errorf("%s, %s: %v, want %q", name, what, err, tc.want)
			}
		}
		refused.Close()
	}
}

func TestConfigNamesTheKeyOfTLS(t *testing.T) {
	cfg := config(&enginetest.Engine{Addr: "127.0.0.1:1"})
	cfg.TLS.CAFile = "nowhere"
	if _, err := store.Open(cfg); err == nil || !strings.Contains(err.Error(), "tls.enabled: ") {
		t.Errorf("got %v", err)
	}
	cfg.TLS.Enabled = true
	if _, err := store.Open(cfg); err == nil || !strings.Contains(err.Error(), "read tls.ca_file: ") {
		t.Errorf("got %v", err)
	}
}
