package source

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/tracegate/tracegate/controlplane/policy"
)

// JWKS asks identity providers for their public keys, each by itself, so that one that does
// not answer keeps none of the others waiting. It keeps nothing: whoever receives has the
// last good keys, and they go on while a provider is away.
//
// Keys are asked for here and not by each edge, as names are ([DNS]): why is in
// controlplane/xds. A token of a new key is refused until the next question, so a provider
// shows a key before it signs with it, as OpenID Connect's providers do.
type JWKS struct {
	Timeout time.Duration // of one question; 5 s where zero
	Retry   time.Duration // after the first failure, doubled with each, at most 30 s; 1 s where zero
}

// KeySet is what is asked for.
type KeySet struct {
	URL     string
	CA      string        // PEM; the system's where empty
	Refresh time.Duration // between two questions
}

// KeyUpdate is one answer. Exactly one of Keys and Err holds.
type KeyUpdate struct {
	URL  string
	Keys string // as [policy.ParseJWKS] gives them
	Err  error
}

const (
	defaultJWKSTimeout = 5 * time.Second
	defaultJWKSRetry   = time.Second
	maxJWKSRetry       = 30 * time.Second
)

// Run asks for the sets that were sent last, and sends each answer, until ctx is done.
func (j JWKS) Run(ctx context.Context, want <-chan []KeySet, out chan<- KeyUpdate) error {
	var asking sync.WaitGroup
	defer asking.Wait()
	running := map[KeySet]context.CancelFunc{}
	for {
		select {
		case sets := <-want:
			for s, stop := range running {
				if !slices.Contains(sets, s) {
					stop()
					delete(running, s)
				}
			}
			for _, s := range sets {
				if running[s] == nil {
					one, stop := context.WithCancel(ctx)
					running[s] = stop
					asking.Go(func() { j.keepAsking(one, s, out) })
				}
			}
		case <-ctx.Done():
			for _, stop := range running {
				stop()
			}
			return nil
		}
	}
}

func (j JWKS) keepAsking(ctx context.Context, s KeySet, out chan<- KeyUpdate) {
	first := j.Retry
	if first <= 0 {
		first = defaultJWKSRetry
	}
	retry := first
	for {
		u := KeyUpdate{URL: s.URL}
		u.Keys, u.Err = j.ask(ctx, s)
		select {
		case out <- u:
		case <-ctx.Done():
			return
		}
		wait := s.Refresh
		if u.Err != nil {
			wait = min(retry, wait)
			retry = min(2*retry, maxJWKSRetry)
		} else {
			retry = first
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// ask takes no redirect: where the keys are is what the policy says.
func (j JWKS) ask(ctx context.Context, s KeySet) (string, error) {
	timeout := j.Timeout
	if timeout <= 0 {
		timeout = defaultJWKSTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CA != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(s.CA)) {
			return "", errors.New("no certificate among the authorities")
		}
	}
	client := http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	if err != nil {
		return "", fmt.Errorf("ask for keys: %w", err)
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask for keys: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("ask for keys: %s answers %s", s.URL, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, policy.MaxJWKS+1))
	if err != nil {
		return "", fmt.Errorf("read keys: %w", err)
	}
	keys, err := policy.ParseJWKS(body)
	if err != nil {
		return "", fmt.Errorf("read keys: %w", err)
	}
	return keys, nil
}
