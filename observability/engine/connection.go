package engine

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/tracegate/tracegate/observability/engine/chdb"
)

// connect opens a connection with the settings of every connection and those given.
func (s *server) connect(settings ...string) (*chdb.Conn, error) {
	args := []string{"--path=" + s.cfg.DataDir, fmt.Sprintf("--max_memory_usage_for_user=%d", s.cfg.MaxMemory)}
	if s.cfg.File != "" {
		args = append(args, "--config-file="+s.cfg.File)
	}
	return s.lib.Connect(append(args, settings...)...)
}

// open returns a connection that has a request's settings and database, and the tag by
// which kill finds its statement. The caller closes the connection.
func (s *server) open(r request) (*chdb.Conn, string, error) {
	tag := fmt.Sprintf("tracegate-%d;", s.sequence.Add(1))
	// The C API has no query id; log_comment is the one setting that names a
	// statement in system.processes. The client's own comment follows the tag.
	args := []string{"--log_comment=" + tag + r.settings["log_comment"]}
	for name, value := range r.settings {
		switch {
		case !s.settings[name]:
			return nil, "", newException(codeUnknownSetting, "UNKNOWN_SETTING", "Setting %s is neither a builtin setting nor started with the prefix 'SQL_' registered for user-defined settings", name)
		case name != "log_comment":
			args = append(args, "--"+name+"="+value)
		}
	}
	conn, err := s.connect(args...)
	if err != nil {
		return nil, "", s.explain(r.settings, err)
	}
	if r.database != "" {
		if err := exec(conn, "USE "+quote(r.database)); err != nil {
			conn.Close()
			return nil, "", err
		}
	}
	return conn, tag, nil
}

// explain finds the setting that made connecting fail with err: SET says what the C
// API does not.
func (s *server) explain(settings map[string]string, err error) error {
	conn, cerr := s.connect()
	if cerr != nil {
		return cerr
	}
	defer conn.Close()
	for name, value := range settings {
		if serr := exec(conn, "SET "+name+" = '"+escape(value)+"'"); serr != nil {
			return serr
		}
	}
	return err
}

// watch kills the tagged statement when ctx ends before the returned function is
// called, which waits for the watch's end.
func (s *server) watch(ctx context.Context, tag string) (stop func()) {
	var finished atomic.Bool
	done := make(chan struct{})
	cancelWatch := context.AfterFunc(ctx, func() {
		defer close(done)
		if !finished.Load() {
			s.metrics.killed.Inc()
			s.kill("startsWith(Settings['log_comment'], '" + tag + "')")
		}
	})
	return func() {
		finished.Store(true)
		if !cancelWatch() {
			<-done
		}
	}
}

// kill ends the statements that match a condition over system.processes. The engine
// cannot be interrupted from the thread that waits for it, hence another connection.
func (s *server) kill(where string) {
	conn, err := s.connect()
	if err != nil {
		s.log.Warn("statement could not be killed", "error", err)
		return
	}
	defer conn.Close()
	if err := exec(conn, "KILL QUERY WHERE "+where+" ASYNC"); err != nil {
		s.log.Warn("statement could not be killed", "error", err)
	}
}

func exec(conn *chdb.Conn, sql string) error {
	r, err := conn.Query(sql, "Null", nil)
	if err != nil {
		return err
	}
	r.Free()
	return nil
}

func quote(name string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(name) + "`"
}

func escape(value string) string { return strings.NewReplacer("\\", "\\\\", "'", "\\'").Replace(value) }
