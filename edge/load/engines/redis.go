package engines

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tracegate/tracegate/edge/artifact/engine"
)

const (
	masters = 3
	slots   = 16384 // of a Redis Cluster, by its specification
)

// redis is a cluster of masters without replicas: nothing of what core keeps there may
// matter so much that it must survive.
func (s *starter) redis() error {
	find, program := engine.Redis, "redis-server"
	if s.Valkey {
		find, program = engine.Valkey, "valkey-server"
	}
	redis, err := find(s.ctx, s.log)
	if err != nil {
		return err
	}
	addrs, err := s.Ports.take(2 * masters)
	if err != nil {
		return err
	}
	buses, addrs := addrs[:masters], addrs[masters:]
	s.set.Redis.Name = "redis"
	for i, addr := range addrs {
		network, err := s.network(addr)
		if err != nil {
			return err
		}
		s.set.Redis.Networks = append(s.set.Redis.Networks, network)
		s.set.RedisAddrs = append(s.set.RedisAddrs, network.Addr())
		name := fmt.Sprintf("redis-%d", i+1)
		dir := filepath.Join(s.Dir, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		p := s.process(name, pong(addr, s.Password), filepath.Join(redis.Bin, program),
			"--port", port(addr), "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "no",
			"--requirepass", s.Password, "--masterauth", s.Password,
			"--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", port(buses[i]),
			"--cluster-announce-ip", "127.0.0.1", "--cluster-announce-port", port(network.Addr()), "--cluster-announce-bus-port", port(buses[i]))
		p.env = redis.Env
		s.set.Redis.Processes = append(s.set.Redis.Processes, p)
		if err := p.Start(s.ctx); err != nil {
			return err
		}
	}
	return s.join(addrs, buses)
}

// join gives each master its part of the slots and makes them one cluster.
func (s *starter) join(addrs, buses []string) error {
	for i, addr := range addrs {
		from, to := i*slots/masters, (i+1)*slots/masters-1
		if _, err := redisDo(s.ctx, addr, s.Password, fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", from, to)); err != nil {
			return err
		}
		if i == 0 {
			continue
		}
		if _, err := redisDo(s.ctx, addrs[0], s.Password, fmt.Sprintf("CLUSTER MEET 127.0.0.1 %s %s", port(addr), port(buses[i]))); err != nil {
			return err
		}
	}
	return s.clusterReady(addrs)
}

// clusterReady waits until each master knows the others and has all slots covered.
func (s *starter) clusterReady(addrs []string) error {
	ctx, cancel := context.WithTimeout(s.ctx, startTime)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for _, addr := range addrs {
		for {
			info, err := redisDo(ctx, addr, s.Password, "CLUSTER INFO")
			if err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:"+strconv.Itoa(masters)) {
				break
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("join redis cluster: %w: %s", ctx.Err(), info)
			}
		}
	}
	return nil
}

// pong is the readiness of a Redis: it answers commands.
func pong(addr, password string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := redisDo(ctx, addr, password, "PING")
		return err
	}
}

// redisDo sends one command of words without spaces (Redis' protocol, RESP2) and returns
// the answer where that is a line or a text.
func redisDo(ctx context.Context, addr, password, command string) (string, error) {
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, words("AUTH "+password)+words(command)); err != nil {
		return "", err
	}
	r := bufio.NewReader(c)
	if _, err := redisReply(r); err != nil {
		return "", fmt.Errorf("redis %s: auth: %w", addr, err)
	}
	answer, err := redisReply(r)
	if err != nil {
		return "", fmt.Errorf("redis %s: %s: %w", addr, command, err)
	}
	return answer, nil
}

// words is a command as Redis reads it: an array of strings with their lengths.
func words(command string) string {
	all := strings.Fields(command)
	out := fmt.Sprintf("*%d\r\n", len(all))
	for _, w := range all {
		out += fmt.Sprintf("$%d\r\n%s\r\n", len(w), w)
	}
	return out
}

// redisReply reads a simple string, an error, an integer or a bulk string.
func redisReply(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", errors.New("empty reply")
	}
	switch kind, rest := line[0], line[1:]; kind {
	case '+', ':':
		return rest, nil
	case '$':
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 || n > 1<<20 {
			return "", fmt.Errorf("unexpected reply %q", line)
		}
		b := make([]byte, n+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return "", err
		}
		return string(b[:n]), nil
	default:
		return "", errors.New(rest)
	}
}
