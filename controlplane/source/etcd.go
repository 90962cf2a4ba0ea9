package source

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tracegate/tracegate/mesh/settings"
)

// Etcd follows one document that an operator keeps in etcd. Below Prefix are
//
//	app.yaml                    for everyone
//	app/gray/KEY=VALUE          for whoever has the label, such as env=staging
//	app/version/VERSION         for whoever runs the version
//
// each the whole document; the last of these that is there and fits is the one. Several
// labels that fit are tried in the order of Labels. A key that goes makes the next wider
// one count again; where none is left nothing is sent, and the last document goes on.
//
// The first lines of a document may say who brings it: "# author: ann", "# reason: why".
//
// A watch that etcd ends - because it was compacted away, or with etcd itself - is
// opened again from a fresh reading. While etcd is away nothing changes, which is
// logged.
type Etcd[T any] struct {
	Client  *clientv3.Client
	Prefix  string   // "/config"
	Labels  []string // "env=staging", the most important first
	Version string   // empty: none
	Parse   func([]byte) (T, error)
	MaxSize int
	Retry   time.Duration // between two readings that fail
	Log     *slog.Logger
}

// Keys are those that concern this reader, the one that wins first.
func (e Etcd[T]) Keys() []string {
	var out []string
	if e.Version != "" {
		out = append(out, path.Join(e.Prefix, "app/version", e.Version))
	}
	for _, l := range e.Labels {
		out = append(out, path.Join(e.Prefix, "app/gray", l))
	}
	return append(out, path.Join(e.Prefix, "app.yaml"))
}

// Run sends the first document and every other that counts later, until ctx is done.
func (e Etcd[T]) Run(ctx context.Context, out chan<- Update[T]) error {
	var sent []byte
	prefix := EtcdPrefix{Client: e.Client, Prefix: e.Prefix, Retry: e.Retry, Log: e.Log}
	return prefix.Run(ctx, func(have map[string][]byte) error {
		for _, key := range e.Keys() {
			document, ok := have[key]
			if !ok {
				continue
			}
			if bytes.Equal(document, sent) {
				return nil
			}
			sent = document
			select {
			case out <- e.update(document, key):
			case <-ctx.Done():
			}
			return ctx.Err()
		}
		return nil
	}, nil)
}

// EtcdPrefix follows everything below a key.
type EtcdPrefix struct {
	Client *clientv3.Client
	Prefix string
	Retry  time.Duration // between two readings that fail
	Log    *slog.Logger
}

// Run calls each with all that is there, by its key, at first and after each change, and
// away, where it is not nil, with why etcd cannot be followed, once for each time that it
// becomes so. It ends with ctx. each must not keep the map.
func (e EtcdPrefix) Run(ctx context.Context, each func(have map[string][]byte) error, away func(error)) error {
	gone := false
	for ctx.Err() == nil {
		err := e.follow(clientv3.WithRequireLeader(ctx), func(have map[string][]byte) error {
			if gone {
				e.Log.Info("etcd is followed again", "prefix", e.Prefix)
			}
			gone = false
			return each(have)
		})
		if ctx.Err() != nil {
			break
		}
		if !gone {
			e.Log.Warn("etcd cannot be followed, what it last said goes on", "prefix", e.Prefix, "error", err)
			if gone = true; away != nil {
				away(err)
			}
		}
		select {
		case <-time.After(e.Retry):
		case <-ctx.Done():
		}
	}
	return nil
}

// follow reads, and watches from there on, until something ends that.
func (e EtcdPrefix) follow(ctx context.Context, each func(have map[string][]byte) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	read, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	now, err := e.Client.Get(read, e.Prefix+"/", clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	have := map[string][]byte{}
	for _, kv := range now.Kvs {
		have[string(kv.Key)] = kv.Value
	}
	if err := each(have); err != nil {
		return err
	}
	answering := make(chan struct{})
	go func() {
		defer close(answering)
		cancel(e.answers(ctx))
	}()
	defer func() { cancel(nil); <-answering }()
	for w := range e.Client.Watch(ctx, e.Prefix+"/", clientv3.WithPrefix(), clientv3.WithRev(now.Header.Revision+1)) {
		if err := w.Err(); err != nil { // compacted, or etcd lost its leader
			return cmp.Or(context.Cause(ctx), fmt.Errorf("watch: %w", err))
		}
		for _, ev := range w.Events {
			if ev.Type == clientv3.EventTypeDelete {
				delete(have, string(ev.Kv.Key))
			} else {
				have[string(ev.Kv.Key)] = ev.Kv.Value
			}
		}
		if err := each(have); err != nil {
			return err
		}
	}
	return cmp.Or(context.Cause(ctx), errors.New("watch: ended"))
}

// answers asks etcd whether it is there, until it is not: a watch waits for ever for a
// server to come back, and says nothing.
func (e EtcdPrefix) answers(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		ask, stop := context.WithTimeout(ctx, 3*time.Second)
		_, err := e.Client.Get(ask, e.Prefix, clientv3.WithCountOnly())
		stop()
		if err != nil {
			return fmt.Errorf("ask: %w", err)
		}
	}
}

func (e Etcd[T]) update(document []byte, key string) Update[T] {
	u := Update[T]{Raw: document}
	u.From, u.Reason = signature(document, "etcd", key)
	if len(document) > e.MaxSize {
		u.Raw, u.Err = nil, fmt.Errorf("%s is larger than %d bytes", key, e.MaxSize)
		return u
	}
	u.Value, u.Err = e.Parse(document)
	return u
}

// signature says who brings a document and why, by its first lines: "# author: ann",
// "# reason: why". Where they do not, it is who owns the key.
func signature(document []byte, source, key string) (from, reason string) {
	return source + ":" + cmp.Or(settings.Comment(document, "author"), key), settings.Comment(document, "reason")
}
