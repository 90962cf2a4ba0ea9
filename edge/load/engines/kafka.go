package engines

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/tracegate/tracegate/edge/artifact/engine"
	"github.com/tracegate/tracegate/edge/child"
)

// kafka is one broker that is its own controller.
func (s *starter) kafka() error {
	jars, err := engine.Kafka(s.ctx, s.log)
	if err != nil {
		return err
	}
	controller, err := s.Ports.Take()
	if err != nil {
		return err
	}
	listeners, err := s.Ports.take(len(s.Cores))
	if err != nil {
		return err
	}
	s.set.Kafka.Name = "kafka"
	var listen, advertise, protocols []string
	for i, addr := range listeners {
		network, err := s.network(addr)
		if err != nil {
			return err
		}
		s.set.Kafka.Networks = append(s.set.Kafka.Networks, network)
		s.set.Brokers = append(s.set.Brokers, network.Addr())
		name := fmt.Sprintf("CORE%d", i)
		listen = append(listen, name+"://"+addr)
		advertise = append(advertise, name+"://"+network.Addr())
		protocols = append(protocols, name+":PLAINTEXT")
	}
	properties := strings.Join([]string{
		"process.roles=broker,controller",
		"node.id=1",
		"controller.quorum.bootstrap.servers=" + controller,
		"listeners=" + strings.Join(append(listen, "CONTROLLER://"+controller), ","),
		"advertised.listeners=" + strings.Join(append(advertise, "CONTROLLER://"+controller), ","),
		"controller.listener.names=CONTROLLER",
		"listener.security.protocol.map=" + strings.Join(append(protocols, "CONTROLLER:PLAINTEXT"), ","),
		"inter.broker.listener.name=CORE0",
		"log.dirs=" + filepath.Join(s.Dir, "kafka"),
		"offsets.topic.replication.factor=1",
		"offsets.topic.num.partitions=4",
		"group.initial.rebalance.delay.ms=0",
		"auto.create.topics.enable=false",
		"broker.session.timeout.ms=2000", "broker.heartbeat.interval.ms=500", // or a broker that was killed waits for its own ghost
		"log.cleaner.dedupe.buffer.size=8388608",
		"",
	}, "\n")
	file := filepath.Join(s.Dir, "kafka.properties")
	if err := os.WriteFile(file, []byte(properties), 0o600); err != nil {
		return err
	}
	java := []string{"java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:-UsePerfData", "-Djava.io.tmpdir=" + s.Dir, "-cp", jars}
	format := append(append([]string{}, java...), "kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", file, "--standalone")
	cmd := child.Command(s.ctx, format[0], format[1:]...)
	cmd.Dir = s.Dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("format kafka: %w: %.500s", err, out)
	}
	p := s.process("kafka", answers(listeners[0]), append(java, "kafka.Kafka", file)...)
	s.set.Kafka.Processes = []*Process{p}
	return p.Start(s.ctx)
}

// port is the port of an address that we have made.
func port(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}
