package source_test

import (
	"context"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/source"
)

const shownKeys = `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"1"}]}`

// asking runs a JWKS until the test ends.
func asking(t *testing.T, j source.JWKS) (chan<- []source.KeySet, <-chan source.KeyUpdate) {
	t.Helper()
	want, out := make(chan []source.KeySet), make(chan source.KeyUpdate)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx, want, out) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return want, out
}

func TestJWKS(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/keys", answer(200, shownKeys))
	mux.Handle("/away", answer(503, shownKeys))
	mux.Handle("/page", answer(200, "<html>"))
	mux.Handle("/large", answer(200, strings.Repeat(" ", policy.MaxJWKS+1)+shownKeys))
	mux.Handle("/secret", answer(200, `{"keys":[{"kty":"oct","k":"AA"}]}`))
	mux.Handle("/moved", http.RedirectHandler("/keys", http.StatusFound))
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	plain, encrypted, other := httptest.NewServer(mux), httptest.NewTLSServer(mux), httptest.NewUnstartedServer(mux)
	for _, s := range []*httptest.Server{plain, encrypted, other} {
		t.Cleanup(s.Close)
	}
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: encrypted.Certificate().Raw}))
	keys, err := policy.ParseJWKS([]byte(shownKeys))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		set  source.KeySet
		says string // empty: the keys
	}{
		"by http":                      {source.KeySet{URL: plain.URL + "/keys"}, ""},
		"by https":                     {source.KeySet{URL: encrypted.URL + "/keys", CA: ca}, ""},
		"of whom the system believes":  {source.KeySet{URL: encrypted.URL + "/keys"}, "certificate"},
		"of an authority that is none": {source.KeySet{URL: encrypted.URL + "/keys", CA: "x"}, "no certificate among the authorities"},
		"an error":                     {source.KeySet{URL: plain.URL + "/away"}, "503"},
		"a page":                       {source.KeySet{URL: plain.URL + "/page"}, "no JSON object"},
		"too much":                     {source.KeySet{URL: plain.URL + "/large"}, "more than"},
		"a secret":                     {source.KeySet{URL: plain.URL + "/secret"}, "is a secret"},
		"elsewhere":                    {source.KeySet{URL: plain.URL + "/moved"}, "302"},
		"no answer":                    {source.KeySet{URL: plain.URL + "/slow"}, "deadline"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := 30 * time.Second
			if name == "no answer" {
				timeout = time.Millisecond
			}
			want, out := asking(t, source.JWKS{Timeout: timeout})
			tt.set.Refresh = time.Hour
			want <- []source.KeySet{tt.set}
			u := <-out
			switch {
			case u.URL != tt.set.URL:
				t.Errorf("answer of %s", u.URL)
			case tt.says == "" && (u.Err != nil || u.Keys != keys):
				t.Errorf("got %s, %v", u.Keys, u.Err)
			case tt.says != "" && (u.Err == nil || !strings.Contains(u.Err.Error(), tt.says) || u.Keys != ""):
				t.Errorf("got %s, %v, want %s", u.Keys, u.Err, tt.says)
			}
		})
	}
}

// TestJWKSAsksWhatIsWanted: one that does not answer keeps no other waiting, answers come
// again and again, and what is not wanted any more is not asked.
func TestJWKSAsksWhatIsWanted(t *testing.T) {
	t.Parallel()
	came, left := make(chan struct{}, 1), make(chan struct{}, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			came <- struct{}{}
			<-r.Context().Done()
			left <- struct{}{}
			return
		}
		io.WriteString(w, shownKeys)
	}))
	t.Cleanup(s.Close)
	want, out := asking(t, source.JWKS{Timeout: time.Hour})
	slow, quick, next := source.KeySet{URL: s.URL + "/slow", Refresh: time.Millisecond}, source.KeySet{URL: s.URL + "/quick", Refresh: time.Millisecond}, source.KeySet{URL: s.URL + "/next", Refresh: time.Millisecond}
	want <- []source.KeySet{slow, quick}
	for range 3 {
		if u := <-out; u.URL != quick.URL || u.Err != nil {
			t.Fatalf("got %+v", u)
		}
	}
	<-came
	want <- []source.KeySet{next}
	<-left // the question is taken back
	for u := range out {
		if u.URL == next.URL {
			break
		}
	}
	late := 0
	for range 10 {
		if u := <-out; u.URL != next.URL {
			late++
		}
	}
	if late > 1 { // an answer that was on its way
		t.Errorf("%d answers that nobody wants any more", late)
	}
}
