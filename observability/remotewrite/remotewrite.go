// Package remotewrite sends what is counted by group to a Prometheus, or what speaks its
// remote-write protocol (1.0), for those who do not scrape.
//
// Nothing is queued: all that is sent are counters and histograms that only grow, so the
// next samples make up for those that could not be sent, and only their times are lost.
package remotewrite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/tracegate/tracegate/mesh/secret"
)

// Prefix is that of the families that are sent.
const Prefix = "traffic_group_"

// Config says where to and how often.
type Config struct {
	// URL is the whole address, such as http://127.0.0.1:9090/api/v1/write; empty: nothing
	// is sent.
	URL   string
	Token secret.Text // sent as bearer token; empty: none
	Every time.Duration
	// Labels are added to every series, so that two senders do not write the same one.
	Labels map[string]string
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil:
		return fmt.Errorf("url: %w", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("url: %q is no http or https URL", c.URL)
	case u.User != nil:
		return errors.New("url: must have no password in it, use the token")
	case c.Every < time.Second:
		return errors.New("every: must be a second or more")
	}
	return nil
}

// Writer sends. It is made by New and started by Run.
type Writer struct {
	cfg     Config
	api     *remote.API
	from    prometheus.Gatherer
	log     *slog.Logger
	sent    prometheus.Counter
	failed  prometheus.Counter
	failing bool // belongs to Run
}

// New checks cfg and starts nothing.
func New(cfg Config, from prometheus.Gatherer, reg prometheus.Registerer, log *slog.Logger) (*Writer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("remote write configuration: %w", err)
	}
	// Nothing is tried again within a period: the next one has newer samples.
	api, err := remote.NewAPI(cfg.URL, remote.WithAPIPath(""), remote.WithAPIBackoff(remote.BackoffConfig{Min: time.Second, Max: time.Second, MaxRetries: 1}),
		remote.WithAPIHTTPClient(&http.Client{Transport: bearer{cfg.Token, &http.Transport{Proxy: http.ProxyFromEnvironment, MaxConnsPerHost: 1, IdleConnTimeout: time.Minute}}, Timeout: cfg.Every}))
	if err != nil {
		return nil, fmt.Errorf("remote write configuration: %w", err)
	}
	w := &Writer{
		cfg: cfg, api: api, from: from, log: log,
		sent:   prometheus.NewCounter(prometheus.CounterOpts{Name: "tracegate_remote_write_samples_total", Help: "Samples that were written."}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{Name: "tracegate_remote_write_failures_total", Help: "Times that samples could not be written; the next make up for them."}),
	}
	for _, c := range []prometheus.Collector{w.sent, w.failed} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register remote write metrics: %w", err)
		}
	}
	return w, nil
}

// Run sends every Config.Every until ctx is done.
func (w *Writer) Run(ctx context.Context) error {
	tick := time.NewTicker(w.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			w.note(w.Write(ctx, now))
		case <-ctx.Done():
			return nil
		}
	}
}

// note logs when it begins to fail, and when that is over.
func (w *Writer) note(err error) {
	switch {
	case err != nil && !w.failing:
		w.log.Warn("group metrics cannot be written", "error", err)
	case err == nil && w.failing:
		w.log.Info("group metrics are written again")
	}
	w.failing = err != nil
}

// Write sends what is counted now, once.
func (w *Writer) Write(ctx context.Context, now time.Time) error {
	families, err := w.from.Gather()
	if err != nil {
		return fmt.Errorf("gather group metrics: %w", err)
	}
	var own []*dto.MetricFamily
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), Prefix) {
			own = append(own, f)
		}
	}
	list := samples(own, w.cfg.Labels)
	if len(list) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Every)
	defer cancel()
	if _, err := w.api.Write(ctx, remote.WriteV1MessageType, encode(list, now)); err != nil {
		w.failed.Inc()
		return fmt.Errorf("write group metrics: %w", err)
	}
	w.sent.Add(float64(len(list)))
	return nil
}

// bearer adds a token to requests.
type bearer struct {
	token secret.Text
	next  http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+string(b.token))
	}
	return b.next.RoundTrip(r)
}
