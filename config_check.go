package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tracegate/tracegate/edge/bootstrap"
	"github.com/tracegate/tracegate/mesh/settings"
	"github.com/tracegate/tracegate/mesh/webhook"
	"github.com/tracegate/tracegate/observability/ingest"
	"github.com/tracegate/tracegate/observability/remotewrite"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/store"
)

// validate checks every key; the error starts with the key's name.
func (c Config) validate() error {
	if err := c.checkBetweenParts(); err != nil {
		return err
	}
	for key, addr := range map[string]string{
		"edge.admin": c.Edge.Admin, "observe.admin": c.Observe.Admin, "probe.admin": c.Probe.Admin, "search.listen": c.Search.Listen,
		"ratelimit.listen": c.RateLimit.Listen,
	} {
		if err := checkLoopback(addr); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if c.Observe.Write != "" {
		if err := (remotewrite.Config{URL: c.Observe.Write, Every: time.Second}).Validate(); err != nil {
			return fmt.Errorf("observe.remote_write: %w", err)
		}
	}
	for key, addr := range map[string]string{
		"edge.listen": c.Edge.Listen, "observe.console": c.Observe.Console, "clickhouse.addr": c.ClickHouse.Addr,
	} {
		if err := checkAddr(addr); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if c.Edge.TLS.Listen != "" {
		if err := checkAddr(c.Edge.TLS.Listen); err != nil {
			return fmt.Errorf("edge.tls.listen: %w", err)
		}
	} else if c.Edge.TLS.Redirect || c.Edge.TLS.HTTP3 {
		return fmt.Errorf("edge.tls.listen: missing, and edge.tls.redirect and edge.tls.http3 need it")
	}
	return firstError(
		c.Kubernetes.check(),
		c.checkPools(),
		c.checkWebhooks(),
		c.checkPush(),
		c.checkInstance(),
		c.Discovery.check(),
		checkList("kafka.brokers", c.Kafka.Brokers, c.Kafka.Embedded),
		checkList("redis.addrs", c.Redis.Addrs, c.Redis.Embedded),
		c.checkEngines(),
		checkEmbedded("clickhouse.addr", c.ClickHouse.Addr, c.ClickHouse.Embedded),
		c.ClickHouse.check(),
		c.checkEmbeddedArePlain(),
		atLeast("clickhouse.system_log_days", int64(c.ClickHouse.SystemLogDays), 0),
		atLeast("observe.writers", int64(c.Observe.Writers), 0),
		atMost("observe.writers", int64(c.Observe.Writers), ingest.MaxWriters),
		oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error"),
		oneOf("log.format", c.Log.Format, "text", "json"),
		atLeast("edge.trusted_hops", int64(c.Edge.TrustedHops), 0),
		atLeast("edge.concurrency", int64(c.Edge.Concurrency), 0),
		atLeast("edge.max_heap_bytes", c.Edge.MaxHeapBytes, bootstrap.MinHeapBytes),
		atLeast("edge.max_connections", c.Edge.MaxConnections, 1),
		atLeast("edge.drain", int64(c.Edge.Drain), 0),
		atLeast("core.drain", int64(c.Core.Drain), 0),
		atLeast("core.edit_within", int64(c.Core.EditWithin), 0),
		atLeast("probe.connect", int64(c.Probe.Connect), 1),
		atLeast("probe.scheduler", int64(c.Probe.Scheduler), 1),
		checkDatabase(c.Database.URL),
		c.checkFiles(),
		c.checkSearch(),
		c.checkPorts(),
	)
}

// checkBetweenParts is about addresses that parts reach each other by.
func (c Config) checkBetweenParts() error {
	for key, addr := range map[string]string{
		"controlplane.xds": c.ControlPlane.XDS, "controlplane.api": c.ControlPlane.API, "observe.otlp": c.Observe.OTLP, "observe.otlp_http": c.Observe.HTTP,
	} {
		if addr == "" && key == "observe.otlp_http" {
			continue // there is none
		}
		if c.Identity == "" {
			if err := checkLoopback(addr); err != nil {
				return fmt.Errorf("%s: %w, unless parts prove who they are: identity", key, err)
			}
		} else if _, err := netip.ParseAddrPort(addr); err != nil {
			return fmt.Errorf("%s: %q is not an IP address and port", key, addr)
		}
	}
	if !edgeID.MatchString(c.Edge.ID) {
		return fmt.Errorf("edge.id: %q is not 1 to 64 letters, digits, dots and hyphens", c.Edge.ID)
	}
	return nil
}

var edgeID = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$`)

func (c Config) checkWebhooks() error {
	for i, h := range c.ControlPlane.Webhooks {
		if err := h.Validate(); err != nil {
			return fmt.Errorf("controlplane.webhooks[%d].%w", i, err)
		}
	}
	return nil
}

func (c Config) checkPush() error {
	if c.Core.PushURL == "" {
		return nil
	}
	if err := webhook.CheckURL(c.Core.PushURL); err != nil {
		return fmt.Errorf("core.push_%w", err)
	}
	return nil
}

func (d DiscoveryConfig) check() error {
	switch {
	case len(d.Etcd) == 0:
		return nil
	case !strings.HasPrefix(d.Prefix, "/") || path.Clean(d.Prefix) != d.Prefix || d.Prefix == "/":
		return fmt.Errorf("discovery.prefix: %q is not a clean path below /", d.Prefix)
	case d.TTL < time.Second || d.TTL > time.Minute || d.TTL%time.Second != 0:
		return fmt.Errorf("discovery.ttl: %v is not 1s to 1m in whole seconds", d.TTL)
	}
	return nil
}

func (c Config) checkInstance() error {
	of := settings.Instance{Service: semconv.ServiceCore, Node: "any", Version: c.Core.Version, Labels: c.Core.Labels}
	if err := of.Validate(); err != nil {
		return fmt.Errorf("core.%w", err)
	}
	return nil
}

// maxProcesses bounds one pool of one machine.
const maxProcesses = 64

func (c Config) checkPools() error {
	names := map[string]bool{}
	for i, p := range c.Core.Pools {
		key := fmt.Sprintf("core.pools[%d]", i)
		if p.Name == "" || names[p.Name] {
			return fmt.Errorf("%s.name: empty or given twice: %q", key, p.Name)
		}
		names[p.Name] = true
		if err := checkAddr(p.Listen); err != nil {
			return fmt.Errorf("%s.listen: %w", key, err)
		}
		if err := checkLoopback(p.Admin); err != nil {
			return fmt.Errorf("%s.admin: %w", key, err)
		}
		if p.Max < 0 || p.Max > maxProcesses {
			return fmt.Errorf("%s.max: %d is not between 0 and %d", key, p.Max, maxProcesses)
		}
		if p.Max > 1 && !(p.QPS >= 1) {
			return fmt.Errorf("%s.qps: %v is less than 1, and max needs it", key, p.QPS)
		}
	}
	if !names["baseline"] {
		return fmt.Errorf("core.pools: no pool named baseline, which every fallback needs")
	}
	return nil
}

// listeners names every address that this configuration listens on.
func (c Config) listeners() map[string]string {
	l := map[string]string{
		"edge.listen": c.Edge.Listen, "edge.admin": c.Edge.Admin,
		"controlplane.xds": c.ControlPlane.XDS, "controlplane.api": c.ControlPlane.API,
		"observe.otlp": c.Observe.OTLP, "observe.console": c.Observe.Console, "observe.admin": c.Observe.Admin,
		"ratelimit.listen": c.RateLimit.Listen,
	}
	if c.Edge.TLS.Listen != "" {
		l["edge.tls.listen"] = c.Edge.TLS.Listen
	}
	for i, p := range c.Core.Pools {
		l[fmt.Sprintf("core.pools[%d].listen", i)] = p.Listen
		l[fmt.Sprintf("core.pools[%d].admin", i)] = p.Admin
	}
	if c.Observe.HTTP != "" {
		l["observe.otlp_http"] = c.Observe.HTTP
	}
	if c.Probe.Enabled {
		l["probe.admin"] = c.Probe.Admin
	}
	if c.Search.Enabled {
		l["search.listen"] = c.Search.Listen
	}
	if c.ClickHouse.Embedded {
		l["clickhouse.addr"] = c.ClickHouse.Addr
	}
	if c.Kafka.Embedded {
		l["kafka.brokers"] = c.Kafka.Brokers[0]
	}
	if c.Redis.Embedded {
		l["redis.addrs"] = c.Redis.Addrs[0]
	}
	return l
}

func (c Config) checkPorts() error {
	used := map[string]string{}
	l := c.listeners()
	for _, key := range sortedKeys(l) {
		if other, taken := used[l[key]]; taken {
			return fmt.Errorf("%s: %s is also the address of %s", key, l[key], other)
		}
		used[l[key]] = key
	}
	return nil
}

// check is for what the operator cannot find out by itself.
func (k KubernetesConfig) check() error {
	for key, addr := range map[string]string{"kubernetes.autoscaler": k.Autoscaler, "kubernetes.keda": k.KEDA} {
		switch {
		case addr == "":
		case !k.Statistics:
			return fmt.Errorf("kubernetes.statistics: off, and %s has nothing to answer without them", key)
		case k.Cert == "" || k.Key == "":
			return fmt.Errorf("kubernetes.certificate: missing, or its key, and %s needs both", key)
		}
	}
	if k.KEDA != "" && k.KEDAClients == "" {
		return fmt.Errorf("kubernetes.keda_clients: missing: whoever reaches kubernetes.keda could ask")
	}
	return nil
}

func checkAddr(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not host:port", addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q: the port must be a number from 1 to 65535", addr)
	}
	return nil
}

func checkLoopback(addr string) error {
	if err := checkAddr(addr); err != nil {
		return err
	}
	host, _, _ := net.SplitHostPort(addr)
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.IsLoopback() {
		return fmt.Errorf("%q is not a loopback address, and this interface must not be open", addr)
	}
	return nil
}

func checkEmbedded(key, addr string, embedded bool) error {
	if !embedded {
		return nil
	}
	if err := checkLoopback(addr); err != nil {
		return fmt.Errorf("%s: the embedded one listens there: %w", key, err)
	}
	return nil
}

func checkList(key string, addrs []string, embedded bool) error {
	if len(addrs) == 0 {
		return fmt.Errorf("%s: empty", key)
	}
	for _, a := range addrs {
		if err := checkAddr(a); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return checkEmbedded(key, addrs[0], embedded)
}

// checkEngines is about Kafka and Redis, beside their addresses.
func (c Config) checkEngines() error {
	if err := c.queueConfig().Validate(); err != nil {
		return fmt.Errorf("kafka.%w", err)
	}
	if c.Kafka.Embedded && c.Kafka.Replication > 1 {
		return errors.New("kafka.replication: the embedded one is a single broker; use brokers (kafka.embedded: false)")
	}
	if err := c.fanoutConfig().Validate(); err != nil {
		return fmt.Errorf("redis.%w", err)
	}
	if c.Redis.Username != "" && c.Redis.Password == "" && !c.Redis.Embedded {
		return errors.New("redis.password: empty, and redis.username needs one")
	}
	return nil
}

// checkEmbeddedArePlain refuses what only servers have.
func (c Config) checkEmbeddedArePlain() error {
	for _, k := range []struct {
		engine   string
		embedded bool
		key      string
		set      bool
	}{
		{"kafka", c.Kafka.Embedded, "tls.enabled", c.Kafka.TLS.Enabled},
		{"kafka", c.Kafka.Embedded, "sasl.mechanism", c.Kafka.SASL.Mechanism != ""},
		{"redis", c.Redis.Embedded, "tls.enabled", c.Redis.TLS.Enabled},
		{"redis", c.Redis.Embedded, "username", c.Redis.Username != ""},
		{"redis", c.Redis.Embedded, "cluster", c.Redis.Cluster},
		{"clickhouse", c.ClickHouse.Embedded, "tls.enabled", c.ClickHouse.TLS.Enabled},
	} {
		if k.embedded && k.set {
			return fmt.Errorf("%[1]s.%[2]s: the embedded one has none of it; use servers (%[1]s.embedded: false)", k.engine, k.key)
		}
	}
	return nil
}

func checkDatabase(url string) error {
	if url == "" || strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://") {
		return nil
	}
	return fmt.Errorf("database.url: must start with postgres:// or be empty")
}

func (c Config) checkFiles() error {
	f := c.fileConfig()
	if err := f.Validate(); err != nil {
		return fmt.Errorf("files.%w", err)
	}
	if c.Files.S3 == "" {
		return nil
	}
	if err := c.s3Config().Validate(); err != nil {
		return fmt.Errorf("files.%s", strings.Replace(err.Error(), "endpoint:", "s3:", 1))
	}
	return nil
}

func (c Config) checkSearch() error {
	for _, a := range c.Search.Addrs {
		if err := checkAddr(a); err != nil {
			return fmt.Errorf("search.addrs: %w", err)
		}
	}
	if c.Search.MaxMessages < 1 {
		return fmt.Errorf("search.max_messages: must not be below 1")
	}
	return nil
}

func oneOf(key, got string, want ...string) error {
	if slices.Contains(want, got) {
		return nil
	}
	return fmt.Errorf("%s: %q is none of %s", key, got, strings.Join(want, ", "))
}

func atLeast(key string, got, least int64) error {
	if got < least {
		return fmt.Errorf("%s: must not be below %d", key, least)
	}
	return nil
}

func atMost(key string, got, most int64) error {
	if got > most {
		return fmt.Errorf("%s: must not be above %d", key, most)
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// check is of what goes together; names and paths are the store's to check.
func (c ClickHouseConfig) check() error {
	if c.Embedded && c.Cluster != "" {
		return errors.New("clickhouse.cluster: the embedded engine is a single node; use servers (clickhouse.embedded: false)")
	}
	if err := c.TLS.Validate(); err != nil {
		return fmt.Errorf("clickhouse.tls.%w", err)
	}
	named := map[string]bool{}
	for i, q := range c.Quotas {
		switch {
		case !store.Bounded(q.Table):
			return fmt.Errorf("clickhouse.quotas[%d].table: %q is not a table that can have a quota", i, q.Table)
		case named[q.Table]:
			return fmt.Errorf("clickhouse.quotas[%d].table: %s has a quota already", i, q.Table)
		case q.Bytes <= 0:
			return fmt.Errorf("clickhouse.quotas[%d].bytes: must be positive", i)
		}
		named[q.Table] = true
	}
	return nil
}
