package ctlapi

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/placement"
)

// Client calls one control plane. It is safe for concurrent use.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// NewClient returns a client for an address such as "127.0.0.1:18001".
func NewClient(addr, token string) *Client { return newClient("http://"+addr, token, nil) }

// NewTLSClient is for a control plane beyond loopback. The server proves itself to
// trust; the client does by its token.
func NewTLSClient(addr, token string, trust *tls.Config) *Client {
	return newClient("https://"+addr, token, trust)
}

func newClient(base, token string, trust *tls.Config) *Client {
	return &Client{base: base, token: token, http: &http.Client{Transport: &http.Transport{
		MaxIdleConns: 4, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: 10 * time.Second, TLSClientConfig: trust,
	}}}
}

// Status is GET /v1/status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var out Status
	return out, c.call(ctx, http.MethodGet, PathStatus, nil, &out)
}

// Placement is the last published placement.
func (c *Client) Placement(ctx context.Context) (placement.Placement, error) {
	var out placement.Placement
	return out, c.call(ctx, http.MethodGet, PathPlacement, nil, &out)
}

// Groups are all known groups, sorted by id.
func (c *Client) Groups(ctx context.Context) ([]Group, error) {
	var out []Group
	return out, c.call(ctx, http.MethodGet, PathGroups, nil, &out)
}

// Decisions are the newest decisions, newest first.
func (c *Client) Decisions(ctx context.Context, limit int) ([]decide.Decision, error) {
	return c.FindDecisions(ctx, DecisionQuery{Limit: limit})
}

// DecisionQuery says which decisions are asked for; what is zero asks for any, but for Limit.
type DecisionQuery struct {
	Since  time.Time
	Group  group.ID
	Action decide.Action
	Limit  int
}

// FindDecisions are the newest of those that are asked for, newest first.
func (c *Client) FindDecisions(ctx context.Context, q DecisionQuery) ([]decide.Decision, error) {
	v := url.Values{"limit": {strconv.Itoa(q.Limit)}}
	setSince(v, q.Since)
	if q.Group != "" {
		v.Set("group", string(q.Group))
	}
	if q.Action != "" {
		v.Set("action", string(q.Action))
	}
	var out []decide.Decision
	return out, c.call(ctx, http.MethodGet, PathDecisions+"?"+v.Encode(), nil, &out)
}

// Isolate moves a group to the isolated pool, whatever policy thinks of it.
func (c *Client) Isolate(ctx context.Context, id group.ID, o Order) (decide.Decision, error) {
	return c.order(ctx, id, "isolate", o)
}

// Pin has the pool that the order names serve a group for a while, whatever policy thinks of it.
func (c *Client) Pin(ctx context.Context, id group.ID, o Order) (decide.Decision, error) {
	return c.order(ctx, id, "pin", o)
}

// Release sends a group home, whoever moved it.
func (c *Client) Release(ctx context.Context, id group.ID, o Order) (decide.Decision, error) {
	return c.order(ctx, id, "release", o)
}

// Shed has every edge limit a group's rate, whatever policy thinks of it.
func (c *Client) Shed(ctx context.Context, id group.ID, o Order) (decide.Decision, error) {
	return c.order(ctx, id, "shed", o)
}

// Lift ends a group's limit, whoever's it is, and leaves the group where it is.
func (c *Client) Lift(ctx context.Context, id group.ID, o Order) (decide.Decision, error) {
	return c.order(ctx, id, "lift", o)
}

// Confirm follows the advice of a decision.
func (c *Client) Confirm(ctx context.Context, decision string, o Order) (decide.Decision, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return decide.Decision{}, fmt.Errorf("encode order: %w", err)
	}
	var out decide.Decision
	return out, c.call(ctx, http.MethodPost, PathDecisions+"/"+url.PathEscape(decision)+"/confirm", body, &out)
}

func (c *Client) order(ctx context.Context, id group.ID, verb string, o Order) (decide.Decision, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return decide.Decision{}, fmt.Errorf("encode order: %w", err)
	}
	var out decide.Decision
	return out, c.call(ctx, http.MethodPost, PathGroups+"/"+url.PathEscape(string(id))+"/"+verb, body, &out)
}

// WatchPlacement calls each with the current placement and with every one
// published later, until ctx is done. It connects again when the control plane
// goes away; each sees a version once, in growing order.
func (c *Client) WatchPlacement(ctx context.Context, each func(placement.Placement)) error {
	var last int64
	return c.watch(ctx, PathPlacementWatch, func(line []byte) error {
		var p placement.Placement
		if err := json.Unmarshal(line, &p); err != nil {
			return fmt.Errorf("decode placement: %w", err)
		}
		if p.Version > last {
			last = p.Version
			each(p)
		}
		return nil
	})
}

// WatchDecisions calls each with the decisions of late, oldest first, and with
// every new or changed one, until ctx is done. A decision comes again when it has
// been programmed, and all of late come again when the connection was lost.
func (c *Client) WatchDecisions(ctx context.Context, each func(decide.Decision)) error {
	return c.watch(ctx, PathDecisionsWatch, func(line []byte) error {
		var d decide.Decision
		if err := json.Unmarshal(line, &d); err != nil {
			return fmt.Errorf("decode decision: %w", err)
		}
		each(d)
		return nil
	})
}

const (
	watchRetryMin = 100 * time.Millisecond
	watchRetryMax = 2 * time.Second
	maxLine       = 16 << 20
)

// watch reads lines and connects again until ctx is done, which is its only end,
// but for an answer that will not change: a wrong token.
func (c *Client) watch(ctx context.Context, path string, each func([]byte) error) error {
	delay := watchRetryMin
	for {
		began, err := time.Now(), c.lines(ctx, path, each)
		var refused *protocol.Error
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &refused) && !refused.Temporary:
			return err
		case time.Since(began) > watchRetryMax:
			delay = watchRetryMin
		}
		select {
		case <-time.After(delay/2 + rand.N(delay)):
		case <-ctx.Done():
			return ctx.Err()
		}
		delay = min(2*delay, watchRetryMax)
	}
}

// lines reads one connection until it ends or is silent for three heartbeats.
func (c *Client) lines(ctx context.Context, path string, each func([]byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	silence := time.AfterFunc(3*Heartbeat, cancel)
	defer silence.Stop()
	s := bufio.NewScanner(resp.Body)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		silence.Reset(3 * Heartbeat)
		if line := bytes.TrimSpace(s.Bytes()); len(line) > 0 {
			if err := each(line); err != nil {
				return err
			}
		}
	}
	return s.Err()
}

func (c *Client) call(ctx context.Context, method, path string, body []byte, into any) error {
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxLine)).Decode(into); err != nil {
		return fmt.Errorf("decode answer of control plane: %w", err)
	}
	return nil
}

// do returns an open response of status 2xx; other answers are a [*protocol.Error].
func (c *Client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("call control plane: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("call control plane: %w", err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	e := &protocol.Error{Code: protocol.CodeInternal, Message: resp.Status, Temporary: resp.StatusCode >= 500}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(e); err != nil {
		e.Message = resp.Status
	}
	return nil, e
}
