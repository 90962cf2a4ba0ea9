package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/tracegate/tracegate/observability/semconv"
)

// http3 is a client of HTTP/3 that comes to host.
func (s *secured) http3(host string) *http.Client {
	tr := &http3.Transport{
		TLSClientConfig: &tls.Config{RootCAs: s.roots, ServerName: host},
		Dial: func(ctx context.Context, _ string, c *tls.Config, q *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, s.edge.TLS.Listen, c, q)
		},
	}
	s.t.Cleanup(func() { tr.Close() })
	return &http.Client{Timeout: 10 * time.Second, Transport: tr}
}

// testHTTP3 comes to the edge as a browser does: by TLS first, which says that there is
// HTTP/3, then by that.
func testHTTP3(t *testing.T, s *secured) {
	_, port, err := net.SplitHostPort(s.edge.TLS.Listen)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.get("chat.test", "/").Header.Get("Alt-Svc"), `h3=":`+port+`"; ma=86400`; got != want {
		t.Errorf("alt-svc %q, want %q", got, want)
	}
	client := s.http3("eu.chat.test")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://eu.chat.test/a//b", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Env", "canary")
	req.Header.Set(semconv.HeaderGroup, "forged")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got seen
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || resp.ProtoMajor != 3 {
		t.Fatalf("HTTP/%d, %v", resp.ProtoMajor, err)
	}
	// Colored, grouped, routed and cleaned as by every other way.
	if got.Pool != "canary" || got.Header.Get(semconv.HeaderGroup) != string(canary.ID()) || got.Path != "/a/b" || got.Host != "eu.chat.test" {
		t.Errorf("the upstream saw %+v", got)
	}
	if got.Header.Get("X-Forwarded-Proto") != "https" || resp.Header.Get("Strict-Transport-Security") == "" || resp.Header.Get("Server") != "tracegate" {
		t.Errorf("proto %q, headers %v", got.Header.Get("X-Forwarded-Proto"), resp.Header)
	}

	t.Run("streams of one connection are bounded", func(t *testing.T) {
		var open sync.WaitGroup
		ctx, leave := context.WithCancel(t.Context())
		defer open.Wait()
		defer leave()
		for range 150 {
			open.Go(func() {
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://eu.chat.test/", nil)
				req.Header.Set("X-Stay", "30s")
				if resp, err := client.Do(req); err == nil {
					resp.Body.Close()
				}
			})
		}
		active := func() uint64 { return s.stat(`^http\.edge\.downstream_rq_active$`) }
		waitFor(t, "100 open requests", func() bool { return active() >= 100 })
		if n := active(); n != 100 {
			t.Errorf("%d requests are open on one connection", n)
		}
	})
	t.Run("renewed", func(t *testing.T) {
		next := s.issue(t, "shop.test")
		s.renew("shop", next)
		waitFor(t, "the renewed certificate", func() bool {
			resp, err := s.http3("shop.test").Get("https://shop.test/")
			if err != nil {
				return false
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			return strings.Contains(resp.TLS.PeerCertificates[0].SerialNumber.String(), serialOf(t, next))
		})
	})
}
