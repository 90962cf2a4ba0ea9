package store_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/observability/engine/enginetest"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

// processes are stores of their own, as several processes have.
func processes(t *testing.T, e *enginetest.Engine, n int) []*store.Store {
	t.Helper()
	out := make([]*store.Store, n)
	for i := range out {
		s, err := store.Open(config(e))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		out[i] = s
	}
	return out
}

// migrateAtOnce has all migrate, each again while another is at it, as observe does.
func migrateAtOnce(t *testing.T, all []*store.Store) {
	t.Helper()
	var g sync.WaitGroup
	for _, s := range all {
		g.Go(func() {
			for {
				err := s.Migrate(t.Context())
				if err == nil {
					return
				}
				if !errors.Is(err, store.ErrMigrating) {
					t.Error(err)
					return
				}
			}
		})
	}
	g.Wait()
}

// schema is what makes each table and view of a database, by name.
func schema(t *testing.T, c driver.Conn, database string) map[string]string {
	t.Helper()
	rows, err := c.Query(t.Context(), "SELECT name, create_table_query FROM system.tables WHERE database = ?", database)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var name, sql string
		if err := rows.Scan(&name, &sql); err != nil {
			t.Fatal(err)
		}
		out[name] = strings.ReplaceAll(sql, database+".", "")
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestMigrateAtOnce: several processes at once end with the schema, and the rows, that one
// alone ends with.
func TestMigrateAtOnce(t *testing.T) {
	e := enginetest.Start(t)
	all := processes(t, e, 4)
	migrateAtOnce(t, all)
	c := plain(t, e.Addr, "tracegate")
	cfg := config(e)
	cfg.Database = "lonely"
	lone, err := store.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer lone.Close()
	if err := lone.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	same := func() {
		t.Helper()
		if diff := cmp.Diff(schema(t, c, "lonely"), schema(t, c, "tracegate")); diff != "" {
			t.Errorf("schema (-of one +of several):\n%s", diff)
		}
		if n := count(t, c, "SELECT count() * 100 + max(Version) FROM schema_migrations"); n != 1111 {
			t.Errorf("100 times migrations, and the last = %d, want 1111", n)
		}
	}
	same()

	// From the schema before there were rows of all routes together, which are made of what
	// is there: they must be there once.
	if err := all[0].Downgrade(t.Context(), 8); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	var spans []store.Span
	for i := range 90 {
		spans = append(spans, entry(1, "prod", "search", "baseline", now.Add(-time.Duration(i)*time.Second), time.Millisecond, "Ok"))
	}
	if err := all[0].InsertSpans(t.Context(), "before", spans); err != nil {
		t.Fatal(err)
	}
	migrateAtOnce(t, all)
	same()
	got, err := all[1].GroupStats(t.Context(), sli.Window{From: now.Add(-100 * time.Second), To: now.Add(time.Second)})
	if err != nil || len(got) != 1 || got[0].Requests != 90 {
		t.Errorf("statistics: %+v, %v; want 90 requests", got, err)
	}
}

// TestLockOfADeadProcess: what a process holds that is not heard of is taken over, and it
// does not go on when it comes back.
func TestLockOfADeadProcess(t *testing.T) {
	_, c, e := open(t)
	all := processes(t, e, 3)
	first, second, third := all[0], all[1], all[2]
	if err := first.Downgrade(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	first.SetLease(0) // it looks before every statement
	err := first.Alone(t.Context(), func(hold func(context.Context) error) error {
		if err := hold(t.Context()); err != nil {
			t.Error(err)
		}
		if err := second.Migrate(t.Context()); !errors.Is(err, store.ErrMigrating) {
			t.Errorf("error = %v, want that another is at it", err)
		}
		second.SetLease(0)
		if err := second.Alone(t.Context(), func(hold func(context.Context) error) error {
			third.SetLease(0)
			return third.Migrate(t.Context())
		}); err != nil {
			t.Error(err)
		}
		return hold(t.Context())
	})
	if !errors.Is(err, store.ErrMigrating) {
		t.Errorf("error = %v, want that another took over", err)
	}
	if v, err := second.Schema(t.Context()); err != nil || v != 11 {
		t.Errorf("schema = %d, %v; want 11", v, err)
	}
	if got := schema(t, c, "tracegate"); got["schema_migrations_lock"] != "" {
		t.Errorf("the lock is left: %v", got)
	}
}

// TestLockSurvivesClickHouse: a process whose ClickHouse was killed under it goes on with its
// own lock.
func TestLockSurvivesClickHouse(t *testing.T) {
	s, c, e := open(t)
	if err := s.Downgrade(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	if err := s.Alone(t.Context(), func(func(context.Context) error) error {
		e.Kill()
		return nil
	}); err == nil {
		t.Error("no error from a ClickHouse that is away")
	}
	e.Restart()
	if schema(t, c, "tracegate")["schema_migrations_lock"] == "" {
		t.Fatal("the lock is not there: it was to be found")
	}
	if err := processes(t, e, 1)[0].Migrate(t.Context()); !errors.Is(err, store.ErrMigrating) {
		t.Errorf("another process: %v, want that one is at it", err)
	}
	if err := s.Migrate(t.Context()); err != nil {
		t.Error(err)
	}
	if schema(t, c, "tracegate")["schema_migrations_lock"] != "" {
		t.Error("the lock is left")
	}
}

// TestDowngradeToNothing leaves the table of migrations without rows, and goes up again.
func TestDowngradeToNothing(t *testing.T) {
	s, c, _ := open(t)
	want := schema(t, c, "tracegate")
	insert := func() {
		t.Helper()
		if err := s.InsertSpans(t.Context(), "same", []store.Span{entry(1, "prod", "search", "baseline", at(0), time.Millisecond, "Ok")}); err != nil {
			t.Fatal(err)
		}
		if n := count(t, c, "SELECT sum(Requests) FROM traffic_group WHERE Grain = 160"); n != 1 {
			t.Errorf("requests = %d, want 1", n)
		}
	}
	insert()
	for _, version := range []uint32{3, 0} {
		if err := s.Downgrade(t.Context(), version); err != nil {
			t.Fatalf("to %d: %v", version, err)
		}
	}
	if got := schema(t, c, "tracegate"); len(got) != 1 || got["schema_migrations"] == "" || count(t, c, "SELECT count() FROM schema_migrations") != 0 {
		t.Errorf("at 0: %v", got)
	}
	if err := s.Downgrade(t.Context(), 0); err != nil {
		t.Errorf("where there is nothing: %v", err)
	}
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, schema(t, c, "tracegate")); diff != "" {
		t.Errorf("schema (-before +after):\n%s", diff)
	}
	insert()
}
