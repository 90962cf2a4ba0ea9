// Package notify tells other systems when a group is isolated or released: one message a
// change, with the reason, the causes that are known by then, a link and how to undo it. controlplane
// waits a while for causes before it adds a decision.
//
// Each webhook has a goroutine, a bounded queue and a cursor on disk of its own, so that
// one that is slow holds up nobody, and what was not delivered when the process ended is
// sent by the next one. Delivery is at least once and in order; a receiver knows a
// message again by its webhook-id. The alternative, to let Alertmanager do it from
// metrics, lost: it would know neither the reason nor how to undo it.
//
// What a message says is pure (message.go); signatures are those of Standard Webhooks.
package notify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/durable"
	"github.com/tracegate/tracegate/mesh/secret"
	"github.com/tracegate/tracegate/mesh/webhook"
)

// Config is the notifier's; without hooks it does nothing.
type Config struct {
	Hooks   []Hook
	Console string      // URL of the console, for links; may be empty
	Secret  secret.Text // signs: "whsec_" and the key in base64, as receivers are given it
	Dir     string      // of cursors; exists
}

// Hook is one receiver.
type Hook struct {
	URL    string `mapstructure:"url" doc:"where messages are posted; https unless the host is this machine"`
	Format string `mapstructure:"format" doc:"json, which is the default, or slack for what takes Slack's incoming webhooks"`
}

// Formats of a body.
const (
	FormatJSON  = "json"
	FormatSlack = "slack"
)

// Validate names what cannot be used.
func (h Hook) Validate() error {
	if err := webhook.CheckURL(h.URL); err != nil {
		return err
	}
	if h.Format != "" && h.Format != FormatJSON && h.Format != FormatSlack {
		return fmt.Errorf("format: %q is neither %s nor %s", h.Format, FormatJSON, FormatSlack)
	}
	return nil
}

// maxAge is how long a message is worth sending.
const maxAge = 24 * time.Hour

// Notifier hands decisions to hooks.
type Notifier struct {
	hooks []*hook
}

// New reads the cursors. past are decisions of earlier runs, oldest first: those that a
// hook has not had yet, and that are not too old at now, are queued for it. A hook that is
// new begins with now.
func New(cfg Config, past []decide.Decision, now time.Time, reg prometheus.Registerer, log *slog.Logger) (*Notifier, error) {
	if len(cfg.Hooks) == 0 {
		return &Notifier{}, nil
	}
	key, err := webhook.Key(cfg.Secret)
	if err != nil {
		return nil, err
	}
	m := newMetrics(reg)
	n := &Notifier{}
	for i, h := range cfg.Hooks {
		if err := h.Validate(); err != nil {
			return nil, fmt.Errorf("hook %d: %w", i+1, err)
		}
		k := &hook{
			Hook: h, name: nameOf(h.URL), console: cfg.Console, key: key, metrics: m, log: log, wake: make(chan struct{}, 1),
			client: webhook.NewClient(10 * time.Second),
			retry:  backoff{min: time.Second, max: 5 * time.Minute},
		}
		k.cursorFile = filepath.Join(cfg.Dir, "notify-"+k.name+".json")
		err := durable.Load(k.cursorFile, &k.cursor)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			k.cursor = cursor{Since: now}
			if err := durable.Save(k.cursorFile, k.cursor); err != nil {
				return nil, fmt.Errorf("keep cursor of hook %d: %w", i+1, err)
			}
		case err != nil:
			log.Error("cursor of a webhook is lost, it begins anew", "hook", k.name, "error", err)
			k.cursor = cursor{Since: now}
		}
		for _, d := range past {
			if now.Sub(d.Time) < maxAge {
				k.add(d)
			}
		}
		n.hooks = append(n.hooks, k)
	}
	return n, nil
}

// Add queues a decision that was taken. It never blocks.
func (n *Notifier) Add(d decide.Decision) {
	for _, k := range n.hooks {
		k.add(d)
	}
}

// Run delivers until ctx is done.
func (n *Notifier) Run(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	for _, k := range n.hooks {
		work.Go(func() error { return k.run(ctx) })
	}
	return work.Wait()
}

// metrics count by hook.
type metrics struct {
	sent   *prometheus.CounterVec
	queued *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tracegate_notifications_total", Help: "Messages to webhooks, by result: sent, retried, refused, dropped_queue_full, dropped_too_old.",
		}, []string{"hook", "result"}),
		queued: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tracegate_notifications_queued", Help: "Messages that wait for a webhook.",
		}, []string{"hook"}),
	}
	reg.MustRegister(m.sent, m.queued)
	return m
}
