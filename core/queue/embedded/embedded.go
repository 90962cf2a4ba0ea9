// Package embedded runs a Kafka in this process, for one machine: kfake with its data
// in a folder. `tracegate up` uses it; production uses brokers of its own, and nothing
// but their address changes.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Promise says what the embedded Kafka does not promise, for people who start it.
const Promise = "embedded Kafka (kfake): one broker, no replicas, meant by its authors for tests; " +
	"every record is synced to disk before it is acknowledged and outlives a kill -9, but there is no copy on another disk"

// Config says where it listens and keeps its data.
type Config struct {
	Listen string // host:port; the port may be 0
	Dir    string // data folder; empty keeps everything in memory
}

// DefaultConfig is Kafka's own port on loopback.
func DefaultConfig() Config { return Config{Listen: "127.0.0.1:9092", Dir: "kafka"} }

// Validate names the key that is wrong.
func (c Config) Validate() error {
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return errors.New("listen: port must be 0 to 65535")
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return errors.New("listen: must be a loopback address, it has no authentication")
	}
	return nil
}

// Run serves until ctx is done and calls ready with the address once it does. It then
// writes its state down; a process that is killed before replays its files.
func Run(ctx context.Context, cfg Config, ready func(addr string), log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("embedded kafka config: %w", err)
	}
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ClusterID("tracegate"),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) { return net.Listen(network, cfg.Listen) }),
		kfake.WithLogger(kfake.BasicLogger(logWriter{log}, kfake.LogLevelError)),
	}
	if cfg.Dir != "" {
		opts = append(opts, kfake.DataDir(cfg.Dir), kfake.SyncWrites())
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		return fmt.Errorf("start embedded kafka on %s: %w", cfg.Listen, err)
	}
	defer cluster.Close()
	ready(cluster.ListenAddrs()[0])
	<-ctx.Done()
	return nil
}

// logWriter makes lines of the broker's log into ours.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(line []byte) (int, error) {
	w.log.Warn("embedded kafka", "line", string(line))
	return len(line), nil
}
