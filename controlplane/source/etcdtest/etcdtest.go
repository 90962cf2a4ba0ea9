// Package etcdtest runs a real etcd for tests, in a process of its own: the one that
// Kubernetes comes with, so that its server is no dependency of ours.
package etcdtest

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tracegate/tracegate/edge/artifact/engine"
	"github.com/tracegate/tracegate/edge/child"
)

// Server is one member on a folder of the test. It listens on a Unix socket in there, so
// its address stays when it is started again.
type Server struct {
	Endpoint string

	t    testing.TB
	bin  string
	dir  string
	cmd  *exec.Cmd
	stop context.CancelFunc
}

// Start runs a server until the test ends, and skips the test where there is no etcd.
func Start(t testing.TB) *Server {
	t.Helper()
	e, err := engine.FindKubernetes()
	if err != nil {
		t.Skipf("no etcd: %v", err)
	}
	dir := t.TempDir()
	s := &Server{t: t, bin: filepath.Join(e.Bin, "etcd"), dir: dir, Endpoint: "unix://" + filepath.Join(dir, "client")}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Start starts it again, with what it had.
func (s *Server) Start() {
	s.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.cmd = child.Command(ctx, s.bin, "--data-dir", "data", "--unsafe-no-fsync", "--log-level", "error",
		"--listen-client-urls", "unix://client", "--advertise-client-urls", "http://127.0.0.1:1",
		"--listen-peer-urls", "unix://peer", "--initial-advertise-peer-urls", "http://127.0.0.1:2", "--initial-cluster", "default=http://127.0.0.1:2")
	s.cmd.Dir, s.cmd.Stderr = s.dir, s.t.Output()
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	client := s.Client()
	deadline, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	for {
		_, err := client.Get(deadline, "ready")
		if err == nil {
			return
		}
		if deadline.Err() != nil {
			s.t.Fatalf("etcd is not ready within a minute: %v", err)
		}
	}
}

// Stop ends it; what it has stays.
func (s *Server) Stop() {
	s.stop()
	_ = s.cmd.Wait() // it was told to end
}

// Client is connected until the test ends.
func (s *Server) Client() *clientv3.Client {
	s.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint}, DialTimeout: 5 * time.Second})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}
