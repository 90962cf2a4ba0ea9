package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/tracegate/tracegate/controlplane"
	"github.com/tracegate/tracegate/controlplane/notify"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/core"
	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/fanout"
	"github.com/tracegate/tracegate/core/file"
	"github.com/tracegate/tracegate/core/page"
	"github.com/tracegate/tracegate/core/queue"
	"github.com/tracegate/tracegate/core/search"
	"github.com/tracegate/tracegate/edge"
	"github.com/tracegate/tracegate/edge/artifact"
	"github.com/tracegate/tracegate/edge/ratelimit"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/identity"
	"github.com/tracegate/tracegate/mesh/secret"
	"github.com/tracegate/tracegate/observability"
	"github.com/tracegate/tracegate/observability/console"
	"github.com/tracegate/tracegate/observability/engine"
	"github.com/tracegate/tracegate/observability/ingest"
	"github.com/tracegate/tracegate/observability/remotewrite"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
	"github.com/tracegate/tracegate/observability/telemetry"
	"github.com/tracegate/tracegate/wasm/module"
)

// Each run<Part> turns the one configuration into the part's own, hands it what it
// needs of other folders, and runs it until ctx is done.

func runEdge(ctx context.Context, cfg Config, log *slog.Logger) error {
	if _, err := identityOf(cfg, identity.Edge); err != nil {
		return err
	}
	if _, err := filterModule(ctx, cfg, log); err != nil {
		return err
	}
	c := edgeConfig(cfg)
	upgrade, ignore := onHangup(ctx)
	defer ignore()
	c.Upgrade = upgrade
	return edge.Run(ctx, c, log)
}

func edgeConfig(cfg Config) edge.Config {
	c := edge.DefaultConfig()
	c.Bootstrap.Admin = cfg.Edge.Admin
	c.Bootstrap.XDS = cfg.ControlPlane.XDS
	c.Bootstrap.ID, c.Bootstrap.Zone, c.Bootstrap.Identity = cfg.Edge.ID, cfg.Edge.Zone, cfg.Identity
	c.Bootstrap.MaxHeapBytes, c.Bootstrap.MaxConnections = uint64(cfg.Edge.MaxHeapBytes), cfg.Edge.MaxConnections
	c.Envoy = cfg.Edge.Envoy
	c.Dir = filepath.Join(cfg.Data, "edge")
	c.Listen = []string{cfg.Edge.Listen}
	if cfg.Edge.TLS.Listen != "" {
		c.Listen = append(c.Listen, cfg.Edge.TLS.Listen)
	}
	c.Concurrency = cfg.Edge.Concurrency
	c.Drain = cfg.Edge.Drain
	return c
}

// onHangup has a value for each SIGHUP that is not waiting already.
func onHangup(ctx context.Context) (<-chan struct{}, func()) {
	signals, out := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for {
			select {
			case <-signals:
			case <-ctx.Done():
				return
			}
			select {
			case out <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, func() { signal.Stop(signals); cancel() }
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
	c.LastGoodKey = filepath.Join(cfg.secrets(), secretLastGood)
	c.Policy = cfg.policyFile()
	c.Endpoints = cfg.endpoints()
	e := cfg.ControlPlane.Etcd
	c.Etcd = controlplane.Etcd{
		Endpoints: e.Endpoints, Username: e.Username, Password: secret.Text(e.Password), Prefix: e.Prefix, Labels: e.Labels, Version: e.Version,
	}
	c.Trial.Watch, c.Trial.Edges = cfg.ControlPlane.Trial.Watch, cfg.ControlPlane.Trial.Edges
	c.XDSAddress = cfg.ControlPlane.XDS
	c.ControlAddress = cfg.ControlPlane.API
	if c.Identity, err = identityOf(cfg, identity.ControlPlane); err != nil {
		return err
	}
	c.Token, c.ViewerToken = secret.Text(token), secret.Text(viewer)
	c.Tokens = cfg.tokens()
	c.Certificates, c.Settings = cfg.certificates(), filepath.Join(cfg.Data, "settings")
	c.Edge = cfg.planEdge()
	c.Edge.JWKS, c.Edge.Wasm = jwks, filter
	webhook, err := readSecret(cfg.secrets(), secretWebhook)
	if err != nil {
		return err
	}
	updates, err := readSecret(cfg.secrets(), secretUpdates)
	if err != nil {
		return err
	}
	c.UpdateSecret = secret.Text(updates)
	c.Notify = notify.Config{Hooks: cfg.ControlPlane.Webhooks, Console: "http://" + cfg.Observe.Console, Secret: secret.Text(webhook), Dir: c.Dir}
	deps := controlplane.Deps{
		Stats: traces, Saturation: traces, Edges: traces, Decisions: traces, Why: traceWhy{traces}, Path: callPaths(traces), Registry: newRegistry(), Settings: liveSettings(),
	}
	if cfg.Probe.Enabled {
		deps.Causes = newProbes(cfg.Probe.Admin)
	}
	if err := fromKubernetes(cfg, &deps, log); err != nil {
		return err
	}
	if len(cfg.Discovery.Etcd) > 0 && deps.Places == nil {
		client, err := cfg.Discovery.client()
		if err != nil {
			return err
		}
		defer client.Close()
		deps.Places = cfg.Discovery.registry(client, log).Run
	}
	tracing, err := setupTracing(ctx, cfg, identity.ControlPlane, semconv.ServiceControlPlane, "", deps.Registry, log)
	if err != nil {
		return err
	}
	deps.Tracing = tracing.Tracer
	return withTracing(ctx, tracing, log, func() error { return controlplane.Run(ctx, c, deps, log) })
}

// pathWindow is how far back traces say whom a group's requests reach.
const pathWindow = 5 * time.Minute

// callPaths is every pool that serves a group's requests, by its traces of late.
func callPaths(traces *store.Store) func(context.Context, group.ID) ([]sli.Hop, error) {
	return func(ctx context.Context, of group.ID) ([]sli.Hop, error) {
		now := time.Now()
		return traces.CallPath(ctx, of, sli.Window{From: now.Add(-pathWindow), To: now})
	}
}

func runRateLimit(ctx context.Context, cfg Config, log *slog.Logger) error {
	c, err := rateLimitConfig(cfg)
	if err != nil {
		return err
	}
	return ratelimit.Run(ctx, c, nil, newRegistry(), log)
}

func rateLimitConfig(cfg Config) (ratelimit.Config, error) {
	password, err := cfg.redisPassword()
	if err != nil {
		return ratelimit.Config{}, err
	}
	c, r := ratelimit.DefaultConfig(), cfg.Redis
	c.Listen, c.Redis, c.Cluster, c.TLS = cfg.RateLimit.Listen, r.Addrs, r.Cluster, r.TLS
	c.Username, c.Password = r.Username, secret.Text(password)
	return c, nil
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
	hands, err := controlClient(cfg, secretControl) // an instance answers what it is handed, which a viewer may not
	if err != nil {
		return err
	}
	reg := newRegistry()
	tracing, err := setupTracing(ctx, cfg, identity.Core, semconv.ServiceCore, pool, reg, log)
	if err != nil {
		return err
	}
	return withTracing(ctx, tracing, log, func() error {
		return withLoad(ctx, cfg, identity.Core, semconv.ServiceCore, pool, reg, log, func(ctx context.Context, load *telemetry.Load) error {
			return registered(ctx, cfg.Discovery, semconv.ServiceCore, pool, log, func(ctx context.Context, ready func(addr string)) error {
				return core.Run(ctx, c, core.Deps{
					Key: key, Placements: control, Settings: hands, Page: page.Handler(), Ready: func(listen, _ string) { ready(listen) },
					Tracing: tracing.Tracer, Propagator: tracing.Propagator, Registry: reg, Queues: load,
				}, log)
			})
		})
	})
}

// withLoad runs a service whose process says how full it is, for as long as it runs.
func withLoad(ctx context.Context, cfg Config, part identity.Part, service, pool string, reg *prometheus.Registry, log *slog.Logger, run func(context.Context, *telemetry.Load) error) error {
	trust, err := toObserve(cfg, part)
	if err != nil {
		return err
	}
	receiver, err := grpc.NewClient(cfg.Observe.OTLP, grpc.WithTransportCredentials(credentialsOf(trust)))
	if err != nil {
		return fmt.Errorf("connect to telemetry receiver: %w", err)
	}
	defer receiver.Close()
	load := telemetry.NewLoad(telemetry.Config{Service: service, Pool: pool, Instance: uuid.NewString()}, receiver, reg, log)
	work, ctx := errgroup.WithContext(ctx)
	reporting, stop := context.WithCancel(ctx)
	work.Go(func() error { return load.Run(reporting) })
	work.Go(func() error {
		defer stop()
		return run(ctx, load)
	})
	return work.Wait()
}

// setupTracing makes a service send its spans to the telemetry receiver. (That itself
// makes none: each would cause another.)
func setupTracing(ctx context.Context, cfg Config, part identity.Part, service, pool string, reg *prometheus.Registry, log *slog.Logger) (telemetry.Providers, error) {
	t := telemetry.DefaultConfig()
	t.Service, t.Pool, t.Endpoint = service, pool, cfg.Observe.OTLP
	trust, err := toObserve(cfg, part)
	if err != nil {
		return telemetry.Providers{}, err
	}
	t.TLS = trust
	if env, tenant, err := uncolored(cfg); err == nil { // else the names of no policy
		t.Env, t.Tenant = env, tenant
	}
	return telemetry.Setup(ctx, t, reg, log)
}

// withTracing sends the last spans after run has ended. That the receiver is away then is
// no failure of the service: what is lost is counted.
func withTracing(ctx context.Context, tracing telemetry.Providers, log *slog.Logger, run func() error) error {
	err := run()
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainGrace)
	defer cancel()
	if lost := tracing.Shutdown(flush); lost != nil {
		log.Warn("the last spans were not handed over", "error", lost)
	}
	return err
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
	c.Queue, c.Fanout = cfg.queueConfig(), cfg.fanoutConfig()
	c.Fanout.Password = redisPassword
	c.Store.URL = cfg.databaseURL()
	c.File, c.FilePlace.S3 = cfg.fileConfig(), cfg.s3Config()
	c.FilePlace.Folder = filepath.Join(cfg.Data, "files")
	filesKey, err := readSecret(cfg.secrets(), secretFiles)
	if err != nil {
		return core.Config{}, err
	}
	c.FilePlace.Key = secret.Text(filesKey)
	searchToken, err := readSecret(cfg.secrets(), secretSearch)
	if err != nil {
		return core.Config{}, err
	}
	c.Search = search.ClientConfig{Addrs: cfg.Search.Addrs, Token: secret.Text(searchToken)}
	if len(c.Search.Addrs) == 0 && cfg.Search.Enabled {
		c.Search.Addrs = []string{cfg.Search.Listen}
	}
	c.Version, c.Labels = cfg.Core.Version, cfg.Core.Labels
	c.DrainGrace = cfg.Core.Drain
	c.EditWithin = cfg.Core.EditWithin
	if c.PushURL = cfg.Core.PushURL; c.PushURL != "" {
		key, err := readSecret(cfg.secrets(), secretPush)
		if err != nil {
			return core.Config{}, err
		}
		c.PushSecret = secret.Text(key)
	}
	return c, nil
}

// runSearch runs a search process; anew makes its index anew first.
func runSearch(ctx context.Context, cfg Config, anew bool, log *slog.Logger) error {
	c, err := searchConfig(cfg)
	if err != nil {
		return err
	}
	c.Anew = anew
	return search.Run(ctx, c, newRegistry(), nil, log)
}

func searchConfig(cfg Config) (search.Config, error) {
	token, err := readSecret(cfg.secrets(), secretSearch)
	if err != nil {
		return search.Config{}, err
	}
	c := search.DefaultConfig()
	c.Listen, c.Dir, c.MaxMessages, c.Token = cfg.Search.Listen, filepath.Join(cfg.Data, "search"), cfg.Search.MaxMessages, secret.Text(token)
	c.Store.URL, c.Queue = cfg.databaseURL(), cfg.queueConfig()
	return c, nil
}

func (c Config) databaseURL() string {
	return cmp.Or(c.Database.URL, "sqlite:"+filepath.Join(c.Data, "core.db"))
}

func (c Config) queueConfig() queue.Config {
	k, out := c.Kafka, queue.DefaultConfig()
	out.Brokers, out.Topic, out.DeadTopic = k.Brokers, k.Topic, k.Topic+".dead"
	out.Partitions, out.Replication, out.Retention = k.Partitions, k.Replication, k.Retention
	out.Group, out.Session, out.Batch, out.Linger = k.Group, k.Session, k.Batch, k.Linger
	out.MaxUnstored = k.MaxUnstored
	out.TLS, out.SASL = k.TLS, k.SASL
	if k.SASL.Mechanism != "" && k.SASL.PasswordFile == "" {
		out.SASL.PasswordFile = filepath.Join(c.secrets(), secretKafka)
	}
	return out
}

// fanoutConfig has no password yet: that may be a secret of the data folder.
func (c Config) fanoutConfig() fanout.Config {
	out, r := fanout.DefaultConfig(), c.Redis
	out.Addrs, out.Cluster, out.TLS, out.Username = r.Addrs, r.Cluster, r.TLS, r.Username
	out.PresenceTTL = r.PresenceTTL
	return out
}

func (c Config) fileConfig() file.Config {
	out := file.DefaultConfig()
	out.MaxSize, out.Quota.Bytes = c.Files.MaxSize, c.Files.Quota
	return out
}

func (c Config) s3Config() file.S3Config {
	f := c.Files
	return file.S3Config{Endpoint: f.S3, Public: f.Public, Region: f.Region, Bucket: f.Bucket, AccessKey: f.AccessKey, SecretKey: secret.Text(f.SecretKey)}
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
	c.Ingest.Addr, c.Ingest.HTTPAddr = cfg.Observe.OTLP, cfg.Observe.HTTP
	c.Ingest.SpoolDir = filepath.Join(cfg.Data, "spool")
	c.Receiver = hostname() + " " + cfg.Observe.OTLP
	c.Ingest.Writers, c.SystemLogDays = writers(cfg), cfg.ClickHouse.SystemLogDays
	own, err := identityOf(cfg, identity.Observe)
	if err != nil {
		return err
	}
	if own != nil {
		c.Ingest.TLS = own.Server(true)
		if checkLoopback(cfg.Observe.HTTP) != nil { // collectors on this machine need no certificate
			c.Ingest.HTTPTLS = own.Server(true)
		}
	}
	c.RemoteWrite = remotewrite.Config{URL: cfg.Observe.Write, Every: 10 * time.Second, Labels: map[string]string{"job": "tracegate", "instance": hostname() + " " + cfg.Observe.Admin}}
	token, err := os.ReadFile(filepath.Join(cfg.secrets(), "remote-write.token"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read remote-write token: %w", err)
	}
	c.RemoteWrite.Token = secret.Text(strings.TrimSpace(string(token)))
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
		if file := filepath.Join(cfg.secrets(), secretLook); isFile(file) { // a data folder of an older version has none
			cc.ViewerFile = file
		}
		deps := console.Deps{Stats: s, Records: s, Control: control, Operator: control, Policies: control, Ingest: accountFunc(account), Registerer: reg}
		if cfg.Probe.Enabled {
			deps.Probes = newProbes(cfg.Probe.Admin)
		}
		return console.New(cc, deps, log)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(ingest.GCPercent)
	}
	return observability.Run(ctx, c, observability.Deps{Console: page, Registry: reg}, log)
}

// writers are as many as were measured to help: the embedded engine takes all CPUs for one
// insert, and a server answers later than loopback does.
func writers(cfg Config) int {
	switch {
	case cfg.Observe.Writers > 0:
		return cfg.Observe.Writers
	case cfg.ClickHouse.Embedded:
		return 1
	}
	return 4
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
	c.Addr, c.TLS = cfg.ClickHouse.Addr, cfg.ClickHouse.TLS
	c.Database = cfg.ClickHouse.Database
	c.User = cfg.ClickHouse.User
	c.Password = secret.Text(password)
	c.Cluster = store.Cluster{Name: cfg.ClickHouse.Cluster, Path: cfg.ClickHouse.Path, Replica: cfg.ClickHouse.Replica}
	c.Quotas = map[string]uint64{}
	for _, q := range cfg.ClickHouse.Quotas {
		c.Quotas[q.Table] = uint64(q.Bytes)
	}
	return c, nil
}

// filterModule puts the edge filter, the one in this binary or one built now, into the
// folder that an Envoy of this data folder runs in. It is named without the folder: each
// edge has its own, with the same name for the same filter.
func filterModule(ctx context.Context, cfg Config, log *slog.Logger) (plan.Wasm, error) {
	path, err := module.Ensure(ctx, edgeConfig(cfg).Dir, log)
	if err != nil {
		return plan.Wasm{}, fmt.Errorf("edge filter: %w", err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return plan.Wasm{}, fmt.Errorf("edge filter: %w", err)
	}
	sum := sha256.Sum256(raw)
	return plan.Wasm{Path: filepath.Base(path), SHA256: hex.EncodeToString(sum[:])}, nil
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

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
