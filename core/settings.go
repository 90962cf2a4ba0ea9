package core

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/core/api"
	"github.com/tracegate/tracegate/core/session"
	"github.com/tracegate/tracegate/mesh/settings"
)

// Settings are what of a process changes while it runs, without losing a connection
// (mesh/settings). docs/configuration.md says what each does.
type Settings struct {
	Log      LogSettings     `yaml:"log"`
	Limits   api.Bounds      `yaml:"limits"`
	Sockets  session.Limits  `yaml:"sockets"`
	Messages MessageSettings `yaml:"messages"`
}

// LogSettings is how much is logged.
type LogSettings struct {
	Level string `yaml:"level"` // debug, info, warn or error
}

// MessageSettings is about messages that were sent.
type MessageSettings struct {
	EditWithin time.Duration `yaml:"editWithin"` // 0: for ever
}

// settings are what a process starts with.
func (c Config) settings(level slog.Level) Settings {
	return Settings{Log: LogSettings{Level: levelName(level)}, Limits: c.API.Bounds, Sockets: c.Session.Limits, Messages: MessageSettings{EditWithin: c.EditWithin}}
}

func levels() map[string]slog.Level {
	return map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
}

func levelName(l slog.Level) string {
	for name, level := range levels() {
		if level == l {
			return name
		}
	}
	return "info"
}

// check reports what cannot be.
func (s Settings) check(invalid func(path, format string, args ...any)) {
	if _, ok := levels()[s.Log.Level]; !ok {
		invalid("log.level", "%q is none of debug, info, warn, error", s.Log.Level)
	}
	s.Limits.Check(func(key, why string) { invalid("limits."+key, "%s", why) })
	s.Sockets.Check(func(key, why string) { invalid("sockets."+key, "%s", why) })
	if s.Messages.EditWithin < 0 {
		invalid("messages.editWithin", "must not be negative")
	}
}

// CheckSettings says why a process that runs with the defaults would refuse a document.
func CheckSettings(document []byte) error {
	l := settings.Live[Settings]{Own: DefaultConfig().settings(slog.LevelInfo), Check: Settings.check}
	_, err := l.Parse(string(document))
	return err
}

// follow puts settings into force as they come, until ctx is done.
func (p *process) follow(ctx context.Context, from settings.Source, reg prometheus.Registerer) error {
	taken := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "core_settings_total", Help: "settings documents that came, by what became of them"}, []string{"result"})
	revision := prometheus.NewGauge(prometheus.GaugeOpts{Name: "core_settings_revision", Help: "revision of the settings document in force; 0: none is"})
	for _, c := range []prometheus.Collector{taken, revision} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register settings metrics: %w", err)
		}
	}
	live := settings.Live[Settings]{
		Own: p.cfg.settings(p.level.Level()), Check: Settings.check, Log: p.log,
		Apply: func(s Settings) {
			p.level.Set(levels()[s.Log.Level])
			p.api.Limit(s.Limits)
			p.hub.Limit(s.Sockets)
			p.acceptor.EditWithin(s.Messages.EditWithin)
		},
		Taken: func(d settings.Document, err error) {
			if err != nil {
				taken.WithLabelValues("refused").Inc()
				return
			}
			taken.WithLabelValues("in_force").Inc()
			revision.Set(float64(d.Revision))
		},
	}
	if err := live.Run(ctx, from, p.cfg.instance()); err != nil && ctx.Err() == nil {
		return fmt.Errorf("follow settings: %w", err)
	}
	return nil
}
