// Package storetest breaks stores for tests of those who use them.
package storetest

import (
	"database/sql"
	"strings"
	"testing"
)

// Lock keeps everybody else from writing to the SQLite database of a store's URL until
// unlock is called, once, or the test ends; reading goes on. The store must be open: its
// driver is registered then.
func Lock(t testing.TB, url string) (unlock func()) {
	t.Helper()
	db, err := sql.Open("sqlite", strings.TrimPrefix(url, "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1) // a transaction belongs to its connection
	if _, err := db.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
	}
}
