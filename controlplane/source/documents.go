package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tracegate/tracegate/mesh/settings"
)

// Document is a settings document of a service as it was found.
type Document struct {
	Raw          []byte
	From, Reason string
	Err          error // why it could not be read; Raw is nil then
}

// Documents are all settings documents of a source, by key (mesh/settings). One that is
// gone is not in it.
type Documents map[string]Document

func (d Documents) equal(o Documents) bool {
	return maps.EqualFunc(d, o, func(a, b Document) bool {
		return bytes.Equal(a.Raw, b.Raw) && (a.Err == nil) == (b.Err == nil)
	})
}

// extension is that of files, and of the key in etcd of what is for everyone.
const extension = ".yaml"

// Folder reads settings documents from files that are named by their keys:
// DIR/core.yaml, DIR/core/gray/env=staging.yaml, DIR/core/version/v2.yaml. It looks again
// and again; there are few, and links that are swapped need no special care then.
type Folder struct {
	Dir  string // may be missing
	Poll time.Duration
	Log  *slog.Logger
}

// File is the file of a key.
func (f Folder) File(key string) string {
	return filepath.Join(f.Dir, filepath.FromSlash(key)+extension)
}

// Run sends all documents, first and after each change, until ctx is done.
func (f Folder) Run(ctx context.Context, out chan<- Documents) error {
	tick := time.NewTicker(f.Poll)
	defer tick.Stop()
	var last Documents
	broken := false
	for {
		now, err := f.read()
		switch {
		case err != nil && !broken:
			f.Log.Warn("settings cannot be read, those before go on", "error", err)
		case err == nil && (last == nil || !now.equal(last)):
			last = now
			select {
			case out <- now:
			case <-ctx.Done():
			}
		}
		broken = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (f Folder) read() (Documents, error) {
	out := Documents{}
	err := filepath.WalkDir(f.Dir, func(file string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // or it has gone meanwhile
			return nil
		case err != nil:
			return err
		case e.IsDir() || !strings.HasSuffix(file, extension) || len(out) == maxDocuments:
			return nil
		}
		name, err := filepath.Rel(f.Dir, strings.TrimSuffix(file, extension))
		if err != nil {
			return err
		}
		key := filepath.ToSlash(name)
		if _, ok := settings.ServiceOf(key); !ok {
			return nil // a file of something else
		}
		d := Document{}
		if d.Raw, d.Err = readBounded(file, settings.MaxSize); d.Raw != nil {
			d.From, d.Reason = signature(d.Raw, "file", filepath.Base(file))
		}
		out[key] = d
		return nil
	})
	return out, err
}

// maxDocuments bounds what one control plane looks after.
const maxDocuments = 256

// EtcdDocuments reads settings documents from etcd: PREFIX/core.yaml,
// PREFIX/core/gray/env=staging, PREFIX/core/version/v2. Those of "app" are policies.
type EtcdDocuments EtcdPrefix

// Key is the key in etcd of a document.
func (e EtcdDocuments) Key(key string) string {
	if !strings.Contains(key, "/") {
		key += extension
	}
	return path.Join(e.Prefix, key)
}

// Put writes a document.
func (e EtcdDocuments) Put(ctx context.Context, key string, document []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := e.Client.Put(ctx, e.Key(key), string(document))
	return err
}

// Remove takes one away; clientv3 says no error where there is none.
func (e EtcdDocuments) Remove(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := e.Client.Delete(ctx, e.Key(key))
	return err
}

// Run sends all documents, first and after each change, until ctx is done. While etcd is
// away nothing changes.
func (e EtcdDocuments) Run(ctx context.Context, out chan<- Documents) error {
	var last Documents
	return EtcdPrefix(e).Run(ctx, func(have map[string][]byte) error {
		now := e.documents(have)
		if last != nil && now.equal(last) {
			return nil
		}
		last = now
		select {
		case out <- now:
		case <-ctx.Done():
		}
		return ctx.Err()
	}, nil)
}

func (e EtcdDocuments) documents(have map[string][]byte) Documents {
	out := Documents{}
	for _, at := range slices.Sorted(maps.Keys(have)) {
		name := strings.TrimPrefix(at, e.Prefix+"/")
		key := strings.TrimSuffix(name, extension)
		service, ok := settings.ServiceOf(key)
		if !ok || e.Key(key) != at || service == policyKey || len(out) == maxDocuments {
			continue
		}
		d := Document{Raw: have[at]}
		d.From, d.Reason = signature(d.Raw, "etcd", at)
		if len(d.Raw) > settings.MaxSize {
			d.Raw, d.Err = nil, fmt.Errorf("%s is larger than %d bytes", at, settings.MaxSize)
		}
		out[key] = d
	}
	return out
}

// policyKey is where etcd has policies, see [Etcd].
const policyKey = "app"
