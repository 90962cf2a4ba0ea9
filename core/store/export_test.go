package store

import "testing"

// SetSchemaVersion pretends that a newer program has migrated the database.
func (s *Store) SetSchemaVersion(t *testing.T, version int) {
	t.Helper()
	if _, err := s.write.ExecContext(t.Context(), `UPDATE schema_version SET version = $1`, version); err != nil {
		t.Fatal(err)
	}
}
