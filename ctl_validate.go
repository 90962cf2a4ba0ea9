package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
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
			if err := c.checkOutput(); err != nil {
				return err
			}
			var verdicts []verdict
			bad := 0
			for _, file := range files {
				v, err := c.validate(cmd.Context(), file, ask, slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)))
				if err != nil {
					return err
				}
				verdicts = append(verdicts, v)
				if len(v.Problems) > 0 {
					bad++
				}
			}
			if err := c.print(cmd.OutOrStdout(), verdicts, func(w io.Writer) { printVerdicts(w, verdicts) }); err != nil {
				return err
			}
			if bad > 0 {
				return codedError{exitRefused, fmt.Errorf("%d of %d documents cannot be used", bad, len(files))}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&ask, "envoy", false, "ask a real Envoy too (--mode validate); downloads the pinned one where there is none")
	return cmd
}

// verdict is what is wrong with a document.
type verdict struct {
	File     string           `json:"file"`
	Problems []policy.Problem `json:"problems"` // none: it can be used
}

func printVerdicts(w io.Writer, verdicts []verdict) {
	for _, v := range verdicts {
		if len(v.Problems) == 0 {
			fmt.Fprintf(w, "%s: valid\n", v.File)
		}
		for _, p := range v.Problems {
			fmt.Fprintln(w, p.In(filepath.ToSlash(v.File)))
		}
	}
}

func (c *control) validate(ctx context.Context, file string, ask bool, log *slog.Logger) (verdict, error) {
	v := verdict{File: file, Problems: []policy.Problem{}}
	document, err := os.ReadFile(file)
	if err != nil {
		return v, err
	}
	p, err := policy.Parse(document)
	if invalid, ok := errors.AsType[*policy.Error](err); ok {
		v.Problems = invalid.Problems
		return v, nil
	}
	if err != nil || !ask {
		return v, err
	}
	cfg, err := c.opts.load()
	if err != nil {
		return v, err
	}
	refused, err := envoyRefuses(ctx, cfg, p, document, log)
	if refused != nil {
		v.Problems = append(v.Problems, *refused)
	}
	return v, err
}

// parsePolicy is for documents of a file that somebody names: what is wrong comes with the
// file and the line first, and with the exit code of what is refused.
func parsePolicy(file string, document []byte) (policy.Policy, error) {
	p, err := policy.Parse(document)
	invalid, ok := errors.AsType[*policy.Error](err)
	if !ok {
		return p, err
	}
	var lines []string
	for _, problem := range invalid.Problems {
		lines = append(lines, problem.In(filepath.ToSlash(file)))
	}
	return p, codedError{exitRefused, errors.New(strings.Join(lines, "\n"))}
}

// envoyRefuses is why a real Envoy would not take what a valid document becomes, with the
// line of the first rule that it refuses; nil: it would. Each pool has one instance for it.
func envoyRefuses(ctx context.Context, cfg Config, p policy.Policy, document []byte, log *slog.Logger) (*policy.Problem, error) {
	p, _ = p.At(time.Now())
	binary, err := envoy.Find(ctx, cfg.Edge.Envoy, "", log)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tracegate-validate")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	ask := oracle{binary: binary, file: filepath.Join(dir, "envoy.json"), edge: cfg.planEdge()}
	says, err := ask.about(ctx, p)
	if err != nil || says == "" {
		return nil, err
	}
	at, err := ask.guilty(ctx, p)
	if err != nil {
		return nil, err
	}
	return &policy.Problem{Path: at, Line: policy.Lines(document)[at], Message: says}, nil
}

// oracle is an Envoy that checks configurations without running them.
type oracle struct {
	binary, file string
	edge         plan.Edge
}

// about returns why Envoy refuses a policy; empty: it does not.
func (o oracle) about(ctx context.Context, p policy.Policy) (string, error) {
	endpoints := policy.Endpoints{Services: map[string]map[string][]string{}}
	for _, s := range p.Services {
		endpoints.Services[s.Name] = map[string][]string{}
		for _, pool := range s.Pools {
			endpoints.Services[s.Name][pool.Name] = []string{"127.0.0.1:1"}
		}
	}
	desired, err := plan.Build(p, endpoints, plan.Groups{}, o.edge)
	if err != nil {
		return "", err
	}
	snapshot, err := xds.Build(desired)
	if err != nil {
		return err.Error(), nil //nolint:nilerr // what is wrong with the document is the answer
	}
	bootstrap, err := xds.Static(snapshot)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(o.file, bootstrap, 0o600); err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, o.binary, "--mode", "validate", "-l", "error", "-c", o.file).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		return string(bytes.TrimSpace(out)), nil
	}
	return "", errors.Join(err, ctx.Err())
}

// guilty is the first rule without which, and without all behind it, Envoy takes the
// policy; empty where it is none. Envoy names no rule, so it is asked about the first
// half of them, and so on: 14 times for 10,000.
func (o oracle) guilty(ctx context.Context, p policy.Policy) (path string, err error) {
	total := 0
	for _, s := range p.Services {
		total += len(s.Rules)
	}
	kept := sort.Search(total+1, func(n int) bool {
		if err != nil {
			return true
		}
		var says string
		says, err = o.about(ctx, firstRules(p, n))
		return says != ""
	})
	if err != nil || kept == 0 || kept > total {
		return "", err
	}
	for i, s := range p.Services {
		if kept <= len(s.Rules) {
			return fmt.Sprintf("services[%d].rules[%d]", i, kept-1), nil
		}
		kept -= len(s.Rules)
	}
	return "", nil
}

// firstRules is the policy with its first n rules only.
func firstRules(p policy.Policy, n int) policy.Policy {
	p.Services = slices.Clone(p.Services)
	for i := range p.Services {
		s := &p.Services[i]
		s.Rules = s.Rules[:min(n, len(s.Rules))]
		n -= len(s.Rules)
	}
	return p
}
