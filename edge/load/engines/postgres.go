package engines

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/tracegate/tracegate/edge/artifact/engine"
	"github.com/tracegate/tracegate/edge/child"
)

// postgres has its data in a folder of its own: it refuses to run as root, and whom root
// runs it as may not look into ours.
func (s *starter) postgres() error {
	pg, err := engine.PostgreSQL(s.ctx, s.log)
	if err != nil {
		return err
	}
	addr, err := s.Ports.Take()
	if err != nil {
		return err
	}
	cred, err := unprivileged()
	if err != nil {
		return err
	}
	if s.set.dir, err = os.MkdirTemp("", "tracegate-postgres-"); err != nil {
		return err
	}
	secret := filepath.Join(s.set.dir, "password")
	if err := os.WriteFile(secret, []byte(s.Password+"\n"), 0o600); err != nil {
		return err
	}
	if cred != nil {
		for _, path := range []string{s.set.dir, secret} {
			if err := os.Chown(path, int(cred.Uid), int(cred.Gid)); err != nil {
				return err
			}
		}
	}
	data := filepath.Join(s.set.dir, "data")
	init := child.Command(s.ctx, filepath.Join(pg.Bin, "initdb"), "-D", data, "-U", "tracegate", "-A", "scram-sha-256", "--pwfile", secret,
		"-E", "UTF8", "--no-locale", "--no-sync")
	init.Dir, init.Env = s.set.dir, append(os.Environ(), pg.Env...)
	if cred != nil {
		init.SysProcAttr.Credential = cred
	}
	if out, err := init.CombinedOutput(); err != nil {
		return fmt.Errorf("make a database: %w: %.500s", err, out)
	}
	p := s.process("postgres", s.selectOne(pg, addr), filepath.Join(pg.Bin, "postgres"), "-D", data, "-k", s.set.dir,
		"-c", "listen_addresses=127.0.0.1", "-p", port(addr), "-c", "max_connections=200")
	p.env, p.cred, p.dir = pg.Env, cred, s.set.dir
	s.set.Database = Engine{Name: "postgres", Processes: []*Process{p}}
	for range s.Cores {
		network, err := s.network(addr)
		if err != nil {
			return err
		}
		s.set.Database.Networks = append(s.set.Database.Networks, network)
		s.set.DatabaseURLs = append(s.set.DatabaseURLs, s.databaseURL(network.Addr()))
	}
	return p.Start(s.ctx)
}

func (s *starter) databaseURL(addr string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("tracegate", s.Password), Host: addr, Path: "postgres", RawQuery: "sslmode=disable"}
	return u.String()
}

// selectOne asks by psql: the server takes connections before it can answer.
func (s *starter) selectOne(pg engine.Engine, addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		cmd := child.Command(ctx, filepath.Join(pg.Bin, "psql"), s.databaseURL(addr), "-c", "SELECT 1")
		cmd.Env = append(os.Environ(), pg.Env...)
		return cmd.Run()
	}
}

// unprivileged is nobody where this process is root, else nil.
func unprivileged() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
