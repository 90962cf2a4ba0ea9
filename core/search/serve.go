package search

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/secret"
)

// concurrent is how many queries are answered at a time; others are told to come again.
const concurrent = 16

// newHandler serves core processes: whoever has the token may search as any user.
func newHandler(token secret.Text, s *Searcher, m metrics, reg *prometheus.Registry, log *slog.Logger) http.Handler {
	slots := make(chan struct{}, concurrent)
	want := sha256.Sum256([]byte("Bearer " + string(token)))
	mux := http.NewServeMux()
	fine := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }
	mux.HandleFunc("GET /healthz", fine)
	mux.HandleFunc("GET /readyz", fine)
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("POST /v1/search", func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		if subtle.ConstantTimeCompare(want[:], got[:]) != 1 { // hashing makes the lengths equal
			answer(w, http.StatusUnauthorized, protocol.NewError(protocol.CodeUnauthenticated, "", "token is missing or wrong"))
			return
		}
		start := time.Now()
		page, err := func() (protocol.FoundPage, error) {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			default:
				return protocol.FoundPage{}, protocol.NewError(protocol.CodeUnavailable, "", "too many searches at a time: try again")
			}
			var q Query
			if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&q); err != nil {
				return protocol.FoundPage{}, protocol.NewError(protocol.CodeInvalidArgument, "body", "body is not a query")
			}
			ctx, cancel := context.WithTimeout(r.Context(), queryTimeout)
			defer cancel()
			return s.Search(ctx, q)
		}()
		if err == nil {
			m.observe("ok", time.Since(start))
			answer(w, http.StatusOK, page)
			return
		}
		pe, ok := errors.AsType[*protocol.Error](err)
		if !ok {
			log.Warn("search", "error", err)
			pe = protocol.NewError(protocol.CodeUnavailable, "", "searching does not work at the moment: try again")
		}
		m.observe(string(pe.Code), time.Since(start))
		answer(w, pe.Code.Status(), pe)
	})
	return mux
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that has gone is no error of ours
}

// ClientConfig says where search processes are.
type ClientConfig struct {
	Addrs []string // host:port; any of them answers
	Token secret.Text
}

// Client asks search processes. It is safe for concurrent use.
type Client struct {
	cfg  ClientConfig
	http *http.Client
	next atomic.Uint32
}

// NewClient prepares a client; it connects when it is first used.
func NewClient(cfg ClientConfig) *Client {
	return &Client{cfg: cfg, http: &http.Client{
		Timeout: queryTimeout + time.Second,
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: time.Second}).DialContext, MaxIdleConnsPerHost: concurrent, IdleConnTimeout: time.Minute,
		},
	}}
}

// Search answers a query as [Searcher.Search] does. Where no process answers, the error
// is unavailable.
func (c *Client) Search(ctx context.Context, q Query) (protocol.FoundPage, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return protocol.FoundPage{}, fmt.Errorf("encode query: %w", err)
	}
	first := int(c.next.Add(1))
	var errs []error
	for i := range c.cfg.Addrs {
		page, err := c.ask(ctx, c.cfg.Addrs[(first+i)%len(c.cfg.Addrs)], body)
		pe, known := errors.AsType[*protocol.Error](err)
		if err == nil || known && !pe.Temporary || ctx.Err() != nil {
			return page, err
		}
		errs = append(errs, err)
	}
	return protocol.FoundPage{}, errors.Join(append(errs, protocol.NewError(protocol.CodeUnavailable, "", "searching does not work at the moment: try again"))...)
}

// maxAnswer bounds what a process may answer.
const maxAnswer = 4 << 20

func (c *Client) ask(ctx context.Context, addr string, body []byte) (protocol.FoundPage, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/v1/search", bytes.NewReader(body))
	if err != nil {
		return protocol.FoundPage{}, fmt.Errorf("ask search: %w", err)
	}
	r.Header.Set("Authorization", "Bearer "+string(c.cfg.Token))
	w, err := c.http.Do(r)
	if err != nil {
		return protocol.FoundPage{}, fmt.Errorf("ask search: %w", err)
	}
	defer w.Body.Close()
	b, err := io.ReadAll(io.LimitReader(w.Body, maxAnswer))
	if err != nil {
		return protocol.FoundPage{}, fmt.Errorf("ask search: %w", err)
	}
	if w.StatusCode != http.StatusOK {
		pe := &protocol.Error{}
		if err := json.Unmarshal(b, pe); err != nil || pe.Code == "" || pe.Code == protocol.CodeUnauthenticated {
			return protocol.FoundPage{}, fmt.Errorf("ask search: %s answers %d", addr, w.StatusCode) // trouble of ours, not the user's
		}
		return protocol.FoundPage{}, pe
	}
	var page protocol.FoundPage
	if err := json.Unmarshal(b, &page); err != nil {
		return protocol.FoundPage{}, fmt.Errorf("ask search: decode: %w", err)
	}
	return page, nil
}
