// Package source watches what the operator writes: policy.yaml and endpoints.yaml.
// It hands on whole, parsed values; a file that does not parse is reported and
// changes nothing.
//
// It does not join files (controlplane/plan does) and keeps no last good value:
// whoever receives has the one before.
package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// File watches one file. The zero durations take defaults.
type File[T any] struct {
	Path  string
	Parse func([]byte) (T, error)
	// MaxSize bounds what is read, in bytes; larger files are an error.
	MaxSize int64
	// Settle is how long a file must be quiet before it is read: editors write in
	// several steps, some by renaming.
	Settle time.Duration
	// Poll reads the file anyway, for file systems without notification.
	Poll time.Duration
	// Written says that the file was replaced as a whole, so it is read at once; may be nil.
	Written <-chan struct{}
}

// Update is one reading of a file. Exactly one of Value and Err holds.
type Update[T any] struct {
	Value T
	Raw   []byte // what Value was, or could not be, parsed from; nil where the file could not be read
	Err   error
	// From and Reason say who brings it and why, where the source knows.
	From, Reason string
	Lost         []string // parts of Value that are as they were, because nobody answers about them, and why
}

// Fate is what became of a policy.
type Fate struct {
	Wanted  []byte            // the newest that was sent and could be read
	InForce []byte            // what all edges have acknowledged last; nil: nothing yet
	Refused string            // why Wanted will not be in force; empty: it is, or edges are asked
	Held    map[string]string // SERVICE/RULE -> why, of rules in Wanted that edges are kept from
}

const (
	defaultSettle = 20 * time.Millisecond
	defaultPoll   = 2 * time.Second
)

// Run sends the file's first reading and one for every change, until ctx is done.
// A reading that says the same as the one before is not sent.
func (f File[T]) Run(ctx context.Context, out chan<- Update[T]) error {
	settle, poll := f.Settle, f.Poll
	if settle <= 0 {
		settle = defaultSettle
	}
	if poll <= 0 {
		poll = defaultPoll
	}
	events, stop := f.notifications()
	defer stop()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	quiet := time.NewTimer(0)
	defer quiet.Stop()

	var last reading
	// What can happen: the file changed; it has been quiet for long enough, so it is
	// read; it was replaced as a whole; the poll is due; the end.
	for {
		select {
		case <-events:
			quiet.Reset(settle)
			continue
		case <-tick.C:
		case <-quiet.C:
		case <-f.Written:
		case <-ctx.Done():
			return nil
		}
		now := f.read()
		if now.same(last) {
			continue
		}
		last = now
		select {
		case out <- f.update(now):
		case <-ctx.Done():
			return nil
		}
	}
}

// reading is the content of the file, or why there is none.
type reading struct {
	done bool
	data []byte
	err  error
}

func (r reading) same(o reading) bool {
	if !r.done || !o.done || (r.err == nil) != (o.err == nil) {
		return false
	}
	if r.err != nil {
		return r.err.Error() == o.err.Error()
	}
	return bytes.Equal(r.data, o.data)
}

func (f File[T]) read() reading {
	data, err := f.content()
	return reading{done: true, data: data, err: err}
}

func (f File[T]) content() ([]byte, error) {
	file, err := os.Open(f.Path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w", f.Path, fs.ErrNotExist)
		}
		return nil, fmt.Errorf("open file: %w", err)
	}
	defer file.Close()
	var data bytes.Buffer
	if info, err := file.Stat(); err == nil {
		data.Grow(int(min(info.Size(), f.MaxSize)) + bytes.MinRead)
	}
	if _, err := data.ReadFrom(io.LimitReader(file, f.MaxSize+1)); err != nil {
		return nil, fmt.Errorf("read file: %w", err)
	}
	if int64(data.Len()) > f.MaxSize {
		return nil, fmt.Errorf("%s is larger than %d bytes", f.Path, f.MaxSize)
	}
	return data.Bytes(), nil
}

func (f File[T]) update(r reading) Update[T] {
	if r.err != nil {
		return Update[T]{Err: r.err}
	}
	v, err := f.Parse(r.data)
	if err != nil {
		return Update[T]{Raw: r.data, Err: err}
	}
	return Update[T]{Value: v, Raw: r.data}
}

// notifications watches the folder, because a file that is replaced by a rename
// takes its own watch away with it. Without notification the poll remains.
func (f File[T]) notifications() (<-chan struct{}, func()) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, func() {}
	}
	if err := w.Add(filepath.Dir(f.Path)); err != nil {
		w.Close()
		return nil, func() {}
	}
	out := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case e, ok := <-w.Events:
				if !ok {
					return
				}
				if filepath.Base(e.Name) != filepath.Base(f.Path) {
					continue
				}
			case _, ok := <-w.Errors: // an overflow is a change as well
				if !ok {
					return
				}
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out, func() {
		w.Close()
		<-done
	}
}
