package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tracegate/tracegate/core/fanout"
	"github.com/tracegate/tracegate/core/fanout/embedded"
	"github.com/tracegate/tracegate/edge/artifact/engine"
	"github.com/tracegate/tracegate/edge/child"
	"github.com/tracegate/tracegate/mesh/freeport"
)

const password = "secret of the tests"

// onEach runs a test against the embedded Redis, real ones of Redis and Valkey, and
// clusters of three of each.
func onEach(t *testing.T, test func(t *testing.T, cfg fanout.Config)) {
	t.Run("embedded", func(t *testing.T) {
		addr, _ := startEmbedded(t, freeport.ForTest(t))
		test(t, config(addr))
	})
	t.Run("redis", func(t *testing.T) {
		_, addr := startRedis(t, 0)
		test(t, config(addr))
	})
	t.Run("cluster", func(t *testing.T) { test(t, config(startCluster(t, redisBinary)...)) })
	t.Run("valkey", func(t *testing.T) {
		_, addr := startServer(t, valkeyBinary, 0)
		test(t, config(addr))
	})
	t.Run("valkey cluster", func(t *testing.T) { test(t, config(startCluster(t, valkeyBinary)...)) })
}

func config(addrs ...string) fanout.Config {
	cfg := fanout.DefaultConfig()
	cfg.Addrs, cfg.Password = addrs, password
	cfg.PresenceTTL = 3 * time.Second
	return cfg
}

func startEmbedded(t testing.TB, listen string) (addr string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- embedded.Run(ctx, embedded.Config{Listen: listen, Password: password}, func(a string) { ready <- a })
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	select {
	case addr = <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return addr, stop
}

// redisBinary finds redis-server, or unpacks Debian's without installing it.
var redisBinary = sync.OnceValues(func() (cmd []string, err error) {
	if path, err := exec.LookPath("redis-server"); err == nil {
		return []string{path}, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "tracegate", "redis-debian")
	if _, err := os.Stat(dir); err != nil {
		if err := unpackRedis(dir); err != nil {
			return nil, fmt.Errorf("no redis-server on PATH, and not from apt: %w", err)
		}
	}
	libs, _ := filepath.Glob(filepath.Join(dir, "usr/lib/*-linux-gnu"))
	if len(libs) == 0 {
		return nil, errors.New("no libraries in " + dir)
	}
	// redis-server is a link to this program, which looks at its own name
	return []string{"/usr/bin/env", "LD_LIBRARY_PATH=" + libs[0], filepath.Join(dir, "usr/bin/redis-server")}, nil
})

var valkeyBinary = sync.OnceValues(func() (cmd []string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	e, err := engine.Valkey(ctx, slog.New(slog.DiscardHandler))
	return []string{filepath.Join(e.Bin, "valkey-server")}, err
})

func unpackRedis(dir string) error {
	work, err := os.MkdirTemp("", "redis")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work) // a temporary folder
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	get := child.Command(ctx, "apt-get", "download", "redis-server", "redis-tools", "libjemalloc2", "liblzf1", "liblua5.1-0", "lua-bitop", "lua-cjson", "libhiredis0.14")
	get.Dir = work
	if out, err := get.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get download: %w: %.300s", err, out)
	}
	debs, _ := filepath.Glob(filepath.Join(work, "*.deb"))
	tree := filepath.Join(work, "tree")
	for _, deb := range debs {
		if out, err := child.Command(ctx, "dpkg", "-x", deb, tree).CombinedOutput(); err != nil {
			return fmt.Errorf("dpkg -x: %w: %.300s", err, out)
		}
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	if out, err := child.Command(ctx, "cp", "-a", tree, dir+".new").CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	return os.Rename(dir+".new", dir)
}

func startRedis(t testing.TB, port int, args ...string) (stop func(), addr string) {
	t.Helper()
	return startServer(t, redisBinary, port, args...)
}

// startServer runs a server, on a free port for port 0, and returns what stops it.
func startServer(t testing.TB, binary func() ([]string, error), port int, args ...string) (stop func(), addr string) {
	t.Helper()
	if testing.Short() {
		t.Skip("a real Redis is for the long run")
	}
	argv, err := binary()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if port == 0 {
		var err error
		if port, err = freeport.Row("127.0.0.1", 2, 10_000); err != nil { // the cluster's bus listens 10000 above
			t.Fatal(err)
		}
	}
	addr = fmt.Sprintf("127.0.0.1:%d", port)
	argv = append(append([]string{}, argv...), "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir(),
		"--requirepass", password, "--masterauth", password)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := child.Command(ctx, argv[0], append(argv[1:], args...)...)
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); _ = cmd.Wait() }) }
	t.Cleanup(stop)
	client := redis.NewClient(&redis.Options{Addr: addr, Password: password})
	defer client.Close()
	eventually(t, "redis answers", func() bool { return client.Ping(t.Context()).Err() == nil })
	return stop, addr
}

// startCluster joins three masters.
func startCluster(t testing.TB, binary func() ([]string, error)) []string {
	t.Helper()
	var addrs []string
	for range 3 {
		_, addr := startServer(t, binary, 0, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
		addrs = append(addrs, addr)
	}
	first := redis.NewClient(&redis.Options{Addr: addrs[0], Password: password})
	defer first.Close()
	for i, addr := range addrs {
		c := redis.NewClient(&redis.Options{Addr: addr, Password: password})
		defer c.Close()
		from, to := i*16384/3, (i+1)*16384/3-1
		if err := c.ClusterAddSlotsRange(t.Context(), from, to).Err(); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			host, port, _ := net.SplitHostPort(addr)
			if err := first.ClusterMeet(t.Context(), host, port).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, addr := range addrs {
		c := redis.NewClient(&redis.Options{Addr: addr, Password: password})
		defer c.Close()
		eventually(t, "cluster is ok", func() bool {
			info := c.ClusterInfo(t.Context()).Val()
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	return addrs
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
