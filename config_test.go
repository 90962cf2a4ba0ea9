package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.yaml.in/yaml/v3"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/core/fanout"
	"github.com/tracegate/tracegate/core/queue"
	"github.com/tracegate/tracegate/mesh/tlsdial"
)

var update = flag.Bool("update", false, "rewrite generated documentation")

func write(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tracegate.yaml")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestPrometheusScrapesTheDefaultAddresses is for who starts `up` and Prometheus beside it.
func TestPrometheusScrapesTheDefaultAddresses(t *testing.T) {
	raw, err := os.ReadFile("observability/dashboards/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	var scrape struct {
		Jobs []struct {
			Name    string `yaml:"job_name"`
			Targets []struct {
				Addrs []string `yaml:"targets"`
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal(raw, &scrape); err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, j := range scrape.Jobs {
		for _, target := range j.Targets {
			got[j.Name] = append(got[j.Name], target.Addrs...)
		}
	}
	cfg := defaultConfig()
	want := map[string][]string{
		"controlplane": {cfg.ControlPlane.API}, "observe": {cfg.Observe.Admin}, "search": {cfg.Search.Listen}, "probe": {cfg.Probe.Admin}, "envoy": {cfg.Edge.Admin},
	}
	for _, p := range cfg.Core.Pools {
		want["core"] = append(want["core"], p.Admin)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("jobs and their targets (-want +got):\n%s", diff)
	}
}

func TestExampleConfigurationIsCurrentAndLoadsAsTheDefaults(t *testing.T) {
	const file = "tracegate.example.yaml"
	var want bytes.Buffer
	printConfig(&want, defaultConfig())
	if *update {
		if err := os.WriteFile(file, want.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(got)); diff != "" {
		t.Errorf("%s is stale, run `go tool task generate` (-want +got):\n%s", file, diff)
	}
	cfg, err := loadConfig(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	def, err := loadConfig("", nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(def, cfg, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the example does not load as the defaults (-want +got):\n%s", diff)
	}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	for _, k := range append(configKeys(reflect.TypeFor[Config](), ""), configKeys(reflect.TypeFor[PoolConfig](), "core.pools[].")...) {
		if len(k.doc) < 4 {
			t.Errorf("%s has no doc tag", k.name)
		}
	}
}

func TestLoadConfigTakesFileEnvironmentAndFlags(t *testing.T) {
	file := write(t, "edge: {listen: '127.0.0.1:1000', drain: 3s}\ncore:\n  pools:\n  - {name: baseline, listen: '127.0.0.1:1', admin: '127.0.0.1:2'}\n")
	t.Setenv("TRACEGATE_EDGE_ADMIN", "127.0.0.1:1001")
	cfg, err := loadConfig(file, map[string]string{"data": "/somewhere", "observe.console": "127.0.0.1:1002"})
	if err != nil {
		t.Fatal(err)
	}
	want, _ := loadConfig("", nil)
	want.Data = "/somewhere"
	want.Edge.Listen, want.Edge.Drain, want.Edge.Admin = "127.0.0.1:1000", 3e9, "127.0.0.1:1001"
	want.Observe.Console = "127.0.0.1:1002"
	want.Core.Pools = []PoolConfig{{Name: "baseline", Listen: "127.0.0.1:1", Admin: "127.0.0.1:2"}}
	// The environment is still set for want's load.
	if diff := cmp.Diff(want, cfg, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

func TestLoadConfigRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ yaml, want string }{
		"an unknown key with the nearest":   {"edge: {listn: '127.0.0.1:1'}", `unknown key "edge.listn"; did you mean "edge.listen"?`},
		"an unknown key in a list":          {"core: {pools: [{name: baseline, listen: '127.0.0.1:1', admn: x}]}", "admn"},
		"text where a number belongs":       {"edge: {concurrency: many}", "edge.concurrency"},
		"a number out of range":             {"edge: {concurrency: -1}", "edge.concurrency"},
		"an address without a port":         {"edge: {listen: localhost}", "edge.listen"},
		"an open admin interface":           {"edge: {admin: '0.0.0.0:9901'}", "edge.admin"},
		"an open control API":               {"controlplane: {api: ':18001'}", "controlplane.api"},
		"an embedded queue on all networks": {"kafka: {brokers: ['0.0.0.0:9092']}", "kafka.brokers"},
		"a cluster of the embedded engine":  {"clickhouse: {cluster: main}", "clickhouse.cluster"},
		"a quota of an unknown table":       {"clickhouse: {quotas: [{table: otel_trace, bytes: 1}]}", "clickhouse.quotas[0].table"},
		"two quotas of a table":             {"clickhouse: {quotas: [{table: otel_traces, bytes: 1}, {table: otel_traces, bytes: 2}]}", "clickhouse.quotas[1].table"},
		"a quota of nothing":                {"clickhouse: {quotas: [{table: otel_traces}]}", "clickhouse.quotas[0].bytes"},
		"days below nothing":                {"clickhouse: {system_log_days: -1}", "clickhouse.system_log_days"},
		"too many writers":                  {"observe: {writers: 17}", "observe.writers: must not be above 16"},
		"two parts on one address":          {"observe: {console: '127.0.0.1:8080'}", "is also the address of"},
		"no baseline pool":                  {"core: {pools: [{name: canary, listen: '127.0.0.1:1', admin: '127.0.0.1:2'}]}", "baseline"},
		"a pool twice":                      {"core: {pools: [{name: baseline, listen: '127.0.0.1:1', admin: '127.0.0.1:2'}, {name: baseline, listen: '127.0.0.1:3', admin: '127.0.0.1:4'}]}", "core.pools[1].name"},
		"an open search service":            {"identity: x\nsearch: {listen: '0.0.0.0:9301'}", "search.listen: \"0.0.0.0:9301\" is not a loopback address"},
		"an open rate limit service":        {"identity: x\nratelimit: {listen: '10.0.0.5:18002'}", "ratelimit.listen: \"10.0.0.5:18002\" is not a loopback address"},
		"open xDS without an identity":      {"controlplane: {xds: '10.0.0.1:1'}", "unless parts prove who they are: identity"},
		"open OTLP by name":                 {"identity: x\nobserve: {otlp: 'observe:1'}", "observe.otlp: \"observe:1\" is not an IP address and port"},
		"open OTLP over HTTP":               {"observe: {otlp_http: ':4318'}", "observe.otlp_http: \":4318\" is not a loopback address, and this interface must not be open, unless parts prove who they are: identity"},
		"an edge without a name":            {"edge: {id: 'a b'}", "edge.id"},
		"TLS on no address":                 {"edge: {tls: {listen: '8443'}}", "edge.tls.listen"},
		"a redirect to nowhere":             {"edge: {tls: {redirect: true}}", "edge.tls.listen: missing"},
		"TLS where there is none":           {"edge: {tls: {listen: '127.0.0.1:8080'}}", "is also the address of"},
		"a level there is not":              {"log: {level: loud}", "log.level"},
		"a database of another kind":        {"database: {url: 'mysql://x'}", "database.url"},
		"no topic":                          {"kafka: {topic: ''}", "kafka.topic: "},
		"a topic that Kafka refuses":        {"kafka: {topic: 'of messages'}", "kafka.topic: "},
		"no partitions":                     {"kafka: {partitions: 0}", "kafka.partitions: "},
		"no copies":                         {"kafka: {embedded: false, replication: 0}", "kafka.replication: must be -1 or 1 to"},
		"copies on one broker":              {"kafka: {replication: 3}", "kafka.replication: the embedded one is a single broker"},
		"a log of a minute":                 {"kafka: {retention: 1m}", "kafka.retention: "},
		"no group":                          {"kafka: {group: ''}", "kafka.group: "},
		"a session of an hour":              {"kafka: {session: 1h}", "kafka.session: "},
		"a batch of nothing":                {"kafka: {batch: 0}", "kafka.batch: "},
		"a linger of a minute":              {"kafka: {linger: 1m}", "kafka.linger: "},
		"a bound below none":                {"kafka: {max_unstored: -1}", "kafka.max_unstored: "},
		"presence of a second":              {"redis: {presence_ttl: 1s}", "redis.presence_ttl: "},
		"TLS that is not enabled":           {"kafka: {embedded: false, tls: {ca_file: ca.crt}}", "kafka.tls.enabled: false"},
		"a certificate without a key":       {"redis: {embedded: false, tls: {enabled: true, cert_file: tls.crt}}", "redis.tls.key_file: missing"},
		"a key without a certificate":       {"clickhouse: {embedded: false, tls: {enabled: true, key_file: tls.key}}", "clickhouse.tls.cert_file: missing"},
		"TLS of the embedded queue":         {"kafka: {tls: {enabled: true}}", "kafka.tls.enabled: the embedded one has none of it; use servers (kafka.embedded: false)"},
		"TLS of the embedded Redis":         {"redis: {tls: {enabled: true}}", "redis.tls.enabled: the embedded one"},
		"TLS of the embedded engine":        {"clickhouse: {tls: {enabled: true}}", "clickhouse.tls.enabled: the embedded one"},
		"users of the embedded Redis":       {"redis: {username: ann, password: x}", "redis.username: the embedded one"},
		"a cluster of the embedded Redis":   {"redis: {cluster: true}", "redis.cluster: the embedded one"},
		"a user without a password":         {"redis: {embedded: false, username: ann}", "redis.password: empty, and redis.username needs one"},
		"SASL of the embedded queue":        {"kafka: {sasl: {mechanism: PLAIN, user: ann}}", "kafka.sasl.mechanism: the embedded one"},
		"a mechanism there is not":          {"kafka: {embedded: false, sasl: {mechanism: GSSAPI, user: ann}}", `kafka.sasl.mechanism: "GSSAPI" is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512`},
		"a user and no mechanism":           {"kafka: {embedded: false, sasl: {user: ann}}", "kafka.sasl.mechanism: "},
		"a mechanism and no user":           {"kafka: {embedded: false, sasl: {mechanism: SCRAM-SHA-512}}", "kafka.sasl.user: "},
		"a password for everybody to read":  {"kafka: {embedded: false, brokers: ['10.0.0.5:9092'], sasl: {mechanism: PLAIN, user: ann}}", "kafka.sasl.mechanism: PLAIN shows the password"},
		"a password in the file":            {"kafka: {embedded: false, sasl: {mechanism: PLAIN, user: ann, password: x}}", `unknown key "kafka.sasl.password"; did you mean "kafka.sasl.password_file"?`},
		"yaml that is none":                 {"edge: [", "read configuration"},
		"a heap that is too little":         {"edge: {max_heap_bytes: 1000}", "edge.max_heap_bytes: must not be below 67108864"},
		"an edge for nobody":                {"edge: {max_connections: 0}", "edge.max_connections"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadConfig(write(t, tc.yaml), nil)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error = %v, want one that contains %q", err, tc.want)
			}
		})
	}
}

// TestKafkaAndRedisKeysReachWhoeverUsesThem: core, search and `tracegate core dead`.
func TestKafkaAndRedisKeysReachWhoeverUsesThem(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	data := t.TempDir()
	file := write(t, "data: "+data+`
kafka:
  embedded: false
  brokers: [`+cluster.ListenAddrs()[0]+`]
  topic: other
  partitions: 24
  replication: 3
  retention: 48h
  group: others
  session: 9s
  batch: 100
  linger: 1ms
  max_unstored: 7000
redis: {addrs: ['127.0.0.1:7000'], presence_ttl: 2m}
`)
	wantQueue := queue.DefaultConfig()
	wantQueue.Brokers, wantQueue.Topic, wantQueue.DeadTopic = cluster.ListenAddrs()[:1], "other", "other.dead"
	wantQueue.Partitions, wantQueue.Replication, wantQueue.Retention = 24, 3, 48*time.Hour
	wantQueue.Group, wantQueue.Session, wantQueue.Batch, wantQueue.Linger = "others", 9*time.Second, 100, time.Millisecond
	wantQueue.MaxUnstored = 7000
	wantFanout := fanout.DefaultConfig()
	wantFanout.Addrs, wantFanout.PresenceTTL = []string{"127.0.0.1:7000"}, 2*time.Minute

	cfg, err := loadConfig(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := makeSecrets(cfg.secrets()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.policyFile(), policy.Default, 0o600); err != nil {
		t.Fatal(err)
	}
	if wantFanout.Password, err = cfg.redisPassword(); err != nil {
		t.Fatal(err)
	}
	ofCore, err := coreConfig(cfg, "baseline")
	if err != nil {
		t.Fatal(err)
	}
	ofSearch, err := searchConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := queue.EnsureTopics(t.Context(), wantQueue, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	var ofDead queue.Config
	err = withLetters(t.Context(), &options{config: file}, "", func(_ context.Context, c queue.Config, _ []queue.Letter) error {
		ofDead = c
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]queue.Config{"core": ofCore.Queue, "search": ofSearch.Queue, "core dead": ofDead} {
		if diff := cmp.Diff(wantQueue, got); diff != "" {
			t.Errorf("queue of %s (-want +got):\n%s", name, diff)
		}
	}
	if diff := cmp.Diff(wantFanout, ofCore.Fanout); diff != "" {
		t.Errorf("fanout of core (-want +got):\n%s", diff)
	}
}

// TestServersAreReachedTheSameWayByAll who reach them.
func TestServersAreReachedTheSameWayByAll(t *testing.T) {
	cfg, err := loadConfig(write(t, "data: "+t.TempDir()+`
kafka:
  embedded: false
  brokers: ['kafka.example:9094']
  sasl: {mechanism: PLAIN, user: ann}
  tls: {enabled: true, ca_file: kafka.crt}
redis:
  embedded: false
  addrs: ['redis.example:6379']
  cluster: true
  username: bob
  password: of bob
  tls: {enabled: true, cert_file: tls.crt, key_file: tls.key}
clickhouse:
  embedded: false
  addr: clickhouse.example:8443
  tls: {enabled: true, server_name: other.example}
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := makeSecrets(cfg.secrets()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.policyFile(), policy.Default, 0o600); err != nil {
		t.Fatal(err)
	}
	ofCore, err1 := coreConfig(cfg, "baseline")
	ofSearch, err2 := searchConfig(cfg)
	ofLimits, err3 := rateLimitConfig(cfg)
	ofTraces, err4 := storeConfig(cfg)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	for name, q := range map[string]queue.Config{"core": ofCore.Queue, "search": ofSearch.Queue} {
		want := queue.SASL{Mechanism: "PLAIN", User: "ann", PasswordFile: filepath.Join(cfg.secrets(), "kafka.password")}
		if q.SASL != want || q.TLS != (tlsdial.Config{Enabled: true, CAFile: "kafka.crt"}) {
			t.Errorf("kafka of %s: %+v %+v", name, q.SASL, q.TLS)
		}
	}
	redis := tlsdial.Config{Enabled: true, CertFile: "tls.crt", KeyFile: "tls.key"}
	if f := ofCore.Fanout; f.TLS != redis || !f.Cluster || f.Username != "bob" || f.Password != "of bob" {
		t.Errorf("redis of core: %+v", f)
	}
	if l := ofLimits; l.TLS != redis || !l.Cluster || l.Username != "bob" || l.Password != "of bob" {
		t.Errorf("redis of the rate limit service: %+v", l)
	}
	if ofTraces.TLS != (tlsdial.Config{Enabled: true, ServerName: "other.example"}) || cfg.ClickHouse.url() != "https://clickhouse.example:8443" {
		t.Errorf("clickhouse: %+v", ofTraces.TLS)
	}
}

func TestMakeSecretsOnceAndForTheOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	if err := makeSecrets(dir); err != nil {
		t.Fatal(err)
	}
	before := map[string]string{}
	for _, name := range []string{secretControl, secretViewer, secretWebhook, secretPush, secretConsole, secretLook, secretClickHouse, secretRedis, secretJWT} {
		s, err := readSecret(dir, name)
		if err != nil || len(s) < 16 {
			t.Errorf("%s = %q, %v", name, s, err)
		}
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
		before[name] = s
	}
	if err := makeSecrets(dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range before {
		if got, _ := readSecret(dir, name); got != want {
			t.Errorf("%s changed at the second start", name)
		}
	}
	other := filepath.Join(t.TempDir(), "secrets")
	if err := makeSecrets(other); err != nil {
		t.Fatal(err)
	}
	if got, _ := readSecret(other, secretControl); got == before[secretControl] {
		t.Error("two first starts made the same token")
	}
}

// TestWriters: as many as are set, else what was measured for where the rows go.
func TestWriters(t *testing.T) {
	cfg := defaultConfig()
	if n := writers(cfg); n != 1 {
		t.Errorf("with the embedded engine %d, want 1", n)
	}
	cfg.ClickHouse.Embedded = false
	if n := writers(cfg); n != 4 {
		t.Errorf("with a server %d, want 4", n)
	}
	cfg.Observe.Writers = 2
	if n := writers(cfg); n != 2 {
		t.Errorf("as set %d, want 2", n)
	}
}
