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
	"github.com/tracegate/tracegate/core/fanout"
	"github.com/tracegate/tracegate/core/queue"
	"github.com/tracegate/tracegate/edge/bootstrap"
	"github.com/tracegate/tracegate/mesh/tlsdial"
	"github.com/tracegate/tracegate/observability/store"
)

// Config is tracegate.yaml. The `doc` tags are its documentation: `tracegate config`
// prints them.
type Config struct {
	Data         string             `mapstructure:"data" doc:"folder for everything that is kept: secrets, messages, traces, policy"`
	Identity     string             `mapstructure:"identity" doc:"folder by which parts prove to each other who they are (mutual TLS): ca.crt, and a folder for each part with tls.crt and tls.key; parts that run here and have none get one at the start of up. Empty: nothing between parts is encrypted, and all of it is on loopback"`
	Log          LogConfig          `mapstructure:"log"`
	Edge         EdgeConfig         `mapstructure:"edge"`
	ControlPlane ControlPlaneConfig `mapstructure:"controlplane"`
	Core         CoreConfig         `mapstructure:"core"`
	Observe      ObserveConfig      `mapstructure:"observe"`
	ClickHouse   ClickHouseConfig   `mapstructure:"clickhouse"`
	Kafka        KafkaConfig        `mapstructure:"kafka"`
	Redis        RedisConfig        `mapstructure:"redis"`
	Database     DatabaseConfig     `mapstructure:"database"`
	Discovery    DiscoveryConfig    `mapstructure:"discovery"`
	Files        FilesConfig        `mapstructure:"files"`
	Search       SearchConfig       `mapstructure:"search"`
	Probe        ProbeConfig        `mapstructure:"probe"`
	RateLimit    RateLimitConfig    `mapstructure:"ratelimit"`
	Kubernetes   KubernetesConfig   `mapstructure:"kubernetes"`
}

// LogConfig says how the parts log.
type LogConfig struct {
	Level  string `mapstructure:"level" doc:"debug, info, warn or error"`
	Format string `mapstructure:"format" doc:"text or json"`
}

// EdgeConfig is the Envoy in front.
type EdgeConfig struct {
	ID             string        `mapstructure:"id" doc:"name of this edge; two edges must not share one, and its certificate must have it"`
	Zone           string        `mapstructure:"zone" doc:"where this edge is, by the names of zones in endpoints.yaml; empty: nowhere"`
	Listen         string        `mapstructure:"listen" doc:"address clients come in by; loopback unless you open it"`
	Origins        []string      `mapstructure:"origins" doc:"browser origins allowed besides the page's own, e.g. https://chat.example.org"`
	TLS            EdgeTLSConfig `mapstructure:"tls"`
	Admin          string        `mapstructure:"admin" doc:"Envoy's admin interface; must be loopback"`
	Envoy          string        `mapstructure:"envoy" doc:"path of an Envoy binary; empty: the one on PATH if its version fits, else a pinned download"`
	TrustedHops    int           `mapstructure:"trusted_hops" doc:"proxies before the edge that add the client's address to x-forwarded-for; 0: the peer is the client"`
	Concurrency    int           `mapstructure:"concurrency" doc:"Envoy worker threads; 0: one a core"`
	MaxHeapBytes   int64         `mapstructure:"max_heap_bytes" doc:"Envoy's heap, in bytes, that counts as full: at 95% of it memory is given back, at 98% requests get 503"`
	MaxConnections int64         `mapstructure:"max_connections" doc:"client connections at one time over all listeners; more are closed on accept"`
	Drain          time.Duration `mapstructure:"drain" doc:"how long open requests and sockets may end when the edge stops"`
}

// EdgeTLSConfig is how clients come in encrypted. Certificates and their hosts are the
// policy's.
type EdgeTLSConfig struct {
	Listen   string `mapstructure:"listen" doc:"address for TLS (HTTP/1.1 and HTTP/2); empty: nothing is encrypted. \"tracegate up --tls\" takes 127.0.0.1:8443"`
	Redirect bool   `mapstructure:"redirect" doc:"answer everything that comes to edge.listen with a redirect to TLS"`
	HTTP3    bool   `mapstructure:"http3" doc:"listen for HTTP/3 (QUIC) as well, on the same port of UDP"`
}

// ControlPlaneConfig is the part that decides and programs.
type ControlPlaneConfig struct {
	XDS    string `mapstructure:"xds" doc:"address Envoy takes its configuration from (delta ADS, gRPC); must be loopback, but with an identity"`
	API    string `mapstructure:"api" doc:"control API for people and parts; must be loopback, but with an identity (HTTPS then)"`
	Policy string `mapstructure:"policy" doc:"policy file; empty: policy.yaml in the data folder, written at first start"`

	Certificates string     `mapstructure:"certificates" doc:"folder with a folder for each certificate (tls.crt, tls.key), read again when they change; empty: certificates in the data folder"`
	Etcd         EtcdConfig `mapstructure:"etcd"`

	Trial TrialConfig `mapstructure:"trial"`

	Webhooks []notify.Hook `mapstructure:"webhooks" doc:"who is told of isolations and releases, as {url: https://..., format: json or slack}; signed with secrets/webhook.key"`
}

// TrialConfig is how a policy is tried on one edge before the others get it.
type TrialConfig struct {
	Watch time.Duration `mapstructure:"watch" doc:"a policy that is new goes to one edge first, and to the others after this time, or to nobody where that edge refuses it or fares worse by it; 0: to all at once"`
	Edges []string      `mapstructure:"edges" doc:"ids of edges that get it first, the first of them that is connected; none of them: the edge whose id comes first"`
}

// EtcdConfig is where the policy comes from, for many control planes.
type EtcdConfig struct {
	Endpoints []string `mapstructure:"endpoints" doc:"host:port of etcd, which then has the policy instead of the file; empty: none"`
	Username  string   `mapstructure:"username" doc:"user name; empty: none"`
	Password  string   `mapstructure:"password" doc:"password"`
	Prefix    string   `mapstructure:"prefix" doc:"key of everything: PREFIX/app.yaml for everyone, PREFIX/app/gray/KEY=VALUE by label, PREFIX/app/version/VERSION"`
	Labels    []string `mapstructure:"labels" doc:"labels of this control plane, such as env=staging, the most important first"`
	Version   string   `mapstructure:"version" doc:"version that this control plane runs; empty: none"`
}

// DiscoveryConfig is where core processes register, and the control plane finds them.
type DiscoveryConfig struct {
	Etcd     []string      `mapstructure:"etcd" doc:"host:port of etcd, in which core processes register under leases and from which the control plane takes endpoints instead of endpoints.yaml; empty: none"`
	Username string        `mapstructure:"username" doc:"user name; empty: none"`
	Password string        `mapstructure:"password" doc:"password"`
	Prefix   string        `mapstructure:"prefix" doc:"key of everything: PREFIX/SERVICE/POOL/ADDRESS"`
	TTL      time.Duration `mapstructure:"ttl" doc:"how long a process that was killed stays registered, whole seconds; etcd grants no less than 2s as it comes"`
}

// CoreConfig is the messaging service, one process a pool.
type CoreConfig struct {
	Pools []PoolConfig  `mapstructure:"pools" doc:"core processes to run here, one a pool"`
	Drain time.Duration `mapstructure:"drain" doc:"how long sockets may move away when a process stops"`

	ScaleIn time.Duration `mapstructure:"scale_in" doc:"how long fewer processes of a pool must have been enough before one stops"`

	Version string   `mapstructure:"version" doc:"version that the processes run, for settings of that version; empty: none"`
	Labels  []string `mapstructure:"labels" doc:"labels of the processes, such as env=staging, for settings of those that have one, the most important first; pool=NAME comes last by itself"`

	EditWithin time.Duration `mapstructure:"edit_within" doc:"how long after it was sent a message may be edited; 0: for ever"`

	PushURL string `mapstructure:"push_url" doc:"who is told to notify devices of messages while their user is away, https://...; signed with secrets/push.key; empty: nobody"`
}

// PoolConfig is one core process.
type PoolConfig struct {
	Name   string `mapstructure:"name" doc:"pool the process serves"`
	Listen string `mapstructure:"listen" doc:"address the edge reaches it by"`
	Admin  string `mapstructure:"admin" doc:"health, metrics, faults; must be loopback"`

	Max int     `mapstructure:"max" doc:"processes that up runs at most, on addresses it finds; more than 1 makes their number follow the pool's rate"`
	QPS float64 `mapstructure:"qps" doc:"requests a second that one process serves well; needed with max"`
}

// ObserveConfig is the part that measures and shows.
type ObserveConfig struct {
	OTLP    string `mapstructure:"otlp" doc:"OTLP/gRPC receiver for traces, metrics, logs and Envoy's access log; must be loopback, but with an identity"`
	HTTP    string `mapstructure:"otlp_http" doc:"the same over HTTP; must be loopback, but with an identity (HTTPS then, and senders show a certificate); empty: none"`
	Console string `mapstructure:"console" doc:"web console; plain HTTP, passwords included, so beyond loopback only behind a proxy that has TLS"`
	Write   string `mapstructure:"remote_write" doc:"Prometheus remote-write address for requests, errors and durations by group, e.g. http://127.0.0.1:9090/api/v1/write; empty: none; secrets/remote-write.token, where there is one, is sent along"`
	Admin   string `mapstructure:"admin" doc:"health and metrics; must be loopback"`
	Writers int    `mapstructure:"writers" doc:"batches of spans that are stored at once, and as many of metrics and of logs; 1 to 16; 0: 1 with the embedded engine, 4 with a server"`
}

// ClickHouseConfig is where traces live.
type ClickHouseConfig struct {
	Embedded bool   `mapstructure:"embedded" doc:"run the ClickHouse engine here (chDB), else use the server at addr"`
	Addr     string `mapstructure:"addr" doc:"HTTP interface, host:port; HTTPS with tls"`
	Database string `mapstructure:"database" doc:"database the tables are made in"`
	User     string `mapstructure:"user" doc:"user name"`
	Password string `mapstructure:"password" doc:"password; empty: secrets/clickhouse.password in the data folder"`
	Library  string `mapstructure:"library" doc:"path of libchdb.so; empty: a pinned download"`
	Cluster  string `mapstructure:"cluster" doc:"cluster of the server's configuration, on all of whose nodes the tables are made, replicated and distributed; empty: tables are the server's own"`
	Path     string `mapstructure:"replica_path" doc:"where the replicas of a table meet in Keeper, with ClickHouse's macros"`
	Replica  string `mapstructure:"replica" doc:"name of a replica, with ClickHouse's macros"`

	Quotas []QuotaConfig `mapstructure:"quotas" doc:"bytes that tables may take on disk, as {table: otel_traces, bytes: 50000000000}; beyond that their oldest days go, never today. Tables that are not named are bounded by their days alone"`

	SystemLogDays int `mapstructure:"system_log_days" doc:"days that a server keeps what it writes about itself (query_log, trace_log and their like in the database system), of those tables that have no end; takes the right to alter them; 0: they are left alone, and one line in the log says which they are"`

	TLS tlsdial.Config `mapstructure:"tls"`
}

// QuotaConfig is what a table may take on disk.
type QuotaConfig struct {
	Table string `mapstructure:"table" doc:"otel_traces, otel_logs, otel_metrics_gauge and its like, traffic_group, traffic_call or traffic_decisions"`
	Bytes int64  `mapstructure:"bytes" doc:"bytes; of a cluster, of all shards together, one replica each"`
}

// KafkaConfig is the log that messages are accepted into.
type KafkaConfig struct {
	Embedded bool     `mapstructure:"embedded" doc:"run kfake here, else use the brokers"`
	Brokers  []string `mapstructure:"brokers" doc:"host:port; the first is where the embedded one listens"`

	Topic       string        `mapstructure:"topic" doc:"topic of messages, made where it is missing; records that cannot be stored are in the one with .dead at the end"`
	Partitions  int           `mapstructure:"partitions" doc:"partitions of a topic that is made; as many processes may store at once; one that is there keeps its own"`
	Replication int           `mapstructure:"replication" doc:"copies of a topic that is made; from 3 on min.insync.replicas is 2: no message is accepted that only one broker has; -1: the broker's default; one that is there keeps its own"`
	Retention   time.Duration `mapstructure:"retention" doc:"how long a topic that is made keeps records; must outlast any outage of the database; one that is there keeps its own"`

	Group   string        `mapstructure:"group" doc:"consumer group that stores; those that search and notify begin with its name"`
	Session time.Duration `mapstructure:"session" doc:"a process that is silent for so long leaves storing to others; brokers take 6s to 30m as they come"`
	Batch   int           `mapstructure:"batch" doc:"records that are stored at a time, at most"`
	Linger  time.Duration `mapstructure:"linger" doc:"how long a message waits for others, to be sent to the broker with them"`

	MaxUnstored int64 `mapstructure:"max_unstored" doc:"messages that may be accepted and not stored yet, of all processes together; beyond it senders are refused (rate_limited) until a tenth less is left; 0: no bound"`

	SASL queue.SASL     `mapstructure:"sasl"`
	TLS  tlsdial.Config `mapstructure:"tls"`
}

// RedisConfig is what joins the core processes.
type RedisConfig struct {
	Embedded bool     `mapstructure:"embedded" doc:"run miniredis here, else use the servers"`
	Addrs    []string `mapstructure:"addrs" doc:"host:port of one server, or of cluster nodes; the first is where the embedded one listens"`
	Cluster  bool     `mapstructure:"cluster" doc:"addrs are of a cluster; more than one are without it, one that leads to a cluster (a configuration endpoint) needs it"`
	Username string   `mapstructure:"username" doc:"user name (Redis ACL); empty: the user default"`
	Password string   `mapstructure:"password" doc:"password; empty: none, or with the embedded one secrets/redis.password in the data folder"`

	PresenceTTL time.Duration `mapstructure:"presence_ttl" doc:"how long the users of a process that was killed are seen as connected; each is said again after a third of it"`

	TLS tlsdial.Config `mapstructure:"tls"`
}

// DatabaseConfig is where accounts and messages are stored.
type DatabaseConfig struct {
	URL string `mapstructure:"url" doc:"postgres://... ; empty: SQLite in the data folder"`
}

// FilesConfig is where files that users send are kept.
type FilesConfig struct {
	S3        string `mapstructure:"s3" doc:"address of an S3 server, e.g. https://s3.eu-central-1.amazonaws.com; empty: a folder in the data folder"`
	Public    string `mapstructure:"public" doc:"the same as clients reach it, where that is another address"`
	Region    string `mapstructure:"region" doc:"region of the S3 server"`
	Bucket    string `mapstructure:"bucket" doc:"bucket, made where it is missing"`
	AccessKey string `mapstructure:"access_key" doc:"access key of the S3 server"`
	SecretKey string `mapstructure:"secret_key" doc:"secret key of the S3 server"`
	MaxSize   int64  `mapstructure:"max_size" doc:"bytes that a file may have"`
	Quota     int64  `mapstructure:"quota" doc:"bytes that the files of a user may have together"`
}

// SearchConfig is the part that finds messages by their words.
type SearchConfig struct {
	Enabled     bool     `mapstructure:"enabled" doc:"run a search process with up"`
	Listen      string   `mapstructure:"listen" doc:"searches of core, health, metrics; must be loopback, it is not encrypted yet"`
	Addrs       []string `mapstructure:"addrs" doc:"search processes that core asks, host:port; empty: the one at listen, where it is enabled"`
	MaxMessages uint64   `mapstructure:"max_messages" doc:"messages in the index; past it the oldest are not found any more"`
}

// ProbeConfig is the part that looks from the kernel (eBPF).
type ProbeConfig struct {
	Enabled   bool          `mapstructure:"enabled" doc:"run kernel probes with up; without CAP_BPF and CAP_PERFMON (root has them) each says that it is off"`
	Admin     string        `mapstructure:"admin" doc:"health, metrics, readings; must be loopback"`
	Connect   time.Duration `mapstructure:"connect" doc:"a TCP connect that takes longer is slow"`
	Scheduler time.Duration `mapstructure:"scheduler" doc:"a thread that waits longer for a CPU is slow"`
}

// RateLimitConfig is the part that counts for limits that edges share.
type RateLimitConfig struct {
	Listen string `mapstructure:"listen" doc:"address edges ask (Envoy's rate limit protocol, gRPC); counts are in redis; must be loopback"`
}

// KubernetesConfig is the cluster that `tracegate operator` looks after, and that the
// control plane may read from.
type KubernetesConfig struct {
	Kubeconfig string   `mapstructure:"kubeconfig" doc:"file that says where the cluster is; empty: the pod's own cluster, else KUBECONFIG or ~/.kube/config"`
	Namespaces []string `mapstructure:"namespaces" doc:"namespaces the operator looks after; empty: all"`
	Lease      string   `mapstructure:"lease" doc:"namespace of the lease by which one of several operators acts; empty: there is only one"`
	Metrics    string   `mapstructure:"metrics" doc:"the operator's metrics"`
	Health     string   `mapstructure:"health" doc:"the operator's /healthz and /readyz"`
	Statistics bool     `mapstructure:"statistics" doc:"the operator reads group statistics from ClickHouse, by which ScalingPolicies and autoscalers act"`
	Traces     bool     `mapstructure:"traces" doc:"the operator sends a span of each look at a resource to observe.otlp"`
	Autoscaler string   `mapstructure:"autoscaler" doc:"address at which the operator answers autoscalers (external.metrics.k8s.io), e.g. :9443; empty: it does not"`
	KEDA       string   `mapstructure:"keda" doc:"address at which the operator answers KEDA as an external scaler (gRPC), e.g. :9444; empty: it does not"`

	KEDAClients string `mapstructure:"keda_clients" doc:"file of the authorities, PEM, by which KEDA's certificate must be signed"`

	Cert    string   `mapstructure:"certificate" doc:"certificate file for autoscaler and keda, PEM"`
	Key     string   `mapstructure:"key" doc:"its key file, PEM"`
	Source  string   `mapstructure:"source" doc:"namespace whose EndpointSlices are the control plane's endpoints, and whose Routes, Cohorts and TrafficGroups join its policy; empty: files only"`
	Backups []string `mapstructure:"backups" doc:"kubeconfig files of other clusters, whose pods of the same namespace serve where a pool has none here that does"`
	Port    string   `mapstructure:"port" doc:"name of the pods' port that the edge sends requests to; empty: the first"`
}

func defaultConfig() Config {
	log, envoy := queue.DefaultConfig(), bootstrap.DefaultConfig()
	return Config{
		Data: ".tracegate",
		Log:  LogConfig{Level: "info", Format: "text"},
		Edge: EdgeConfig{ID: "edge-1", Listen: "127.0.0.1:8080", Admin: "127.0.0.1:9901", MaxHeapBytes: int64(envoy.MaxHeapBytes), MaxConnections: envoy.MaxConnections, Drain: 10 * time.Second},
		ControlPlane: ControlPlaneConfig{
			XDS: "127.0.0.1:18000", API: "127.0.0.1:18001", Etcd: EtcdConfig{Prefix: "/config"},
		},
		Core: CoreConfig{
			Pools: []PoolConfig{
				{Name: "baseline", Listen: "127.0.0.1:9101", Admin: "127.0.0.1:9201"},
				{Name: "canary", Listen: "127.0.0.1:9102", Admin: "127.0.0.1:9202"},
				{Name: "isolated", Listen: "127.0.0.1:9103", Admin: "127.0.0.1:9203"},
			},
			Drain: 10 * time.Second, ScaleIn: time.Minute, EditWithin: 24 * time.Hour,
		},
		Observe: ObserveConfig{OTLP: "127.0.0.1:4317", HTTP: "127.0.0.1:4318", Console: "127.0.0.1:8090", Admin: "127.0.0.1:9211"},
		ClickHouse: ClickHouseConfig{
			Embedded: true, Addr: "127.0.0.1:8123", Database: "tracegate", User: "tracegate",
			Path: store.DefaultCluster().Path, Replica: store.DefaultCluster().Replica,
		},
		Kafka: KafkaConfig{
			Embedded: true, Brokers: log.Brokers,
			Topic: log.Topic, Partitions: log.Partitions, Replication: log.Replication, Retention: log.Retention,
			Group: log.Group, Session: log.Session, Batch: log.Batch, Linger: log.Linger, MaxUnstored: log.MaxUnstored,
		},
		Redis:      RedisConfig{Embedded: true, Addrs: []string{"127.0.0.1:6379"}, PresenceTTL: fanout.DefaultConfig().PresenceTTL},
		Discovery:  DiscoveryConfig{Prefix: "/discovery", TTL: 2 * time.Second},
		Files:      FilesConfig{Region: "us-east-1", Bucket: "tracegate", MaxSize: 100 << 20, Quota: 5 << 30},
		Search:     SearchConfig{Enabled: true, Listen: "127.0.0.1:9301", MaxMessages: 100_000_000},
		RateLimit:  RateLimitConfig{Listen: "127.0.0.1:18002"},
		Probe:      ProbeConfig{Enabled: true, Admin: "127.0.0.1:9221", Connect: 200 * time.Millisecond, Scheduler: 10 * time.Millisecond},
		Kubernetes: KubernetesConfig{Lease: "tracegate", Metrics: "127.0.0.1:9231", Health: "127.0.0.1:9232"},
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
	if cfg.Identity != "" {
		if cfg.Identity, err = filepath.Abs(cfg.Identity); err != nil {
			return Config{}, fmt.Errorf("identity: %w", err)
		}
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
