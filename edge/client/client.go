package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/observability/semconv"
)

// Config says where the edge is and how patient to be.
type Config struct {
	// Address is the edge's base URL, such as "http://127.0.0.1:8080".
	Address string
	// Host is sent as the Host header, so that "payment.localhost" can be asked for
	// at 127.0.0.1 without a resolver that knows it. Empty means Address's own.
	Host string
	// Header is added to every request and to the WebSocket handshake.
	Header http.Header
	// Device is what the user calls this device; the list of its sessions has it.
	Device string
	// LocalAddress is the source IP of connections. Several loopback addresses
	// (127.0.0.2, ...) get past the limit of ports an address has. Empty: any.
	LocalAddress string
	// Timeout bounds one attempt, not the call with its retries (a context does that).
	Timeout time.Duration
	// Retry bounds repetition.
	Retry Retry
	// Ping is how often a silent connection is asked for a sign of life; it is given
	// up after two and a half times that.
	Ping time.Duration
	// MaxBytes bounds a response body and a frame.
	MaxBytes int64
	// OnAttempt, when set, is told of every single attempt, also of those that a
	// retry made good. It is called by many goroutines and must not block.
	OnAttempt func(Attempt)
	// Random gives the jitter, in [0, 1). It must be safe for concurrent use.
	Random func() float64
}

// DefaultConfig is for an edge on this machine.
func DefaultConfig() Config {
	return Config{
		Address:  "http://127.0.0.1:8080",
		Timeout:  5 * time.Second,
		Retry:    Retry{Attempts: 6, Base: 50 * time.Millisecond, Max: 2 * time.Second},
		Ping:     10 * time.Second,
		MaxBytes: 4 << 20,
		Random:   rand.Float64,
	}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	u, err := url.Parse(c.Address)
	switch {
	case err != nil:
		return fmt.Errorf("address: %w", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("address: %q is not an http(s) URL", c.Address)
	case c.LocalAddress != "" && net.ParseIP(c.LocalAddress) == nil:
		return fmt.Errorf("local address: %q is not an IP", c.LocalAddress)
	case c.Timeout <= 0:
		return errors.New("timeout: must be positive")
	case c.Retry.Attempts < 1:
		return errors.New("retry attempts: must be at least 1")
	case c.Retry.Base <= 0 || c.Retry.Max < c.Retry.Base:
		return errors.New("retry base, max: must be positive and base at most max")
	case c.Ping <= 0:
		return errors.New("ping: must be positive")
	case c.MaxBytes < 1024:
		return errors.New("max bytes: must be at least 1024")
	case c.Random == nil:
		return errors.New("random: must be set")
	}
	return nil
}

// Served says who answered: the headers that the edge and core put on a response.
// Empty fields were not there, as on a response made by the edge itself.
type Served struct {
	Status int    // HTTP status; 0 where no response came, and for WebSocket commands
	Group  string // traffic group
	Pool   string
	Node   string
}

func servedBy(r *http.Response) Served {
	if r == nil {
		return Served{}
	}
	return Served{
		Status: r.StatusCode,
		Group:  r.Header.Get(semconv.HeaderGroup),
		Pool:   r.Header.Get(semconv.HeaderPool),
		Node:   r.Header.Get(semconv.HeaderPrefix + "node"),
	}
}

// Attempt is one try of one call.
type Attempt struct {
	Op     string // "send", "history", ..., "ws send", "ws open"
	Start  time.Time
	Took   time.Duration
	Served Served
	Err    error // nil, a *protocol.Error, or what the transport said
}

// Fault says whether the other side is to blame: no response, or a 5xx.
func (a Attempt) Fault() bool {
	if a.Err == nil {
		return false
	}
	var e *protocol.Error
	return !errors.As(a.Err, &e) || e.Code.Status() >= 500
}

// Client talks to one edge. It is safe for concurrent use and is shared by users
// that may share connections.
type Client struct {
	cfg    Config
	base   *url.URL
	dialer *net.Dialer
	http   *http.Client
}

// New checks cfg; it connects to nothing.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	base, _ := url.Parse(strings.TrimSuffix(cfg.Address, "/"))
	d := &net.Dialer{Timeout: cfg.Timeout, KeepAlive: 15 * time.Second}
	if cfg.LocalAddress != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(cfg.LocalAddress)}
	}
	return &Client{
		cfg:    cfg,
		base:   base,
		dialer: d,
		http: &http.Client{
			Transport: &http.Transport{
				Proxy:               http.ProxyFromEnvironment,
				DialContext:         d.DialContext,
				MaxIdleConnsPerHost: 256,              // fewer than are in use at once are opened again and again
				IdleConnTimeout:     30 * time.Second, // below the edge's own, so that it is us who close
				TLSHandshakeTimeout: cfg.Timeout,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Close gives up the idle connections of REST calls.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// call is one REST call.
type call struct {
	op, method, path string
	token            string // of User.do
	key              string // idempotency key; makes a POST repeatable
	in, out          any
}

func (q call) repeatable() bool { return q.method != http.MethodPost || q.key != "" }

// do makes the attempts of a call. What it returns as Served is the last one's.
func (c *Client) do(ctx context.Context, q call) (Served, error) {
	unknown := false
	for i := 0; ; i++ {
		start := time.Now()
		served, err := c.try(ctx, q)
		c.observe(Attempt{Op: q.op, Start: start, Took: time.Since(start), Served: served, Err: err})
		if err == nil {
			return served, nil
		}
		temporary, maybe := judge(err)
		unknown = unknown || maybe
		again := temporary && (q.repeatable() || !maybe) && i+1 < c.cfg.Retry.Attempts
		if again && sleep(ctx, c.cfg.Retry.Pause(i, c.cfg.Random())) {
			continue
		}
		if unknown {
			return served, fmt.Errorf("%s: %w: %w", q.op, ErrUnknownOutcome, err)
		}
		return served, fmt.Errorf("%s: %w", q.op, err)
	}
}

func (c *Client) observe(a Attempt) {
	if c.cfg.OnAttempt != nil {
		c.cfg.OnAttempt(a)
	}
}

// judge says whether to try again, and whether the attempt may have taken effect.
// Only core's own refusals are certain; a 5xx may come from an edge whose upstream
// died with the answer.
func judge(err error) (temporary, maybe bool) {
	var e *protocol.Error
	if !errors.As(err, &e) {
		return true, true
	}
	return e.Temporary, e.Code == protocol.CodeInternal || e.Code == protocol.CodeUnavailable
}

func (c *Client) try(ctx context.Context, q call) (Served, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	var body io.Reader
	if q.in != nil {
		b, err := json.Marshal(q.in)
		if err != nil {
			return Served{}, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, q.method, c.base.String()+q.path, body)
	if err != nil {
		return Served{}, fmt.Errorf("build request: %w", err)
	}
	req.Header = c.header(q.token)
	req.Host = c.cfg.Host
	if q.in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if q.key != "" {
		// Also tells net/http that it may repeat the request when an idle
		// connection turns out to be closed.
		req.Header.Set("Idempotency-Key", q.key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return Served{}, fmt.Errorf("request: %w", err)
	}
	defer resp.Body.Close()
	served := servedBy(resp)
	b, err := io.ReadAll(io.LimitReader(resp.Body, c.cfg.MaxBytes+1))
	switch {
	case err != nil:
		return served, fmt.Errorf("read response: %w", err)
	case int64(len(b)) > c.cfg.MaxBytes:
		return served, fmt.Errorf("read response: longer than %d bytes", c.cfg.MaxBytes)
	case resp.StatusCode >= 300:
		refusal, _ := failure(resp.StatusCode, b)
		return served, refusal
	case q.out == nil:
		return served, nil
	}
	if err := json.Unmarshal(b, q.out); err != nil {
		return served, fmt.Errorf("decode response: %w", err)
	}
	return served, nil
}

func (c *Client) header(token string) http.Header {
	h := c.cfg.Header.Clone()
	if h == nil {
		h = http.Header{}
	}
	if token != "" {
		h.Set("Authorization", "Bearer "+token)
	}
	return h
}

// failure reads core's error, or makes one where the answer is the edge's own.
func failure(status int, body []byte) (refusal *protocol.Error, fromCore bool) {
	e := &protocol.Error{}
	if json.Unmarshal(body, e) == nil && e.Code != "" {
		return e, true
	}
	e = &protocol.Error{Message: fmt.Sprintf("status %d from the edge", status)}
	switch {
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		e.Code, e.Temporary = protocol.CodeUnavailable, true
	case status >= 500:
		e.Code, e.Temporary = protocol.CodeInternal, true
	case status == http.StatusTooManyRequests:
		e.Code, e.Temporary = protocol.CodeRateLimited, true
	case status == http.StatusUnauthorized:
		e.Code = protocol.CodeUnauthenticated
	case status == http.StatusForbidden:
		e.Code = protocol.CodePermissionDenied
	case status == http.StatusNotFound:
		e.Code = protocol.CodeNotFound
	case status == http.StatusRequestEntityTooLarge:
		e.Code = protocol.CodeTooLarge
	default:
		e.Code = protocol.CodeInvalidArgument
	}
	return e, false
}
