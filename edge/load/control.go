package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/group"
)

// operator is who the lab is to the control plane.
const operator = "load"

// How long the lab's orders hold policy back. What it releases is policy's again at
// once; what it isolates comes back by itself, should the lab be gone.
const (
	momentarily = time.Millisecond
	aWhile      = time.Minute
)

func newControl(cfg Config) *ctlapi.Client {
	return ctlapi.NewClient(strings.TrimPrefix(strings.TrimSuffix(cfg.Control, "/"), "http://"), cfg.Token)
}

// follow notes decisions until ctx is done, over restarts of the control plane.
func follow(ctx context.Context, c *ctlapi.Client, to *decisions) error {
	err := c.WatchDecisions(ctx, to.note)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("watch decisions: %w", err)
	}
	return nil
}

// admin speaks to core's admin interface and to Envoy's.
type admin struct {
	token string
	http  *http.Client
}

func newAdmin(cfg Config) *admin {
	return &admin{token: cfg.Token, http: &http.Client{Timeout: 10 * time.Second}}
}

// faultRequest is what core is asked to suffer from.
type faultRequest struct {
	LatencyMS  int64   `json:"latency_ms"`
	ErrorRatio float64 `json:"error_ratio"`
	Dial       string  `json:"dial,omitempty"`
	ForMS      int64   `json:"for_ms"` // then it ends by itself, should the lab be gone
}

func (a *admin) breakCore(ctx context.Context, address string, f faultRequest) error {
	body, err := json.Marshal(f)
	if err == nil {
		_, err = a.call(ctx, http.MethodPost, address+"/v1/fault", body)
	}
	if err != nil {
		return fmt.Errorf("switch the fault on: %w", err)
	}
	return nil
}

func (a *admin) mendCore(ctx context.Context, address string) error {
	if _, err := a.call(ctx, http.MethodDelete, address+"/v1/fault", nil); err != nil {
		return fmt.Errorf("switch the fault off: %w", err)
	}
	return nil
}

// listenerCounters are those of Envoy's listener manager that grow when a listener is
// touched: https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/listeners/stats#listener-manager
func (a *admin) listenerCounters(ctx context.Context, envoy string) (map[string]int64, error) {
	b, err := a.call(ctx, http.MethodGet, envoy+"/stats?filter=^listener_manager\\.", nil)
	if err != nil {
		return nil, fmt.Errorf("read Envoy's counters: %w", err)
	}
	out := map[string]int64{}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		short := strings.TrimPrefix(name, "listener_manager.")
		n, err := strconv.ParseInt(value, 10, 64)
		if err == nil && (strings.HasPrefix(short, "listener_") || short == "lds.update_success") {
			out[short] = n
		}
	}
	if len(out) == 0 {
		return nil, errors.New("read Envoy's counters: there is no listener_manager among them")
	}
	return out, nil
}

func (a *admin) call(ctx context.Context, method, url string, in []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(in))
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(req.URL.Path, "/v1/fault") { // Envoy's admin interface is not told the token
		req.Header.Set("Authorization", "Bearer "+a.token)
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, url, err)
	}
	if resp.StatusCode >= 300 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, bytes.TrimSpace(b[:min(len(b), 500)]))
	}
	return b, nil
}

// decisions is the newest state of every decision seen. It is safe for concurrent use.
type decisions struct {
	mu      sync.Mutex
	order   []string
	byID    map[string]decide.Decision
	changed chan struct{} // closed and replaced with every change
}

func newDecisions() *decisions {
	return &decisions{byID: map[string]decide.Decision{}, changed: make(chan struct{})}
}

func (d *decisions) note(n decide.Decision) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, had := d.byID[n.ID]; !had {
		d.order = append(d.order, n.ID)
	}
	d.byID[n.ID] = n
	close(d.changed)
	d.changed = make(chan struct{})
}

// await gives the first decision that fits, waiting for it until by.
func (d *decisions) await(ctx context.Context, by time.Time, fits func(decide.Decision) bool) (decide.Decision, bool) {
	timer := time.NewTimer(time.Until(by))
	defer timer.Stop()
	for {
		d.mu.Lock()
		changed := d.changed
		i := slices.IndexFunc(d.order, func(id string) bool { return fits(d.byID[id]) })
		var found decide.Decision
		if i >= 0 {
			found = d.byID[d.order[i]]
		}
		d.mu.Unlock()
		if i >= 0 {
			return found, true
		}
		select {
		case <-changed:
		case <-timer.C:
			return decide.Decision{}, false
		case <-ctx.Done():
			return decide.Decision{}, false
		}
	}
}

// since lists the decisions from a moment on about the given groups, in the order in
// which they came.
func (d *decisions) since(moment time.Time, groups map[string]bool) []decide.Decision {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []decide.Decision
	for _, id := range d.order {
		if n := d.byID[id]; !n.Time.Before(moment) && groups[string(n.Group)] {
			out = append(out, n)
		}
	}
	return out
}

// programmed waits until a decision is acknowledged by every edge.
func (d *decisions) programmed(ctx context.Context, id string, by time.Time) (decide.Decision, bool) {
	return d.await(ctx, by, func(n decide.Decision) bool { return n.ID == id && !n.Programmed.IsZero() })
}

// order is what the lab says with an order about a group: that of its users, or with an
// identity one that nobody belongs to.
func order(reason string, holds time.Duration, g *group.Group) ctlapi.Order {
	o := ctlapi.Order{Reason: reason, By: operator, ForMS: holds.Milliseconds()}
	if g != nil {
		o.Identity = &ctlapi.Identity{Color: g.Color.String(), Env: g.Env, Tenant: g.Tenant}
	}
	return o
}
