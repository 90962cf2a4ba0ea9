package ratelimit

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	"github.com/redis/go-redis/v9"

	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/observability/semconv"
)

// limit is what one descriptor asks.
type limit struct {
	name     string
	requests uint32
	window   time.Duration
	shadow   bool
	closed   bool
	key      string // of its count
}

// answer is what became of it.
type answer struct {
	ok    bool
	left  uint32
	reset time.Duration
}

const (
	maxEntries  = 16
	maxRequests = 1_000_000_000
)

// parse reads a descriptor of controlplane/xds: what the limit is, then for whom.
func parse(d *ratelimitv3.RateLimitDescriptor) (limit, error) {
	if len(d.GetEntries()) > maxEntries {
		return limit{}, fmt.Errorf("%d entries, more than %d", len(d.GetEntries()), maxEntries)
	}
	var l limit
	who := sha256.New()
	for _, e := range d.GetEntries() {
		value := e.GetValue()
		switch e.GetKey() {
		case xds.LimitName:
			l.name = value
			continue
		case xds.LimitRate:
			requests, seconds, _ := strings.Cut(value, "/")
			n, err1 := strconv.ParseUint(requests, 10, 32)
			s, err2 := strconv.ParseUint(seconds, 10, 32)
			if err := errors.Join(err1, err2); err != nil || n == 0 || n > maxRequests || s == 0 || s > 86400 {
				return limit{}, fmt.Errorf("rate %q is not requests/seconds", value)
			}
			l.requests, l.window = uint32(n), time.Duration(s)*time.Second
			continue
		case xds.LimitShadow:
			l.shadow = true
			continue
		case xds.LimitClosed:
			l.closed = true
			continue
		case xds.LimitBaggage:
			value = tenantOf(value)
		}
		fmt.Fprintf(who, "%d:%s%d:%s", len(e.GetKey()), e.GetKey(), len(value), value)
	}
	if l.name == "" || l.requests == 0 {
		return limit{}, errors.New("no limit or no rate")
	}
	// Whoever raises a limit does not forgive what was counted; another window counts anew.
	l.key = fmt.Sprintf("limit:%s:%d:%s", l.name, l.window/time.Second, hex.EncodeToString(who.Sum(nil)[:12]))
	return l, nil
}

// tenantOf is the tenant that the edge's filter wrote into baggage (W3C Baggage).
func tenantOf(baggage string) string {
	for member := range strings.SplitSeq(baggage, ",") {
		pair, _, _ := strings.Cut(member, ";")
		if key, value, ok := strings.Cut(pair, "="); ok && strings.TrimSpace(key) == semconv.Tenant {
			if plain, err := url.PathUnescape(strings.TrimSpace(value)); err == nil {
				return plain
			}
		}
	}
	return ""
}

//go:embed window.lua
var windowScript string

var script = redis.NewScript(windowScript)

// counts are in Redis, whose clock is everybody's.
type counts struct {
	redis redis.UniversalClient
	one   bool // server, so that the limits of a request can be looked at together
}

// take counts hits against all limits, if there is room in each, and says for each
// whether there was. On a cluster each stands alone: their keys are on several servers.
func (c counts) take(ctx context.Context, limits []limit, hits uint32) ([]answer, error) {
	if c.one {
		return c.eval(ctx, limits, hits)
	}
	var out []answer
	for _, l := range limits {
		a, err := c.eval(ctx, []limit{l}, hits)
		if err != nil {
			return nil, err
		}
		out = append(out, a...)
	}
	return out, nil
}

func (c counts) eval(ctx context.Context, limits []limit, hits uint32) ([]answer, error) {
	var keys []string
	var args []any
	for _, l := range limits {
		shadow := 0
		if l.shadow {
			shadow = 1
		}
		keys = append(keys, l.key)
		args = append(args, l.requests, int64(l.window/time.Second), hits, shadow)
	}
	got, err := script.Run(ctx, c.redis, keys, args...).Int64Slice()
	if err != nil {
		return nil, fmt.Errorf("count in redis: %w", err)
	}
	if len(got) != 3*len(limits) {
		return nil, fmt.Errorf("count in redis: %d values for %d limits", len(got), len(limits))
	}
	out := make([]answer, len(limits))
	for i := range out {
		out[i] = answer{ok: got[3*i] == 1, left: uint32(max(0, got[3*i+1])), reset: time.Duration(got[3*i+2]) * time.Millisecond}
	}
	return out, nil
}
