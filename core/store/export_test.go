package store

import (
	"database/sql"
	"strings"
	"testing"
)

// SetSchemaVersion pretends that a newer program has migrated the database.
func (s *Store) SetSchemaVersion(t *testing.T, version int) {
	t.Helper()
	if _, err := s.write.ExecContext(t.Context(), `UPDATE schema_version SET version = $1`, version); err != nil {
		t.Fatal(err)
	}
}

// OpenVersion makes a database as an older program would, and fills it.
func OpenVersion(t *testing.T, cfg Config, version int, fill func(exec func(query string))) {
	t.Helper()
	open := openPostgres
	if strings.HasPrefix(cfg.URL, "sqlite:") {
		open = openSQLite
	}
	s, err := open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	all, err := loadMigrations(migrations, s.dialect.name)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.inTx(t.Context(), func(tx *sql.Tx) error { return applyMigrations(t.Context(), tx, all[:version]) }); err != nil {
		t.Fatal(err)
	}
	fill(func(query string) {
		if _, err := s.write.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	})
}

// CountText counts rows of messages that hold a text anywhere.
func (s *Store) CountText(t *testing.T, text string) (n int) {
	t.Helper()
	err := s.read.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM messages WHERE text LIKE $1 OR event LIKE $1`, "%"+text+"%").Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// FillGroup makes a group large without a record for each member.
func (s *Store) FillGroup(t testing.TB, group string, n int) {
	t.Helper()
	err := s.inTx(t.Context(), func(tx *sql.Tx) error {
		numbers := `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1) `
		if _, err := tx.ExecContext(t.Context(), `INSERT INTO users (id, name, tenant, password, created_at) `+numbers+
			`SELECT 'many-' || CAST(i AS TEXT), 'many-' || CAST(i AS TEXT), 'public', 'x', 1 FROM n`, n); err != nil {
			return err
		}
		if _, err := tx.ExecContext(t.Context(), `INSERT INTO members (conversation_id, user_id, joined_seq) `+numbers+
			`SELECT $2, 'many-' || CAST(i AS TEXT), 1 FROM n`, n, group); err != nil {
			return err
		}
		_, err := tx.ExecContext(t.Context(), `UPDATE conversations SET member_seq = member_seq + 1, last_seq = last_seq + 1, member_count = member_count + $2 WHERE id = $1`, group, n)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// RowsWritten counts rows that were inserted, changed or deleted by this store so far.
func (s *Store) RowsWritten(t *testing.T) (n int) {
	t.Helper()
	query := `SELECT total_changes()`
	if s.dialect.name == "postgres" {
		query = `SELECT COALESCE(SUM(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_stat_user_tables`
		if _, err := s.write.ExecContext(t.Context(), `SELECT pg_stat_force_next_flush()`); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.write.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// RememberMembers bounds what is remembered of members.
func (s *Store) RememberMembers(n int) { s.rosters = newRosters(n) }

// Remembered is how many members are.
func (s *Store) Remembered() int {
	s.rosters.mu.Lock()
	defer s.rosters.mu.Unlock()
	return s.rosters.members
}

// CountReactions counts rows that a message has in both tables.
func (s *Store) CountReactions(t *testing.T, conversation string, seq int64) (n int) {
	t.Helper()
	err := s.read.QueryRowContext(t.Context(), `SELECT (SELECT COUNT(*) FROM reactions WHERE conversation_id = $1 AND seq = $2)
		+ (SELECT COUNT(*) FROM tallies WHERE conversation_id = $1 AND seq = $2)`, conversation, seq).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// CountRefusals counts rows.
func (s *Store) CountRefusals(t *testing.T) (n int) {
	t.Helper()
	if err := s.read.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM refusals`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
