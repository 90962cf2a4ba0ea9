package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/tracegate/tracegate/controlplane"
	"github.com/tracegate/tracegate/controlplane/notify"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/core"
	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/page"
	"github.com/tracegate/tracegate/edge"
	"github.com/tracegate/tracegate/edge/artifact"
	"github.com/tracegate/tracegate/mesh/secret"
	"github.com/tracegate/tracegate/observability"
	"github.com/tracegate/tracegate/observability/console"
	"github.com/tracegate/tracegate/observability/engine"
	"github.com/tracegate/tracegate/observability/ingest"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/store"
	"github.com/tracegate/tracegate/observability/telemetry"
	"github.com/tracegate/tracegate/wasm/module"
)

// Each run<Part> turns the one configuration into the part's own, hands it what it
// needs of other folders, and runs it until ctx is done.

func runEdge(ctx context.Context, cfg Config, log *slog.Logger) error {
	c := edge.DefaultConfig()
	c.Bootstrap.Admin = cfg.Edge.Admin
	c.Bootstrap.XDS = cfg.ControlPlane.XDS
	c.Envoy = cfg.Edge.Envoy
	c.Dir = filepath.Join(cfg.Data, "edge")
	c.Listen = []string{cfg.Edge.Listen}
	c.Concurrency = cfg.Edge.Concurrency
	c.Drain = cfg.Edge.Drain
	return edge.Run(ctx, c, log)
}

func runControlPlane(ctx context.Context, cfg Config, log *slog.Logger) error {
	token, err := readSecret(cfg.secrets(), secretControl)
	if err != nil {
		return err
	}
	viewer, err := readSecret(cfg.secrets(), secretViewer)
	if err != nil {
		return err
	}
	filter, err := filterModule(ctx, cfg, log)
	if err != nil {
		return err
	}
	jwks, err := sessionKeys(cfg)
	if err != nil {
		return err
	}
	traces, err := openStore(cfg)
	if err != nil {
		return err
	}
	defer traces.Close()
	c := controlplane.DefaultConfig()
	c.Dir = filepath.Join(cfg.Data, "controlplane")
	c.Policy = cfg.policyFile()
	c.Endpoints = cfg.endpoints()
	c.XDSAddress = cfg.ControlPlane.XDS
	c.ControlAddress = cfg.ControlPlane.API
	c.Token, c.ViewerToken = secret.Text(token), secret.Text(viewer)
	c.Edge = plan.Edge{Listen: cfg.Edge.Listen, Observe: cfg.Observe.OTLP, JWKS: jwks, Wasm: filter}
	webhook, err := readSecret(cfg.secrets(), secretWebhook)
	if err != nil {
		return err
	}
	c.Notify = notify.Config{Hooks: cfg.ControlPlane.Webhooks, Console: "http://" + cfg.Observe.Console, Secret: secret.Text(webhook), Dir: c.Dir}
	deps := controlplane.Deps{Stats: traces, Decisions: traces, Why: traceWhy{traces}, Registry: newRegistry()}
	if cfg.Probe.Enabled {
		deps.Causes = newProbes(cfg.Probe.Admin)
	}
	tracing, err := setupTracing(ctx, cfg, semconv.ServiceControlPlane, "", deps.Registry, log)
	if err != nil {
		return err
	}
	deps.Tracing = tracing.Tracer
	return withTracing(ctx, tracing, func() error { return controlplane.Run(ctx, c, deps, log) })
}

func runCore(ctx context.Context, cfg Config, pool string, log *slog.Logger) error {
	c, err := coreConfig(cfg, pool)
	if err != nil {
		return err
	}
	key, err := account.LoadKey(filepath.Join(cfg.secrets(), secretJWT))
	if err != nil {
		return err
	}
	control, err := controlClient(cfg, secretViewer)
	if err != nil {
		return err
	}
	reg := newRegistry()
	tracing, err := setupTracing(ctx, cfg, semconv.ServiceCore, pool, reg, log)
	if err != nil {
		return err
	}
	return withTracing(ctx, tracing, func() error {
		return core.Run(ctx, c, core.Deps{
			Key: key, Placements: control, Page: page.Handler(),
			Tracing: tracing.Tracer, Propagator: tracing.Propagator, Registry: reg,
		}, log)
	})
}

// setupTracing makes a service send its spans to the telemetry receiver. (That itself
// makes none: each would cause another.)
func setupTracing(ctx context.Context, cfg Config, service, pool string, reg *prometheus.Registry, log *slog.Logger) (telemetry.Providers, error) {
	t := telemetry.DefaultConfig()
	t.Service, t.Pool, t.Endpoint = service, pool, cfg.Observe.OTLP
	if env, tenant, err := uncolored(cfg); err == nil { // else the names of no policy
		t.Env, t.Tenant = env, tenant
	}
	return telemetry.Setup(ctx, t, reg, log)
}

// withTracing sends the last spans after run has ended.
func withTracing(ctx context.Context, tracing telemetry.Providers, run func() error) error {
	err := run()
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainGrace)
	defer cancel()
	return errors.Join(err, tracing.Shutdown(flush))
}

// coreConfig is the configuration of the core process that serves pool.
func coreConfig(cfg Config, pool string) (core.Config, error) {
	i := slices.IndexFunc(cfg.Core.Pools, func(p PoolConfig) bool { return p.Name == pool })
	if i < 0 {
		return core.Config{}, fmt.Errorf("core.pools: no pool named %q", pool)
	}
	token, err := readSecret(cfg.secrets(), secretControl)
	if err != nil {
		return core.Config{}, err
	}
	redisPassword, err := cfg.redisPassword()
	if err != nil {
		return core.Config{}, err
	}
	c := core.DefaultConfig()
	c.Pool, c.Listen, c.Admin, c.Token = pool, cfg.Core.Pools[i].Listen, cfg.Core.Pools[i].Admin, token
	c.API.Origins, c.Session.Origins = cfg.Edge.Origins, cfg.Edge.Origins
	c.API.Env, c.API.Tenant, err = uncolored(cfg)
	if err != nil {
		return core.Config{}, err
	}
	c.Queue.Brokers = cfg.Kafka.Brokers
	c.Fanout.Addrs, c.Fanout.Password = cfg.Redis.Addrs, redisPassword
	c.Store.URL = cmp.Or(cfg.Database.URL, "sqlite:"+filepath.Join(cfg.Data, "core.db"))
	c.DrainGrace = cfg.Core.Drain
	c.EditWithin = cfg.Core.EditWithin
	return c, nil
}

// uncolored is the env and tenant of requests that the edge's filter has not seen:
// those that the policy gives to everyone it says nothing else of.
func uncolored(cfg Config) (env, tenant string, err error) {
	document, err := os.ReadFile(cfg.policyFile())
	if err != nil {
		return "", "", fmt.Errorf("read policy: %w", err)
	}
	p, err := policy.Parse(document)
	if err != nil { // the control plane says what is wrong with it, and goes on with its last good one
		if p, err = policy.Parse(policy.Default); err != nil {
			return "", "", fmt.Errorf("parse default policy: %w", err)
		}
	}
	return cmp.Or(p.Color.Env, "default"), cmp.Or(p.Color.Tenant, "default"), nil
}

// sessionKeys are the public keys that verify core's tokens, for the edge.
func sessionKeys(cfg Config) (jwks string, err error) {
	key, err := account.LoadKey(filepath.Join(cfg.secrets(), secretJWT))
	if err != nil {
		return "", err
	}
	return account.JWKS(key), nil
}

func runObserve(ctx context.Context, cfg Config, log *slog.Logger) error {
	c := observability.DefaultConfig()
	c.Admin, c.Console = cfg.Observe.Admin, cfg.Observe.Console
	c.Ingest.Addr = cfg.Observe.OTLP
	c.Ingest.SpoolDir = filepath.Join(cfg.Data, "spool")
	var err error
	if c.Ingest.Env, c.Ingest.Tenant, err = uncolored(cfg); err != nil {
		return err
	}
	if c.Store, err = storeConfig(cfg); err != nil {
		return err
	}
	control, err := controlClient(cfg, secretControl)
	if err != nil {
		return err
	}
	reg := newRegistry()
	page := func(s *store.Store, account func() ingest.Account) (observability.Console, error) {
		cc := console.DefaultConfig()
		cc.PasswordFile = filepath.Join(cfg.secrets(), secretConsole)
		deps := console.Deps{Stats: s, Records: s, Control: control, Operator: control, Ingest: accountFunc(account), Registerer: reg}
		if cfg.Probe.Enabled {
			deps.Probes = newProbes(cfg.Probe.Admin)
		}
		return console.New(cc, deps, log)
	}
	return observability.Run(ctx, c, observability.Deps{Console: page, Registry: reg}, log)
}

// accountFunc lets a function say what became of the telemetry.
type accountFunc func() ingest.Account

func (f accountFunc) Account() ingest.Account { return f() }

func runClickHouse(ctx context.Context, cfg Config, log *slog.Logger) error {
	if !cfg.ClickHouse.Embedded {
		return errors.New("clickhouse.embedded is false: there is nothing to run here")
	}
	library, err := clickHouseLibrary(ctx, cfg, log)
	if err != nil {
		return err
	}
	password, err := cfg.clickHousePassword()
	if err != nil {
		return err
	}
	c := engine.DefaultConfig()
	c.Library = library
	c.DataDir = filepath.Join(cfg.Data, "clickhouse")
	c.Addr = cfg.ClickHouse.Addr
	c.User = cfg.ClickHouse.User
	c.Password = secret.Text(password)
	return engine.Run(ctx, c, newRegistry(), log)
}

// openStore opens the trace store; it connects when it is first used.
func openStore(cfg Config) (*store.Store, error) {
	c, err := storeConfig(cfg)
	if err != nil {
		return nil, err
	}
	return store.Open(c)
}

func storeConfig(cfg Config) (store.Config, error) {
	password, err := cfg.clickHousePassword()
	if err != nil {
		return store.Config{}, err
	}
	c := store.DefaultConfig()
	c.Addr = cfg.ClickHouse.Addr
	c.Database = cfg.ClickHouse.Database
	c.User = cfg.ClickHouse.User
	c.Password = secret.Text(password)
	return c, nil
}

// filterModule finds the edge filter: the one in this binary, or one built now.
func filterModule(ctx context.Context, cfg Config, log *slog.Logger) (plan.Wasm, error) {
	path, err := module.Ensure(ctx, filepath.Join(cfg.Data, "edge"), log)
	if err != nil {
		return plan.Wasm{}, fmt.Errorf("edge filter: %w", err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return plan.Wasm{}, fmt.Errorf("edge filter: %w", err)
	}
	sum := sha256.Sum256(raw)
	return plan.Wasm{Path: path, SHA256: hex.EncodeToString(sum[:])}, nil
}

// clickHouseLibrary is libchdb.so: the configured one, or the pinned download.
func clickHouseLibrary(ctx context.Context, cfg Config, log *slog.Logger) (string, error) {
	if cfg.ClickHouse.Library != "" {
		return cfg.ClickHouse.Library, nil
	}
	return artifact.Ensure(ctx, "", artifact.ChDB(), log)
}

func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsScheduler, collectors.MetricsGC)),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

func (c Config) clickHousePassword() (string, error) {
	if c.ClickHouse.Password != "" {
		return c.ClickHouse.Password, nil
	}
	return readSecret(c.secrets(), secretClickHouse)
}

func (c Config) redisPassword() (string, error) {
	if c.Redis.Password != "" || !c.Redis.Embedded {
		return c.Redis.Password, nil
	}
	return readSecret(c.secrets(), secretRedis)
}

const drainGrace = 5 * time.Second
