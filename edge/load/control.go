package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
)

// control speaks to the control API and to core's admin interface.
type control struct {
	base, token string
	http        *http.Client
}

func newControl(cfg Config) *control {
	return &control{base: cfg.Control, token: cfg.Token, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}}
}

// call makes one request within ten seconds.
func (c *control) call(ctx context.Context, method, url string, in []byte, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	resp, err := c.open(ctx, method, url, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 8<<20)).Decode(out); err != nil {
		return fmt.Errorf("%s %s: %w", method, url, err)
	}
	return nil
}

func (c *control) open(ctx context.Context, method, url string, in []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(in))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, bytes.TrimSpace(b))
	}
	return resp, nil
}

// follow notes decisions until ctx is done, over restarts of the control plane.
func (c *control) follow(ctx context.Context, to *decisions, log *slog.Logger) error {
	told := false
	for ctx.Err() == nil {
		err := c.watch(ctx, to)
		if ctx.Err() != nil {
			break
		}
		if !told {
			log.Warn("lost the stream of decisions, opening it again", "error", err)
			told = true
		}
		until(ctx, time.Now().Add(200*time.Millisecond))
	}
	return nil
}

func (c *control) watch(ctx context.Context, to *decisions) error {
	resp, err := c.open(ctx, http.MethodGet, c.base+"/v1/decisions/watch", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var d decide.Decision
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			return fmt.Errorf("decode decision: %w", err)
		}
		if d.ID != "" { // not a heartbeat
			to.note(d)
		}
	}
	return lines.Err()
}

// release moves a group back by hand.
func (c *control) release(ctx context.Context, group, reason string) (d decide.Decision, err error) {
	return d, c.move(ctx, group, "release", reason, &d)
}

func (c *control) isolate(ctx context.Context, group, reason string) (d decide.Decision, err error) {
	return d, c.move(ctx, group, "isolate", reason, &d)
}

func (c *control) move(ctx context.Context, group, what, reason string, d *decide.Decision) error {
	body, err := json.Marshal(map[string]string{"reason": reason, "by": "load"})
	if err != nil {
		return err
	}
	if err := c.call(ctx, http.MethodPost, c.base+"/v1/groups/"+group+"/"+what, body, d); err != nil {
		return fmt.Errorf("%s group %s: %w", what, group, err)
	}
	return nil
}

// fault is what core is asked to suffer from.
type faultRequest struct {
	LatencyMS  int64   `json:"latency_ms"`
	ErrorRatio float64 `json:"error_ratio"`
	ForMS      int64   `json:"for_ms"` // then it ends by itself, should the lab be gone
}

func (c *control) breakCore(ctx context.Context, admin string, f faultRequest) error {
	body, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := c.call(ctx, http.MethodPost, admin+"/v1/fault", body, nil); err != nil {
		return fmt.Errorf("switch the fault on: %w", err)
	}
	return nil
}

func (c *control) mendCore(ctx context.Context, admin string) error {
	if err := c.call(ctx, http.MethodDelete, admin+"/v1/fault", nil, nil); err != nil {
		return fmt.Errorf("switch the fault off: %w", err)
	}
	return nil
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
