package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Resolver is the part of [net.Resolver] that is asked.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, addrs []*net.SRV, err error)
}

// DNS keeps the addresses of names fresh. An endpoint is one of
//
//	dns://host:port             every A and AAAA record, with the port
//	srv://_service._proto.name  every SRV record's target, with its port
//
// It asks by itself, and not Envoy, so that what is lost is seen here: a name that
// fails or is empty keeps the addresses it had, which [DNS.Lost] says. A single address
// that goes leaves with the next answer.
type DNS struct {
	Resolver Resolver
	Refresh  time.Duration // between two questions about a name
	Timeout  time.Duration // of one
	Log      *slog.Logger

	last map[string][]string // name -> addresses of its last good answer
	lost map[string]error
}

// The schemes of endpoints that are looked up.
const (
	schemeHost = "dns://"
	schemeSRV  = "srv://"
)

// IsName says whether an endpoint is to be looked up.
func IsName(endpoint string) bool {
	return strings.HasPrefix(endpoint, schemeHost) || strings.HasPrefix(endpoint, schemeSRV)
}

// maxResolved bounds the addresses of one name.
const maxResolved = 1000

// Resolve replaces names by their addresses. It fails only where a name was never
// answered: then there is nothing that could go on.
func (d *DNS) Resolve(ctx context.Context, endpoints []string) ([]string, error) {
	var out []string
	for _, e := range endpoints {
		if !IsName(e) {
			out = append(out, e)
			continue
		}
		addrs, err := d.resolve(ctx, e)
		if err != nil {
			return nil, err
		}
		out = append(out, addrs...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func (d *DNS) resolve(ctx context.Context, name string) ([]string, error) {
	if d.last == nil {
		d.last, d.lost = map[string][]string{}, map[string]error{}
	}
	ask, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	addrs, err := d.ask(ask, name)
	if err == nil && len(addrs) == 0 {
		err = errors.New("no address")
	}
	if err == nil {
		if d.lost[name] != nil {
			d.Log.Info("name is answered again", "name", name, "addresses", len(addrs))
		}
		delete(d.lost, name)
		d.last[name] = addrs
		return addrs, nil
	}
	last, known := d.last[name]
	if !known {
		return nil, fmt.Errorf("look up %s: %w", name, err)
	}
	if d.lost[name] == nil && ctx.Err() == nil {
		d.Log.Warn("name is not answered, its last addresses go on", "name", name, "addresses", len(last), "error", err)
	}
	d.lost[name] = err
	return last, nil
}

// Lost are the names whose last question failed, and that go on with what they had.
func (d *DNS) Lost() []string {
	var out []string
	for name, err := range d.lost {
		out = append(out, name+": "+err.Error())
	}
	slices.Sort(out)
	return out
}

func (d *DNS) ask(ctx context.Context, name string) ([]string, error) {
	if host, ok := strings.CutPrefix(name, schemeHost); ok {
		host, port, err := net.SplitHostPort(host)
		if err != nil {
			return nil, err
		}
		return d.hosts(ctx, host, port)
	}
	_, records, err := d.Resolver.LookupSRV(ctx, "", "", strings.TrimPrefix(name, schemeSRV))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, r := range records {
		addrs, err := d.hosts(ctx, strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port)))
		if err != nil {
			return nil, err
		}
		out = append(out, addrs...)
	}
	return out, nil
}

func (d *DNS) hosts(ctx context.Context, host, port string) ([]string, error) {
	addrs, err := d.Resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if len(addrs) > maxResolved {
		return nil, fmt.Errorf("%d addresses, more than %d", len(addrs), maxResolved)
	}
	var out []string
	for _, a := range addrs {
		out = append(out, net.JoinHostPort(a.Unmap().String(), port))
	}
	return out, nil
}
