package queue_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tracegate/tracegate/edge/child"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/mesh/tlsdial/tlsdialtest"
)

// kafkaVersion is the Apache Kafka that the tests run against.
const kafkaVersion = "4.4.0"

// kafka is one real broker for all tests of the package.
var kafka struct {
	once   sync.Once
	addr   string
	secure string // the same broker, for who has a certificate and a password
	files  tlsdialtest.Files
	stop   func()
	skip   string
}

// kafkaUser is whom the secure listener lets in.
const kafkaUser, kafkaPassword = "tracegate", "secret of the tests"

func TestMain(m *testing.M) {
	code := m.Run()
	if kafka.stop != nil {
		kafka.stop()
	}
	os.Exit(code)
}

// kafkaAddr is the address of a real Kafka: TRACEGATE_TEST_KAFKA, or one that is
// started from Maven's jars.
func kafkaAddr(t *testing.T) string {
	t.Helper()
	if addr := os.Getenv("TRACEGATE_TEST_KAFKA"); addr != "" {
		return addr
	}
	if testing.Short() {
		t.Skip("a real Kafka takes seconds to start")
	}
	kafka.once.Do(startKafka)
	if kafka.skip != "" {
		if os.Getenv("CI") == "true" {
			t.Fatal(kafka.skip)
		}
		t.Skip(kafka.skip)
	}
	return kafka.addr
}

func startKafka() {
	jars, err := kafkaJars()
	if err != nil {
		kafka.skip = err.Error()
		return
	}
	dir, err := os.MkdirTemp("", "kafka")
	if err != nil {
		kafka.skip = err.Error()
		return
	}
	port, err := freeport.Row("127.0.0.1", 3, 1)
	if err != nil {
		kafka.skip = err.Error()
		return
	}
	if kafka.files, err = tlsdialtest.In(dir); err != nil {
		kafka.skip = err.Error()
		return
	}
	properties := fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:%[2]d
listeners=PLAINTEXT://127.0.0.1:%[1]d,CONTROLLER://127.0.0.1:%[2]d,SASL_SSL://127.0.0.1:%[4]d
advertised.listeners=PLAINTEXT://127.0.0.1:%[1]d,CONTROLLER://127.0.0.1:%[2]d,SASL_SSL://127.0.0.1:%[4]d
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL
inter.broker.listener.name=PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location=server.pem
ssl.truststore.type=PEM
ssl.truststore.location=ca.crt
listener.name.sasl_ssl.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_%[5]s="%[6]s";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
log.dirs=%[3]s
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
log.cleaner.dedupe.buffer.size=8388608
`, port, port+1, filepath.Join(dir, "data"), port+2, kafkaUser, kafkaPassword)
	ctx, cancel := context.WithCancel(context.Background())
	kafka.addr, kafka.secure = fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", port+2)
	kafka.stop = func() { cancel(); _ = os.RemoveAll(dir) }
	log, err := os.Create(filepath.Join(dir, "log"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "server.properties"), []byte(properties), 0o600)
	}
	if err == nil {
		err = joinFiles(filepath.Join(dir, "server.pem"), kafka.files.ServerKey, kafka.files.ServerCert)
	}
	if err != nil {
		kafka.skip = err.Error()
		return
	}
	java := func(args ...string) *exec.Cmd {
		cmd := child.Command(ctx, "java", append([]string{"-Xmx384m", "-XX:+UseSerialGC", "-Xshare:auto", "-XX:-UsePerfData", "-Djava.io.tmpdir=" + dir, "-cp", filepath.Join(jars, "*")}, args...)...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
		return cmd
	}
	user := "=[name=" + kafkaUser + ",password=" + kafkaPassword + "]"
	format := java("kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", "server.properties", "--standalone",
		"--add-scram", "SCRAM-SHA-256"+user, "--add-scram", "SCRAM-SHA-512"+user)
	if err := format.Run(); err != nil {
		kafka.skip = fmt.Sprintf("format kafka: %v, see %s", err, log.Name())
		return
	}
	server := java("kafka.Kafka", "server.properties")
	if err := server.Start(); err != nil {
		kafka.skip = err.Error()
		return
	}
	kafka.stop = func() { cancel(); _ = server.Wait(); _ = os.RemoveAll(dir) }
	client, err := kgo.NewClient(kgo.SeedBrokers(kafka.addr))
	if err != nil {
		kafka.skip = err.Error()
		return
	}
	defer client.Close()
	ready, done := context.WithTimeout(ctx, 60*time.Second)
	defer done()
	for client.Ping(ready) != nil { // each waits and retries by itself
		if ready.Err() != nil {
			kafka.skip = "kafka is not ready, see " + log.Name()
			return
		}
	}
}

// joinFiles writes one file of several, as Kafka wants a key and its certificate.
func joinFiles(to string, from ...string) error {
	var all []byte
	for _, name := range from {
		raw, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		all = append(all, raw...)
	}
	return os.WriteFile(to, all, 0o600)
}

// kafkaJars downloads Kafka through Maven once into the user's cache.
func kafkaJars() (string, error) {
	for _, tool := range []string{"java", "mvn"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("no real Kafka: %s is not installed", tool)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "tracegate", "kafka-"+kafkaVersion)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	work, err := os.MkdirTemp("", "mvn")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work) // a temporary folder
	pom := strings.ReplaceAll(`<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>test</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>VERSION</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.5</version></dependency>
</dependencies></project>`, "VERSION", kafkaVersion)
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), []byte(pom), 0o600); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := child.Command(ctx, "mvn", "-B", "-q", "dependency:copy-dependencies", "-DoutputDirectory=jars")
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("no real Kafka: mvn: %w: %.500s", err, out)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return "", err
	}
	if err := os.CopyFS(dir+".new", os.DirFS(filepath.Join(work, "jars"))); err != nil {
		return "", err
	}
	return dir, os.Rename(dir+".new", dir)
}
