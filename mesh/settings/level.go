package settings

import (
	"context"
	"log/slog"
)

// Leveled is a logger whose level can be set, beginning with the one that it has.
func Leveled(log *slog.Logger) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(LevelOf(log))
	return slog.New(leveled{log.Handler(), level}), level
}

// LevelOf is the lowest level that a logger writes.
func LevelOf(log *slog.Logger) slog.Level {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn} {
		if log.Enabled(context.Background(), l) {
			return l
		}
	}
	return slog.LevelError
}

// leveled asks a level of its own. Handlers write what they are given: it is the logger
// that asks them first whether they would.
type leveled struct {
	slog.Handler
	level *slog.LevelVar
}

func (h leveled) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h leveled) WithAttrs(attrs []slog.Attr) slog.Handler {
	return leveled{h.Handler.WithAttrs(attrs), h.level}
}

func (h leveled) WithGroup(name string) slog.Handler {
	return leveled{h.Handler.WithGroup(name), h.level}
}
