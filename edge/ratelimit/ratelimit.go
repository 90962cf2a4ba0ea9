// Package ratelimit is the service that edges ask whether a limit that they share has
// room: Envoy's rate limit protocol (envoy.service.ratelimit.v3) over counts in Redis.
//
// It has no configuration of limits. A descriptor says itself what its limit is
// (controlplane/xds renders it from the policy), so that what counts is the policy an
// edge has acknowledged, and this service may be started, stopped and multiplied at any
// time. (A service that reads the policy too lost: it and the edges would disagree for
// a while after each change, and it would need a last good policy of its own.)
//
// A limit is a sliding window of two fixed ones, one script a request: off by less than
// a percent for steady traffic, two numbers a count whatever the rate. While Redis is
// away a request passes, or gets 429 where its limit says closed; both are counted.
package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/mesh/secret"
	"github.com/tracegate/tracegate/mesh/tlsdial"
)

// Config is the service's.
type Config struct {
	Listen   string   // IP address and port; who can reach it can use up limits, so loopback
	Redis    []string // host:port of one server, or of the nodes of a cluster
	Cluster  bool     // Redis is of a cluster; implied by more than one
	TLS      tlsdial.Config
	Username string
	Password secret.Text
	// Timeout bounds what an answer waits for Redis; the edge gives up after 100 ms.
	Timeout time.Duration
}

// DefaultConfig needs Redis to be filled in.
func DefaultConfig() Config { return Config{Listen: "127.0.0.1:18002", Timeout: 50 * time.Millisecond} }

// Validate names the key that is wrong.
func (c Config) Validate() error {
	host, _, err := net.SplitHostPort(c.Listen)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return errors.New("listen: must be a loopback address, edges do not prove who they are")
	}
	if err := c.TLS.Validate(); err != nil {
		return fmt.Errorf("tls.%w", err)
	}
	return nil
}

// connect makes a client, which connects when it is first used.
func (c Config) connect() (redis.UniversalClient, error) {
	dial, err := tlsdial.Dial(c.TLS, c.Timeout)
	if err != nil {
		return nil, err
	}
	return redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: c.Redis, IsClusterMode: c.Cluster, Username: c.Username, Password: string(c.Password), MaxRetries: -1, // a retry comes too late
		DialTimeout: c.Timeout, ReadTimeout: c.Timeout, WriteTimeout: c.Timeout, PoolTimeout: c.Timeout, ContextTimeoutEnabled: true,
		Dialer: dial,
	}), nil
}

// Run serves until ctx is done. listener may be nil, then it listens on cfg.Listen.
func Run(ctx context.Context, cfg Config, listener net.Listener, reg prometheus.Registerer, log *slog.Logger) error {
	if listener == nil {
		err := cfg.Validate()
		if err != nil {
			return fmt.Errorf("rate limit service: %w", err)
		}
		if listener, err = net.Listen("tcp", cfg.Listen); err != nil {
			return fmt.Errorf("listen for edges: %w", err)
		}
	}
	defer listener.Close()
	s, err := New(cfg, reg, log)
	if err != nil {
		return fmt.Errorf("rate limit service: %w", err)
	}
	defer s.Close()
	g := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 10))
	ratelimitv3.RegisterRateLimitServiceServer(g, s)
	defer context.AfterFunc(ctx, g.Stop)()
	if err := g.Serve(listener); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve rate limits: %w", err)
	}
	return nil
}

// Service answers edges. It is safe for concurrent use.
type Service struct {
	ratelimitv3.UnimplementedRateLimitServiceServer

	counts  counts
	timeout time.Duration
	asked   *prometheus.CounterVec
	log     *slog.Logger
}

// New returns a service that connects to Redis when it is first asked.
func New(cfg Config, reg prometheus.Registerer, log *slog.Logger) (*Service, error) {
	client, err := cfg.connect()
	if err != nil {
		return nil, fmt.Errorf("new redis client: %w", err)
	}
	s := &Service{
		timeout: cfg.Timeout, log: log,
		counts: counts{one: len(cfg.Redis) == 1 && !cfg.Cluster, redis: client},
		asked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tracegate_limit_requests_total",
			Help: "Requests by limit and result: ok, over, shadow (over, and let pass), failed_open and failed_closed (no counts to be had).",
		}, []string{"limit", "result"}),
	}
	reg.MustRegister(s.asked)
	return s, nil
}

// Close ends the connections to Redis.
func (s *Service) Close() error { return s.counts.redis.Close() }

// ShouldRateLimit answers for all descriptors of one request. An error of its own makes
// the edge let the request pass and count it.
func (s *Service) ShouldRateLimit(ctx context.Context, r *ratelimitv3.RateLimitRequest) (*ratelimitv3.RateLimitResponse, error) {
	if r.GetDomain() != xds.RateLimitDomain {
		return nil, status.Errorf(codes.InvalidArgument, "domain %q is not served here", r.GetDomain())
	}
	var limits []limit
	for i, d := range r.GetDescriptors() {
		l, err := parse(d)
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "descriptors[%d]: %v", i, err)
		}
		limits = append(limits, l)
	}
	if len(limits) == 0 {
		return nil, status.Error(codes.InvalidArgument, "descriptors: none")
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	answers, err := s.counts.take(ctx, limits, max(1, r.GetHitsAddend()))
	if err != nil {
		return s.failed(limits, err), nil
	}
	out := &ratelimitv3.RateLimitResponse{OverallCode: ratelimitv3.RateLimitResponse_OK}
	for i, a := range answers {
		st := limits[i].status(a)
		if st.GetCode() == ratelimitv3.RateLimitResponse_OVER_LIMIT {
			out.OverallCode = ratelimitv3.RateLimitResponse_OVER_LIMIT
		}
		s.asked.WithLabelValues(limits[i].name, limits[i].result(a)).Inc()
		out.Statuses = append(out.Statuses, st)
	}
	return out, nil
}

func (l limit) result(a answer) string {
	switch {
	case a.ok:
		return "ok"
	case l.shadow:
		return "shadow"
	default:
		return "over"
	}
}

func (l limit) status(a answer) *ratelimitv3.RateLimitResponse_DescriptorStatus {
	out := &ratelimitv3.RateLimitResponse_DescriptorStatus{
		Code:               ratelimitv3.RateLimitResponse_OK,
		CurrentLimit:       &ratelimitv3.RateLimitResponse_RateLimit{Name: l.name, RequestsPerUnit: l.requests, Unit: l.unit()},
		LimitRemaining:     a.left,
		DurationUntilReset: durationpb.New(a.reset),
	}
	if !a.ok && !l.shadow {
		out.Code = ratelimitv3.RateLimitResponse_OVER_LIMIT
	}
	return out
}

func (l limit) unit() ratelimitv3.RateLimitResponse_RateLimit_Unit {
	switch l.window {
	case time.Second:
		return ratelimitv3.RateLimitResponse_RateLimit_SECOND
	case time.Minute:
		return ratelimitv3.RateLimitResponse_RateLimit_MINUTE
	case time.Hour:
		return ratelimitv3.RateLimitResponse_RateLimit_HOUR
	case 24 * time.Hour:
		return ratelimitv3.RateLimitResponse_RateLimit_DAY
	default:
		return ratelimitv3.RateLimitResponse_RateLimit_UNKNOWN
	}
}

// failed answers without counts.
func (s *Service) failed(limits []limit, err error) *ratelimitv3.RateLimitResponse {
	if !errors.Is(err, context.Canceled) { // the edge has hung up
		s.log.Debug("no counts", "error", err)
	}
	out := &ratelimitv3.RateLimitResponse{OverallCode: ratelimitv3.RateLimitResponse_OK}
	for _, l := range limits {
		code, result := ratelimitv3.RateLimitResponse_OK, "failed_open"
		if l.closed && !l.shadow {
			code, result = ratelimitv3.RateLimitResponse_OVER_LIMIT, "failed_closed"
			out.OverallCode = code
		}
		s.asked.WithLabelValues(l.name, result).Inc()
		out.Statuses = append(out.Statuses, &ratelimitv3.RateLimitResponse_DescriptorStatus{Code: code})
	}
	return out
}
