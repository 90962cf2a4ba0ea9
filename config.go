package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"
	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
)

// Config is tracegate.yaml. The `doc` tags are its documentation: `tracegate config`
// prints them and docs/configuration.md is generated from them.
type Config struct {
	Data         string             `mapstructure:"data" doc:"folder for everything that is kept: secrets, messages, traces, policy"`
	Log          LogConfig          `mapstructure:"log"`
	Edge         EdgeConfig         `mapstructure:"edge"`
	ControlPlane ControlPlaneConfig `mapstructure:"controlplane"`
	Core         CoreConfig         `mapstructure:"core"`
	Observe      ObserveConfig      `mapstructure:"observe"`
	ClickHouse   ClickHouseConfig   `mapstructure:"clickhouse"`
	Kafka        KafkaConfig        `mapstructure:"kafka"`
	Redis        RedisConfig        `mapstructure:"redis"`
	Database     DatabaseConfig     `mapstructure:"database"`
}

// LogConfig says how the parts log.
type LogConfig struct {
	Level  string `mapstructure:"level" doc:"debug, info, warn or error"`
	Format string `mapstructure:"format" doc:"text or json"`
}

// EdgeConfig is the Envoy in front.
type EdgeConfig struct {
	Listen      string        `mapstructure:"listen" doc:"address clients come in by; loopback unless you open it"`
	Origins     []string      `mapstructure:"origins" doc:"browser origins allowed besides the page's own, e.g. https://chat.example.org"`
	Admin       string        `mapstructure:"admin" doc:"Envoy's admin interface; must be loopback"`
	Envoy       string        `mapstructure:"envoy" doc:"path of an Envoy binary; empty: the one on PATH if its version fits, else a pinned download"`
	Concurrency int           `mapstructure:"concurrency" doc:"Envoy worker threads; 0: one a core"`
	Drain       time.Duration `mapstructure:"drain" doc:"how long open requests and sockets may end when the edge stops"`
}

// ControlPlaneConfig is the part that decides and programs.
type ControlPlaneConfig struct {
	XDS    string `mapstructure:"xds" doc:"address Envoy takes its configuration from (delta ADS, gRPC); must be loopback, it is not encrypted yet"`
	API    string `mapstructure:"api" doc:"control API for people and parts; must be loopback"`
	Policy string `mapstructure:"policy" doc:"policy file; empty: policy.yaml in the data folder, written at first start"`
}

// CoreConfig is the messaging service, one process a pool.
type CoreConfig struct {
	Pools []PoolConfig  `mapstructure:"pools" doc:"core processes to run here, one a pool"`
	Drain time.Duration `mapstructure:"drain" doc:"how long sockets may move away when a process stops"`
}

// PoolConfig is one core process.
type PoolConfig struct {
	Name   string `mapstructure:"name" doc:"pool the process serves"`
	Listen string `mapstructure:"listen" doc:"address the edge reaches it by"`
	Admin  string `mapstructure:"admin" doc:"health, metrics, faults; must be loopback"`
}

// ObserveConfig is the part that measures and shows.
type ObserveConfig struct {
	OTLP    string `mapstructure:"otlp" doc:"OTLP/gRPC receiver for traces and Envoy's access log; must be loopback"`
	Console string `mapstructure:"console" doc:"web console"`
	Admin   string `mapstructure:"admin" doc:"health and metrics; must be loopback"`
}

// ClickHouseConfig is where traces live.
type ClickHouseConfig struct {
	Embedded bool   `mapstructure:"embedded" doc:"run the ClickHouse engine here (chDB), else use the server at addr"`
	Addr     string `mapstructure:"addr" doc:"HTTP interface, host:port"`
	Database string `mapstructure:"database" doc:"database the tables are made in"`
	User     string `mapstructure:"user" doc:"user name"`
	Password string `mapstructure:"password" doc:"password; empty: secrets/clickhouse.password in the data folder"`
	Library  string `mapstructure:"library" doc:"path of libchdb.so; empty: a pinned download"`
}

// KafkaConfig is the log that messages are accepted into.
type KafkaConfig struct {
	Embedded bool     `mapstructure:"embedded" doc:"run kfake here, else use the brokers"`
	Brokers  []string `mapstructure:"brokers" doc:"host:port; the first is where the embedded one listens"`
}

// RedisConfig is what joins the core processes.
type RedisConfig struct {
	Embedded bool     `mapstructure:"embedded" doc:"run miniredis here, else use the servers"`
	Addrs    []string `mapstructure:"addrs" doc:"host:port of one server, or of cluster nodes; the first is where the embedded one listens"`
	Password string   `mapstructure:"password" doc:"password; empty: secrets/redis.password in the data folder"`
}

// DatabaseConfig is where accounts and messages are stored.
type DatabaseConfig struct {
	URL string `mapstructure:"url" doc:"postgres://... ; empty: SQLite in the data folder"`
}

func defaultConfig() Config {
	return Config{
		Data: ".tracegate",
		Log:  LogConfig{Level: "info", Format: "text"},
		Edge: EdgeConfig{Listen: "127.0.0.1:8080", Admin: "127.0.0.1:9901", Drain: 10 * time.Second},
		ControlPlane: ControlPlaneConfig{
			XDS: "127.0.0.1:18000", API: "127.0.0.1:18001",
		},
		Core: CoreConfig{
			Pools: []PoolConfig{
				{Name: "baseline", Listen: "127.0.0.1:9101", Admin: "127.0.0.1:9201"},
				{Name: "canary", Listen: "127.0.0.1:9102", Admin: "127.0.0.1:9202"},
				{Name: "isolated", Listen: "127.0.0.1:9103", Admin: "127.0.0.1:9203"},
			},
			Drain: 10 * time.Second,
		},
		Observe:    ObserveConfig{OTLP: "127.0.0.1:4317", Console: "127.0.0.1:8090", Admin: "127.0.0.1:9211"},
		ClickHouse: ClickHouseConfig{Embedded: true, Addr: "127.0.0.1:8123", Database: "tracegate", User: "tracegate"},
		Kafka:      KafkaConfig{Embedded: true, Brokers: []string{"127.0.0.1:9092"}},
		Redis:      RedisConfig{Embedded: true, Addrs: []string{"127.0.0.1:6379"}},
	}
}

// loadConfig reads file over the defaults (file may be empty), then the flags that
// were set, and checks the whole. Environment variables TRACEGATE_<KEY> win over
// the file: TRACEGATE_EDGE_LISTEN is edge.listen.
func loadConfig(file string, flags map[string]string) (Config, error) {
	cfg := defaultConfig()
	v := viper.New()
	if file != "" {
		v.SetConfigFile(file)
		if err := v.ReadInConfig(); err != nil {
			return Config{}, fmt.Errorf("read configuration: %w", err)
		}
	}
	if err := refuseUnknown(v.AllKeys()); err != nil {
		return Config{}, fmt.Errorf("%s: %w", file, err)
	}
	for _, k := range configKeys(reflect.TypeFor[Config](), "") {
		if env, ok := os.LookupEnv("TRACEGATE_" + strings.ToUpper(strings.ReplaceAll(k.name, ".", "_"))); ok {
			v.Set(k.name, env)
		}
	}
	for key, value := range flags {
		v.Set(key, value)
	}
	err := v.Unmarshal(&cfg, func(d *mapstructure.DecoderConfig) {
		d.ErrorUnused = true
		d.ZeroFields = true // a list in the file replaces the default list
	})
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	if cfg.Data, err = filepath.Abs(cfg.Data); err != nil {
		return Config{}, fmt.Errorf("data: %w", err)
	}
	return cfg, cfg.validate()
}

// configKey is one documented key.
type configKey struct {
	name, doc string
	field     reflect.StructField
}

// configKeys lists the leaves of a configuration struct; a list of structs is one leaf.
func configKeys(t reflect.Type, prefix string) []configKey {
	var keys []configKey
	for f := range structFields(t) {
		name := prefix + f.Tag.Get("mapstructure")
		if f.Type.Kind() == reflect.Struct {
			keys = append(keys, configKeys(f.Type, name+".")...)
			continue
		}
		keys = append(keys, configKey{name: name, doc: f.Tag.Get("doc"), field: f})
	}
	return keys
}

func structFields(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}

// refuseUnknown returns an error that names the first unknown key and the known key
// nearest to it.
func refuseUnknown(got []string) error {
	known := map[string]bool{}
	var names []string
	for _, k := range configKeys(reflect.TypeFor[Config](), "") {
		known[k.name] = true
		names = append(names, k.name)
	}
	slices.Sort(got)
	for _, key := range got {
		if known[key] {
			continue
		}
		sort.Slice(names, func(i, j int) bool {
			return levenshtein.ComputeDistance(key, names[i]) < levenshtein.ComputeDistance(key, names[j])
		})
		return fmt.Errorf("unknown key %q; did you mean %q?", key, names[0])
	}
	return nil
}

// validate checks every key; the error starts with the key's name.
func (c Config) validate() error {
	for key, addr := range map[string]string{
		"edge.admin": c.Edge.Admin, "controlplane.xds": c.ControlPlane.XDS, "controlplane.api": c.ControlPlane.API,
		"observe.otlp": c.Observe.OTLP, "observe.admin": c.Observe.Admin,
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
		checkList("kafka.brokers", c.Kafka.Brokers, c.Kafka.Embedded),
		checkList("redis.addrs", c.Redis.Addrs, c.Redis.Embedded),
		checkEmbedded("clickhouse.addr", c.ClickHouse.Addr, c.ClickHouse.Embedded),
		oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error"),
		oneOf("log.format", c.Log.Format, "text", "json"),
		atLeast("edge.concurrency", int64(c.Edge.Concurrency), 0),
		atLeast("edge.drain", int64(c.Edge.Drain), 0),
		atLeast("core.drain", int64(c.Core.Drain), 0),
		checkDatabase(c.Database.URL),
		c.checkPorts(),
	)
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
