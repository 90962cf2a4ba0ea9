package store_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/store"
	"github.com/tracegate/tracegate/edge/child"
)

// postgres is one server for all tests of the package; each test gets a database.
var postgres struct {
	once sync.Once
	url  func(database string) string
	stop func()
	skip string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if postgres.stop != nil {
		postgres.stop()
	}
	os.Exit(code)
}

// onEach runs a test against an empty database of each engine.
func onEach(t *testing.T, test func(t *testing.T, cfg store.Config)) {
	t.Run("sqlite", func(t *testing.T) { test(t, sqliteConfig(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, postgresConfig(t)) })
}

func sqliteConfig(tb testing.TB) store.Config {
	tb.Helper()
	cfg := store.DefaultConfig()
	cfg.URL = "sqlite:" + filepath.Join(tb.TempDir(), "a b?c#d%20.db") // a path is no URL
	return cfg
}

func postgresConfig(tb testing.TB) store.Config {
	tb.Helper()
	postgres.once.Do(startPostgres)
	if postgres.skip != "" {
		if os.Getenv("CI") == "true" {
			tb.Fatal(postgres.skip)
		}
		tb.Skip(postgres.skip)
	}
	name := fmt.Sprintf("t%d", time.Now().UnixNano())
	out, err := exec.Command("psql", postgres.url("postgres"), "-c", "CREATE DATABASE "+name).CombinedOutput()
	if err != nil {
		tb.Fatalf("create database: %v: %s", err, out)
	}
	cfg := store.DefaultConfig()
	cfg.URL = postgres.url(name)
	return cfg
}

// startPostgres runs a server that listens on a socket in a folder of its own. The
// server refuses to run as root, so root runs it as nobody.
func startPostgres() {
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(bins) == 0 {
		postgres.skip = "no PostgreSQL server (Debian package postgresql)"
		return
	}
	bin := bins[len(bins)-1]
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		postgres.skip = err.Error()
		return
	}
	cred := &syscall.Credential{Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())}
	if os.Getuid() == 0 {
		u, err := user.Lookup("nobody")
		if err != nil {
			postgres.skip = err.Error()
			return
		}
		cred.Uid, cred.Gid = id(u.Uid), id(u.Gid)
		if err := os.Chown(dir, int(cred.Uid), int(cred.Gid)); err != nil {
			postgres.skip = err.Error()
			return
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	data := filepath.Join(dir, "data")
	run := func(name string, arg ...string) *exec.Cmd {
		cmd := child.Command(ctx, filepath.Join(bin, name), arg...)
		cmd.Dir = dir
		if os.Getuid() == 0 {
			cmd.SysProcAttr.Credential = cred
		}
		return cmd
	}
	initdb := run("initdb", "-D", data, "-U", "tracegate", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		cancel()
		postgres.skip = fmt.Sprintf("initdb: %v: %s", err, out)
		return
	}
	server := run("postgres", "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err == nil {
		server.Stdout, server.Stderr = log, log
		err = server.Start()
	}
	postgres.stop = func() { cancel(); _ = server.Wait(); _ = os.RemoveAll(dir) }
	postgres.url = func(database string) string {
		return "postgres://tracegate@/" + database + "?host=" + url.QueryEscape(dir)
	}
	for deadline := time.Now().Add(20 * time.Second); err == nil; {
		if exec.Command("psql", postgres.url("postgres"), "-c", "SELECT 1").Run() == nil {
			return
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			err = fmt.Errorf("not ready: %s", text)
		}
		// psql itself takes some 20 ms: this does not spin
	}
	postgres.skip = fmt.Sprintf("start postgres: %v", err)
}

func id(s string) uint32 {
	n, _ := strconv.ParseUint(s, 10, 32)
	return uint32(n)
}
