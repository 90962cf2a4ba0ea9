package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/explain"
)

func (c *control) explainCommand() *cobra.Command {
	var headers, claims []string
	var peer, file string
	cmd := c.command("explain METHOD URL", "which group a request gets, which rule takes it, which pool serves it, and why", cobra.ExactArgs(2),
		func(ctx context.Context, client *ctlapi.Client, args []string) (any, func(io.Writer), error) {
			q := ctlapi.Question{}
			var err error
			if q.Request, err = requestOf(args[0], args[1], headers, claims, peer); err != nil {
				return nil, nil, err
			}
			if file != "" {
				document, err := os.ReadFile(file)
				if err != nil {
					return nil, nil, err
				}
				q.Document = string(document)
			}
			o, err := client.Explain(ctx, q)
			return o, func(w io.Writer) { printOutcome(w, o) }, err
		})
	cmd.Flags().StringArrayVarP(&headers, "header", "H", nil, `a header, as "Name: value"; may be repeated`)
	cmd.Flags().StringArrayVar(&claims, "claim", nil, "a claim of the token, as name=value; may be repeated; iss says whose it is")
	cmd.Flags().StringVar(&peer, "peer", "", "address the client connects from, where peers are trusted")
	cmd.Flags().StringVar(&file, "policy", "", "a policy document to ask instead of the one in force")
	return cmd
}

func requestOf(method, target string, headers, claims []string, peer string) (explain.Request, error) {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" {
		return explain.Request{}, fmt.Errorf("%q is not a URL with a host", target)
	}
	r := explain.Request{Method: strings.ToUpper(method), Host: u.Host, Path: cmp.Or(u.EscapedPath(), "/"), Header: http.Header{}}
	if u.RawQuery != "" {
		r.Path += "?" + u.RawQuery
	}
	for _, h := range headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return explain.Request{}, fmt.Errorf("header %q is not Name: value", h)
		}
		r.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	for _, claim := range claims {
		name, value, ok := strings.Cut(claim, "=")
		if !ok {
			return explain.Request{}, fmt.Errorf("claim %q is not name=value", claim)
		}
		if r.Claims == nil {
			r.Claims = map[string]any{}
		}
		r.Claims[name] = value
	}
	if peer != "" {
		if r.Peer, err = netip.ParseAddr(peer); err != nil {
			return explain.Request{}, fmt.Errorf("peer %q is not an IP address", peer)
		}
	}
	return r, nil
}

func printOutcome(w io.Writer, o explain.Outcome) {
	switch o.Action {
	case explain.Serve:
		fmt.Fprintf(w, "group %s is served by pool %s of %s", cmp.Or(string(o.Group), "none"), o.Pool, o.Service)
	default:
		fmt.Fprintf(w, "group %s gets %d from the edge (%s)", cmp.Or(string(o.Group), "none"), o.Status, o.Action)
	}
	if o.Rule != "" {
		fmt.Fprintf(w, " by rule %s", o.Rule)
	} else if o.Route != "" {
		fmt.Fprintf(w, " by route %s", o.Route)
	}
	fmt.Fprintln(w)
	for _, why := range o.Why {
		fmt.Fprintln(w, "  -", why)
	}
}
