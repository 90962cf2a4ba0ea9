package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"
	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"

	"github.com/tracegate/tracegate/controlplane/notify"
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
	Probe        ProbeConfig        `mapstructure:"probe"`
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

	Webhooks []notify.Hook `mapstructure:"webhooks" doc:"who is told of isolations and releases, as {url: https://..., format: json or slack}; signed with secrets/webhook.key"`
}

// CoreConfig is the messaging service, one process a pool.
type CoreConfig struct {
	Pools []PoolConfig  `mapstructure:"pools" doc:"core processes to run here, one a pool"`
	Drain time.Duration `mapstructure:"drain" doc:"how long sockets may move away when a process stops"`

	EditWithin time.Duration `mapstructure:"edit_within" doc:"how long after it was sent a message may be edited; 0: for ever"`
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

// ProbeConfig is the part that looks from the kernel (eBPF).
type ProbeConfig struct {
	Enabled   bool          `mapstructure:"enabled" doc:"run kernel probes with up; without CAP_BPF and CAP_PERFMON (root has them) each says that it is off"`
	Admin     string        `mapstructure:"admin" doc:"health, metrics, readings; must be loopback"`
	Connect   time.Duration `mapstructure:"connect" doc:"a TCP connect that takes longer is slow"`
	Scheduler time.Duration `mapstructure:"scheduler" doc:"a thread that waits longer for a CPU is slow"`
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
			Drain: 10 * time.Second, EditWithin: 24 * time.Hour,
		},
		Observe:    ObserveConfig{OTLP: "127.0.0.1:4317", Console: "127.0.0.1:8090", Admin: "127.0.0.1:9211"},
		ClickHouse: ClickHouseConfig{Embedded: true, Addr: "127.0.0.1:8123", Database: "tracegate", User: "tracegate"},
		Kafka:      KafkaConfig{Embedded: true, Brokers: []string{"127.0.0.1:9092"}},
		Redis:      RedisConfig{Embedded: true, Addrs: []string{"127.0.0.1:6379"}},
		Probe:      ProbeConfig{Enabled: true, Admin: "127.0.0.1:9221", Connect: 200 * time.Millisecond, Scheduler: 10 * time.Millisecond},
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
	if err := refuseUnknown(sortedKeys(flags)); err != nil {
		return Config{}, fmt.Errorf("--set: %w", err)
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
