package search

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/core/protocol"
)

// TestSearchNeedsTheToken: whoever may search may search as anybody, so nobody may without.
func TestSearchNeedsTheToken(t *testing.T) {
	const token = "0123456789abcdef"
	d := newDesk(t)
	reg := prometheus.NewRegistry()
	m, err := newMetrics(reg, d.index)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(newHandler(token, d.Searcher, m, reg, quiet()))
	defer server.Close()
	for _, tt := range []struct {
		authorization string
		status        int
	}{
		{"", http.StatusUnauthorized},
		{"Bearer ", http.StatusUnauthorized},
		{"Bearer 0123456789abcdeg", http.StatusUnauthorized},
		{"Bearer " + token[:15], http.StatusUnauthorized},
		{"Bearer " + token + "0", http.StatusUnauthorized},
		{token, http.StatusUnauthorized},
		{"Basic " + token, http.StatusUnauthorized},
		{"Bearer " + token, http.StatusOK},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/v1/search", strings.NewReader(`{"user_id":"u-ann","text":"x","limit":1}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", tt.authorization)
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("%q: status %d, want %d", tt.authorization, resp.StatusCode, tt.status)
		}
	}
	addr := strings.TrimPrefix(server.URL, "http://")
	c := NewClient(ClientConfig{Addrs: []string{addr}, Token: "another token, as long"})
	_, err = c.Search(t.Context(), Query{UserID: "u-ann", Text: "x", Limit: 1})
	if pe, ok := errors.AsType[*protocol.Error](err); !ok || pe.Code != protocol.CodeUnavailable || !strings.Contains(err.Error(), "answers 401") {
		t.Errorf("a client with another token: %v", err) // trouble of ours, not the user's
	}
}

// TestListensOnLoopbackOnly: it is not encrypted.
func TestListensOnLoopbackOnly(t *testing.T) {
	for addr, right := range map[string]bool{
		"127.0.0.1:9301": true, "[::1]:9301": true,
		"0.0.0.0:9301": false, ":9301": false, "10.0.0.5:9301": false, "localhost:9301": false, "[::]:9301": false,
	} {
		cfg := DefaultConfig()
		cfg.Listen, cfg.Token, cfg.Store.URL = addr, "0123456789abcdef", "sqlite:x"
		err := cfg.Validate()
		if refused := err != nil && strings.HasPrefix(err.Error(), "listen:"); refused == right {
			t.Errorf("%s: %v", addr, err)
		}
	}
}
