package engines

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/edge/load/netfault"
)

// Engine is the processes of one engine and the networks to it.
type Engine struct {
	Name      string
	Processes []*Process
	Networks  []*netfault.Proxy
}

// Set is what core processes need. Close it.
type Set struct {
	Kafka, Redis, Database Engine // Database has no process where it is a file
	Core                   Engine // only networks, from the edge; core's processes are others' to break

	// Kafka and the database are seen under an address for each core process.
	Brokers, DatabaseURLs []string
	// CoreAddrs are where the edge is to look for the processes of Config.Cores.
	CoreAddrs     []string
	RedisAddrs    []string
	RedisPassword string

	dir    string // its own, to remove
	cancel context.CancelFunc
	run    *errgroup.Group
}

// Config says where engines live.
type Config struct {
	Dir      string   // for data and logs; it must exist
	Cores    []string // where core's processes will listen
	Ports    *Ports
	Password string // of Redis and PostgreSQL
	Valkey   bool   // instead of Redis
}

// starter puts a set together.
type starter struct {
	Config
	set *Set
	log *slog.Logger
	ctx context.Context //nolint:containedctx // of one call of StartReal or StartEmbedded
}

func start(ctx context.Context, cfg Config, log *slog.Logger, add ...func(*starter) error) (*Set, error) {
	run, cancel := context.WithCancel(context.Background())
	g, _ := errgroup.WithContext(run)
	s := &starter{Config: cfg, set: &Set{cancel: cancel, run: g, RedisPassword: cfg.Password}, log: log, ctx: ctx}
	for _, f := range append(add, (*starter).core) {
		if err := f(s); err != nil {
			s.set.Close()
			return nil, err
		}
	}
	for _, e := range s.set.Engines() {
		for _, p := range e.Networks {
			g.Go(func() error { return p.Run(run) })
		}
	}
	return s.set, nil
}

// Engines are those of the set, in one order.
func (s *Set) Engines() []Engine { return []Engine{s.Kafka, s.Redis, s.Database, s.Core} }

// Close kills everything and removes the data of engines that cannot live in Config.Dir.
func (s *Set) Close() {
	for _, e := range s.Engines() {
		for _, p := range e.Processes {
			p.Kill()
		}
	}
	s.cancel()
	_ = s.run.Wait() // proxies fail only where their listener does
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// core has a network before each process.
func (s *starter) core() error {
	s.set.Core.Name = "core"
	for _, addr := range s.Cores {
		network, err := s.network(addr)
		if err != nil {
			return err
		}
		s.set.Core.Networks = append(s.set.Core.Networks, network)
		s.set.CoreAddrs = append(s.set.CoreAddrs, network.Addr())
	}
	return nil
}

// network puts a proxy before a target, on an address of its own.
func (s *starter) network(target string) (*netfault.Proxy, error) {
	return s.networkAt("127.0.0.1:0", target)
}

func (s *starter) networkAt(addr, target string) (*netfault.Proxy, error) {
	return netfault.Listen(s.ctx, addr, target)
}

func (s *starter) process(name string, ready func(context.Context) error, argv ...string) *Process {
	return &Process{Name: name, argv: argv, dir: s.Dir, ready: ready, log: s.log}
}

// StartEmbedded runs the embedded Kafka and Redis by a command line of this program,
// `self embedded kafka|redis ADDR DIR`, with Redis' password in TRACEGATE_REDIS_PASSWORD.
// The database is a file.
func StartEmbedded(ctx context.Context, cfg Config, self string, log *slog.Logger) (*Set, error) {
	return start(ctx, cfg, log, func(s *starter) error {
		addrs, err := s.Ports.take(2)
		if err != nil {
			return err
		}
		// kfake tells its clients where it listens, so they would go round a proxy.
		kafka := s.process("kafka", answers(addrs[0]), self, "embedded", "kafka", addrs[0], filepath.Join(s.Dir, "kafka"))
		redis := s.process("redis", pong(addrs[1], s.Password), self, "embedded", "redis", addrs[1], s.Dir)
		redis.env = []string{"TRACEGATE_REDIS_PASSWORD=" + s.Password}
		s.set.Kafka = Engine{Name: "kafka", Processes: []*Process{kafka}}
		s.set.Redis = Engine{Name: "redis", Processes: []*Process{redis}}
		for range s.Cores {
			s.set.Brokers = append(s.set.Brokers, addrs[0])
			s.set.DatabaseURLs = append(s.set.DatabaseURLs, "")
		}
		network, err := s.network(addrs[1])
		if err != nil {
			return err
		}
		s.set.Redis.Networks = []*netfault.Proxy{network}
		s.set.RedisAddrs = []string{network.Addr()}
		for _, p := range []*Process{kafka, redis} {
			if err := p.Start(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// StartReal runs Apache Kafka, a Redis (or Valkey) Cluster of three masters and PostgreSQL. They are
// fetched where they are missing (edge/artifact/engine).
func StartReal(ctx context.Context, cfg Config, log *slog.Logger) (*Set, error) {
	set, err := start(ctx, cfg, log, (*starter).kafka, (*starter).redis, (*starter).postgres)
	if err != nil {
		return nil, fmt.Errorf("start engines: %w", err)
	}
	return set, nil
}
