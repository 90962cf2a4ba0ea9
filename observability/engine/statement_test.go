package engine

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestParseStatement(t *testing.T) {
	for _, tc := range []struct {
		sql    string
		kind   kind
		head   string
		format string
	}{
		{"SELECT 1", kindRead, "SELECT 1", ""},
		{"  (select 1)", kindRead, "  (select 1)", ""},
		{"-- INSERT\n/* x */ WITH 1 AS x SELECT x", kindRead, "-- INSERT\n/* x */ WITH 1 AS x SELECT x", ""},
		{"SELECT 1 FORMAT JSON ;\n", kindRead, "SELECT 1 ", "JSON"},
		{"SELECT 1 AS noformat JSON", kindRead, "SELECT 1 AS noformat JSON", ""},
		{"INSERT INTO t (a, b) FORMAT Native", kindInsert, "INSERT INTO t (a, b) ", "Native"},
		{"insert into t format\nCSV", kindInsert, "insert into t ", "CSV"},
		{"INSERT INTO t VALUES (1)", kindOther, "INSERT INTO t VALUES (1)", ""},
		{"INSERT INTO t FORMAT CSV\n1,2", kindOther, "INSERT INTO t FORMAT CSV\n1,2", ""},
		{"/* open", kindOther, "/* open", ""},
		{"FORMAT CSV", kindOther, "", "CSV"},
		{"", kindOther, "", ""},
	} {
		if got := parseStatement(tc.sql); got != (statement{tc.kind, tc.head, tc.format}) {
			t.Errorf("parseStatement(%q) = %+v, want %+v", tc.sql, got, tc)
		}
	}
}

func FuzzParseStatement(f *testing.F) {
	for _, s := range []string{"SELECT 1 FORMAT JSON", "--", "/*", "INSERT INTO t FORMAT x", "(((", "format x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		st := parseStatement(sql)
		if !strings.HasPrefix(sql, st.head) {
			t.Errorf("head %q is no prefix of %q", st.head, sql)
		}
		if st.kind == kindInsert && st.format == "" {
			t.Error("an insert without a format would be streamed")
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	f.Add("query=SELECT+1&param_a=1&max_threads=2&compress=1&network_compression_method=zstd")
	f.Add("session_id=1&user=x")
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		r, err := parseRequest(q, http.Header{})
		var e *exception
		if err != nil && !errors.As(err, &e) {
			t.Errorf("error %v is no exception", err)
		}
		for name := range r.settings {
			if transport(name) {
				t.Errorf("%s taken for a setting", name)
			}
		}
	})
}

func TestGateRefusesWhenTooManyWait(t *testing.T) {
	g := newGate(1, 1)
	if err := g.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	waiter := make(chan error)
	go func() { waiter <- g.enter(context.WithoutCancel(t.Context())) }()
	g.leave() // before or after the waiter waits: it gets the place
	if err := <-waiter; err != nil {
		t.Fatal(err)
	}
	g.waiting <- struct{}{} // someone waits
	var e *exception
	if err := g.enter(t.Context()); !errors.As(err, &e) || e.code != codeTooManyQueries {
		t.Errorf("error = %v, want code 202", err)
	}
	<-g.waiting
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.enter(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want that of the context", err)
	}
}

func TestConfigValidateNamesTheKey(t *testing.T) {
	good := DefaultConfig()
	good.Library, good.DataDir, good.Password = "/lib", "/data", "secret"
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for key, edit := range map[string]func(*Config){
		"library":     func(c *Config) { c.Library = "" },
		"data_dir":    func(c *Config) { c.DataDir = "relative" },
		"addr":        func(c *Config) { c.Addr = "0.0.0.0:8123" },
		"user":        func(c *Config) { c.User = "" },
		"password":    func(c *Config) { c.Password = "" },
		"max_body":    func(c *Config) { c.MaxBody = 0 },
		"max_query":   func(c *Config) { c.MaxQuery = 0 },
		"max_queries": func(c *Config) { c.MaxQueries = 0 },
		"max_waiting": func(c *Config) { c.MaxWaiting = -1 },
		"max_memory":  func(c *Config) { c.MaxMemory = 0 },
		"drain":       func(c *Config) { c.Drain = 0 },
	} {
		c := good
		edit(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+":") {
			t.Errorf("error = %v, want one that starts with %s", err, key)
		}
	}
}
