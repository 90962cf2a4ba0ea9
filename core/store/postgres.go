package store

import (
	"database/sql"
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

func openPostgres(cfg Config) (*Store, error) {
	db, err := sql.Open("pgx", cfg.URL)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(cfg.Conns)
	db.SetMaxIdleConns(cfg.Conns)
	return &Store{write: db, read: db, dialect: postgresDialect()}, nil
}

// postgresDialect runs at READ COMMITTED: lockConversations takes the row locks in the
// order of ids, so two batches cannot wait for each other, and the statements after it
// see all that was committed before the locks were given.
func postgresDialect() dialect {
	const ids = `(SELECT jsonb_array_elements_text($1::jsonb))`
	return dialect{
		name:              "postgres",
		lockMigrations:    `SELECT pg_advisory_xact_lock(7219641308)`,
		lockConversations: `SELECT id, last_seq FROM conversations WHERE id IN ` + ids + ` ORDER BY id FOR UPDATE`,
		membersOf:         `SELECT conversation_id, user_id FROM members WHERE conversation_id IN ` + ids,
		existing: `SELECT m.conversation_id, m.sender_id, m.client_id, m.seq
			FROM jsonb_to_recordset($1::jsonb) AS j(c text, s text, k text) JOIN messages m
			ON m.conversation_id = j.c AND m.sender_id = j.s AND m.client_id = j.k`,
		insertMessages: `INSERT INTO messages (conversation_id, seq, sender_id, sender, client_id, text, sent_at, trace_id)
			SELECT j.c, j.q, j.s, j.n, j.k, j.t, j.a, j.r
			FROM jsonb_to_recordset($1::jsonb) AS j(c text, q bigint, s text, n text, k text, t text, a bigint, r text)`,
		setLastSeq: `UPDATE conversations SET last_seq = j.q FROM jsonb_to_recordset($1::jsonb) AS j(c text, q bigint) WHERE conversations.id = j.c`,
		headsOf: `SELECT m.user_id, c.id, c.last_seq FROM members m JOIN conversations c ON c.id = m.conversation_id
			WHERE m.user_id IN ` + ids,
		permanent: func(err error) bool {
			switch c := postgresCode(err); {
			case len(c) == 5 && (c[:2] == "22" || c[:2] == "23"): // data exception, integrity constraint violation
				return true
			default:
				return false
			}
		},
		unique: func(err error) bool { return postgresCode(err) == "23505" },
	}
}

func postgresCode(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}
