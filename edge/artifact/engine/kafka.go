package engine

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
)

// KafkaVersion is the release that tests run.
const KafkaVersion = "4.4.0"

//go:embed kafka.pom.xml
var kafkaPOM []byte

// Kafka returns the class path of Apache Kafka; `java -cp` it with kafka.Kafka and
// kafka.tools.StorageTool. It needs a Java and Maven on PATH.
func Kafka(ctx context.Context, log *slog.Logger) (string, error) {
	for _, name := range []string{"java", "mvn"} {
		if _, err := exec.LookPath(name); err != nil {
			return "", fmt.Errorf("no Kafka: install %s", name)
		}
	}
	home, err := cached(ctx, "kafka-"+KafkaVersion, "kafka_2.13-"+KafkaVersion+".jar", log, func(dir string) error {
		pom := filepath.Join(dir, "pom.xml")
		if err := os.WriteFile(pom, kafkaPOM, 0o600); err != nil {
			return err
		}
		_, err := run(ctx, dir, nil, "mvn", "-B", "-q", "-f", pom, "-Dkafka.version="+KafkaVersion, "dependency:copy-dependencies", "-DoutputDirectory="+dir)
		return err
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(home, "*"), nil
}
