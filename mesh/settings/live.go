package settings

import (
	"context"
	"log/slog"

	"github.com/tracegate/tracegate/mesh/strict"
)

// Live keeps what an instance has in force. Run it; its fields do not change then.
type Live[T any] struct {
	Own   T                                               // what the instance started with
	Check func(T, func(path, format string, args ...any)) // reports what cannot be, by the key's path
	Apply func(T)                                         // of what was checked; cannot fail
	Log   *slog.Logger
	// Taken, where not nil, is told of every document once, and why it is not in force.
	Taken func(d Document, err error)

	some    bool // a document, or that there is none, has come
	last    Document
	lastErr error
}

// Parse is what a document makes of what an instance started with. Its error is a
// [*strict.Error]. T must not share memory by copies: no maps, slices and pointers.
func (l *Live[T]) Parse(text string) (T, error) {
	out := l.Own
	err := strict.Read([]byte(text), &out, func(r *strict.Reader) {
		l.Check(out, r.Invalid)
	})
	if err != nil {
		return l.Own, err
	}
	return out, nil
}

// Run takes documents of a source until ctx is done.
func (l *Live[T]) Run(ctx context.Context, from Source, of Instance) error {
	return from.WatchSettings(ctx, of, l.take)
}

// take puts a document into force, or leaves the one before.
func (l *Live[T]) take(d Document) error {
	if l.some && d == l.last {
		return l.lastErr // it comes again after the source was away
	}
	next, err := l.Own, error(nil)
	if d.Text != "" {
		next, err = l.Parse(d.Text)
	}
	l.some, l.last, l.lastErr = true, d, err
	if err == nil {
		l.Apply(next)
		l.Log.Info("settings are in force", "document", d.Name())
	} else {
		l.Log.Warn("settings are refused, those before go on", "document", d.Name(), "error", err)
	}
	if l.Taken != nil {
		l.Taken(d, err)
	}
	return err
}
