package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tracegate/tracegate/controlplane/durable"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/source"
)

// policies are where the policy and settings come from, and where those that an operator
// brings go.
type policies struct {
	run   func(ctx context.Context, out chan<- source.Update[policy.Policy]) error
	parse func(document []byte) (policy.Policy, error) // as run does, which pays for the same document once
	put   func(ctx context.Context, document []byte) error

	runSettings func(ctx context.Context, out chan<- source.Documents) error
	putSettings func(ctx context.Context, key string, document []byte) error // an empty one removes it
	place       string                                                       // "file" or "etcd"

	end func()
}

func newPolicies(cfg Config, log *slog.Logger) (policies, error) {
	parse := new(policy.Reader).Parse
	if len(cfg.Etcd.Endpoints) == 0 {
		written := make(chan struct{}, 1)
		folder := source.Folder{Dir: cfg.Settings, Poll: 250 * time.Millisecond, Log: log}
		return policies{
			run:   source.File[policy.Policy]{Path: cfg.Policy, Parse: parse, MaxSize: policy.MaxSize, Written: written}.Run,
			parse: parse,
			put: func(_ context.Context, document []byte) error {
				if err := durable.Replace(cfg.Policy, document); err != nil {
					return err
				}
				select {
				case written <- struct{}{}:
				default: // it is about to be read
				}
				return nil
			},
			end: func() {},

			place: "file", runSettings: folder.Run,
			putSettings: func(_ context.Context, key string, document []byte) error { return putFile(folder.File(key), document) },
		}, nil
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Etcd.Endpoints, Username: cfg.Etcd.Username, Password: string(cfg.Etcd.Password), DialTimeout: 5 * time.Second,
		DialKeepAliveTime: 5 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
	})
	if err != nil {
		return policies{}, fmt.Errorf("connect to etcd: %w", err)
	}
	documents := source.EtcdDocuments{Client: client, Prefix: cfg.Etcd.Prefix, Retry: time.Second, Log: log}
	return policies{
		run: source.Etcd[policy.Policy]{
			Client: client, Prefix: cfg.Etcd.Prefix, Labels: cfg.Etcd.Labels, Version: cfg.Etcd.Version,
			Parse: parse, MaxSize: policy.MaxSize, Retry: time.Second, Log: log,
		}.Run,
		parse: parse,
		put: func(ctx context.Context, document []byte) error { // for everyone; labels and versions stay as they are
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			_, err := client.Put(ctx, path.Join(cfg.Etcd.Prefix, "app.yaml"), string(document))
			return err
		},
		end: func() { _ = client.Close() },

		place: "etcd", runSettings: documents.Run,
		putSettings: func(ctx context.Context, key string, document []byte) error {
			if len(document) == 0 {
				return documents.Remove(ctx, key)
			}
			return documents.Put(ctx, key, document)
		},
	}, nil
}

// putFile replaces a file, or removes it where there is nothing to be in it.
func putFile(file string, document []byte) error {
	if len(document) == 0 {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return durable.Replace(file, document)
}

// policySource is what status calls the place of the policy.
func (c Config) policySource() string {
	if len(c.Etcd.Endpoints) == 0 {
		return c.Policy
	}
	return "etcd:" + path.Join(c.Etcd.Prefix, "app.yaml")
}
