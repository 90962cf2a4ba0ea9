package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/edge/envoy"
)

// validateCommand needs no running control plane.
func (c *control) validateCommand() *cobra.Command {
	var ask bool
	cmd := &cobra.Command{
		Use: "validate FILE...", Short: "check policy documents, without a running control plane", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			bad := 0
			for _, file := range files {
				document, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				says := problems(document)
				if len(says) == 0 && ask {
					cfg, err := c.opts.load()
					if err != nil {
						return err
					}
					if says, err = envoySays(cmd.Context(), cfg, document, slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))); err != nil {
						return err
					}
				}
				if len(says) == 0 {
					fmt.Fprintf(cmd.OutOrStdout(), "%s: valid\n", file)
					continue
				}
				bad++
				for _, s := range says {
					fmt.Fprintf(cmd.OutOrStdout(), "%s:%s\n", filepath.ToSlash(file), s)
				}
			}
			if bad > 0 {
				return fmt.Errorf("%d of %d documents cannot be used", bad, len(files))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&ask, "envoy", false, "ask a real Envoy too (--mode validate); downloads the pinned one where there is none")
	return cmd
}

// problems are a document's, each with its line first.
func problems(document []byte) (out []string) {
	_, err := policy.Parse(document)
	var invalid *policy.Error
	if errors.As(err, &invalid) {
		for _, p := range invalid.Problems {
			out = append(out, fmt.Sprintf("%d: %s", p.Line, strings.TrimPrefix(p.Path+": "+p.Message, ": ")))
		}
	}
	return out
}

// envoySays is why a real Envoy would refuse what a valid document becomes. Each pool
// has one instance for it.
func envoySays(ctx context.Context, cfg Config, document []byte, log *slog.Logger) ([]string, error) {
	p, err := policy.Parse(document)
	if err != nil {
		return nil, err
	}
	p, _ = p.At(time.Now())
	endpoints := policy.Endpoints{Services: map[string]map[string][]string{}}
	for _, s := range p.Services {
		endpoints.Services[s.Name] = map[string][]string{}
		for _, pool := range s.Pools {
			endpoints.Services[s.Name][pool.Name] = []string{"127.0.0.1:1"}
		}
	}
	desired, err := plan.Build(p, endpoints, nil, plan.Edge{Listen: cfg.Edge.Listen, Observe: cfg.Observe.OTLP})
	if err != nil {
		return nil, err
	}
	snapshot, err := xds.Build(desired)
	if err != nil {
		return []string{" " + err.Error()}, nil //nolint:nilerr // what is wrong with the document is the answer
	}
	bootstrap, err := xds.Static(snapshot)
	if err != nil {
		return nil, err
	}
	binary, err := envoy.Find(ctx, cfg.Edge.Envoy, "", log)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tracegate-validate")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "envoy.json")
	if err := os.WriteFile(file, bootstrap, 0o600); err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, binary, "--mode", "validate", "-l", "error", "-c", file).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return []string{" " + string(bytes.TrimSpace(out))}, nil
	}
	return nil, err
}
