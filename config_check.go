package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// validate checks every key; the error starts with the key's name.
func (c Config) validate() error {
	for key, addr := range map[string]string{
		"edge.admin": c.Edge.Admin, "controlplane.xds": c.ControlPlane.XDS, "controlplane.api": c.ControlPlane.API,
		"observe.otlp": c.Observe.OTLP, "observe.admin": c.Observe.Admin, "probe.admin": c.Probe.Admin,
	} {
		if err := checkLoopback(addr); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	for key, addr := range map[string]string{
		"edge.listen": c.Edge.Listen, "observe.console": c.Observe.Console, "clickhouse.addr": c.ClickHouse.Addr,
	} {
		if err := checkAddr(addr); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return firstError(
		c.checkPools(),
		c.checkWebhooks(),
		checkList("kafka.brokers", c.Kafka.Brokers, c.Kafka.Embedded),
		checkList("redis.addrs", c.Redis.Addrs, c.Redis.Embedded),
		checkEmbedded("clickhouse.addr", c.ClickHouse.Addr, c.ClickHouse.Embedded),
		oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error"),
		oneOf("log.format", c.Log.Format, "text", "json"),
		atLeast("edge.concurrency", int64(c.Edge.Concurrency), 0),
		atLeast("edge.drain", int64(c.Edge.Drain), 0),
		atLeast("core.drain", int64(c.Core.Drain), 0),
		atLeast("core.edit_within", int64(c.Core.EditWithin), 0),
		atLeast("probe.connect", int64(c.Probe.Connect), 1),
		atLeast("probe.scheduler", int64(c.Probe.Scheduler), 1),
		checkDatabase(c.Database.URL),
		c.checkPorts(),
	)
}

func (c Config) checkWebhooks() error {
	for i, h := range c.ControlPlane.Webhooks {
		if err := h.Validate(); err != nil {
			return fmt.Errorf("controlplane.webhooks[%d].%w", i, err)
		}
	}
	return nil
}

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
	}
	for i, p := range c.Core.Pools {
		l[fmt.Sprintf("core.pools[%d].listen", i)] = p.Listen
		l[fmt.Sprintf("core.pools[%d].admin", i)] = p.Admin
	}
	if c.Probe.Enabled {
		l["probe.admin"] = c.Probe.Admin
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

func checkDatabase(url string) error {
	if url == "" || strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://") {
		return nil
	}
	return fmt.Errorf("database.url: must start with postgres:// or be empty")
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
