package envoy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// ErrNotReady is what [Admin.Ready] returns while Envoy has no configuration yet,
// or drains.
var ErrNotReady = errors.New("envoy is not ready")

// Admin talks to the admin interface of a running Envoy. It keeps no connection
// that would have to be closed.
type Admin struct {
	base   string
	client *http.Client
}

// NewAdmin takes the interface's host:port.
func NewAdmin(addr string) *Admin {
	return &Admin{base: "http://" + addr, client: &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			DialContext:       (&net.Dialer{Timeout: time.Second}).DialContext,
			DisableKeepAlives: true,
		},
	}}
}

// Ready returns nil once Envoy has its first configuration and serves.
func (a *Admin) Ready(ctx context.Context) error {
	body, err := a.do(ctx, http.MethodGet, "/ready")
	var status *statusError
	if errors.As(err, &status) {
		return fmt.Errorf("%w: %s", ErrNotReady, strings.TrimSpace(string(body)))
	}
	return err
}

// Stats returns the counters and gauges whose name matches the regular expression
// (RE2, unanchored; empty for all). Metrics that were never touched are there as
// well; histograms and text readouts are not.
func (a *Admin) Stats(ctx context.Context, filter string) (map[string]uint64, error) {
	body, err := a.do(ctx, http.MethodGet, "/stats?filter="+url.QueryEscape(filter))
	if err != nil {
		return nil, err
	}
	stats := map[string]uint64{}
	for lines := bufio.NewScanner(strings.NewReader(string(body))); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), ": ")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			stats[name] = n
		}
	}
	return stats, nil
}

// Sum is the sum of the counters and gauges that match.
func (a *Admin) Sum(ctx context.Context, filter string) (uint64, error) {
	stats, err := a.Stats(ctx, filter)
	var sum uint64
	for _, n := range stats {
		sum += n
	}
	return sum, err
}

// Listeners are the counters that must stand still while only routes change.
type Listeners struct {
	Added, Modified, Removed, Active, Draining, Rejected uint64
}

// Listeners reads Envoy's listener manager.
func (a *Admin) Listeners(ctx context.Context) (Listeners, error) {
	s, err := a.Stats(ctx, `^listener_manager\.`)
	if err != nil {
		return Listeners{}, err
	}
	return Listeners{
		Added: s["listener_manager.listener_added"], Modified: s["listener_manager.listener_modified"],
		Removed: s["listener_manager.listener_removed"], Active: s["listener_manager.total_listeners_active"],
		Draining: s["listener_manager.total_listeners_draining"], Rejected: s["listener_manager.lds.update_rejected"],
	}, nil
}

// ConfigDump returns Envoy's configuration as it has it, with endpoints.
func (a *Admin) ConfigDump(ctx context.Context) (json.RawMessage, error) {
	body, err := a.do(ctx, http.MethodGet, "/config_dump?include_eds")
	if err != nil {
		return nil, err
	}
	if !json.Valid(body) {
		return nil, errors.New("config dump is not JSON")
	}
	return body, nil
}

// Prometheus returns all metrics in Prometheus' text format.
func (a *Admin) Prometheus(ctx context.Context) ([]byte, error) {
	return a.do(ctx, http.MethodGet, "/stats/prometheus")
}

// Post runs an admin command, such as /healthcheck/fail.
func (a *Admin) Post(ctx context.Context, path string) error {
	_, err := a.do(ctx, http.MethodPost, path)
	return err
}

type statusError struct{ code int }

func (e *statusError) Error() string { return fmt.Sprintf("status %d", e.code) }

// do returns the body also where the status is not 200 (a [statusError]).
func (a *Admin) do(ctx context.Context, method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask envoy: %w", err)
	}
	defer resp.Body.Close()
	const limit = 256 << 20 // a config dump of many thousand routes
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	if err != nil {
		return nil, fmt.Errorf("ask envoy: read %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return body, fmt.Errorf("ask envoy: %s: %w", path, &statusError{resp.StatusCode})
	}
	return body, nil
}
