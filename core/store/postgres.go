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
// see all that was committed before the locks were given. Rows of members are locked in
// the order of their keys for the same reason.
func postgresDialect() dialect {
	const ids = `(SELECT jsonb_array_elements_text($1::jsonb))`
	return dialect{
		name:              "postgres",
		lockMigrations:    `SELECT pg_advisory_xact_lock(7219641308)`,
		forUpdate:         ` FOR UPDATE`,
		lockConversations: selectStanding + ids + ` ORDER BY id FOR UPDATE`,
		standingOf:        selectStanding + ids,
		lockUsers:         `SELECT id FROM users WHERE id IN ` + ids + ` ORDER BY id FOR NO KEY UPDATE`,
		membersOf:         selectMembers + ids,
		existing: `SELECT m.conversation_id, m.sender_id, m.client_id, m.seq
			FROM jsonb_to_recordset($1::jsonb) AS j(c text, s text, k text) JOIN messages m
			ON m.conversation_id = j.c AND m.sender_id = j.s AND m.client_id = j.k`,
		refusals: `SELECT r.conversation_id, r.sender_id, r.client_id, r.logged_at, r.reason
			FROM jsonb_to_recordset($1::jsonb) AS j(c text, s text, k text, t bigint) JOIN refusals r
			ON r.logged_at = j.t AND r.conversation_id = j.c AND r.sender_id = j.s AND r.client_id = j.k`,
		targets: `SELECT m.conversation_id, m.seq, m.kind, m.sender_id, m.sent_at, m.recalled, m.file_id
			FROM jsonb_to_recordset($1::jsonb) AS j(c text, q bigint) JOIN messages m ON m.conversation_id = j.c AND m.seq = j.q`,
		insertMessages: `INSERT INTO messages (conversation_id, seq, sender_id, sender, client_id, text, sent_at, trace_id)
			SELECT j.c, j.q, j.s, j.n, j.k, j.t, j.a, j.r
			FROM jsonb_to_recordset($1::jsonb) AS j(c text, q bigint, s text, n text, k text, t text, a bigint, r text)`,
		insertEntries: `INSERT INTO messages (conversation_id, seq, sender_id, sender, client_id, text, sent_at, trace_id, kind, target, event, reply_to, file_id)
			SELECT j.c, j.q, j.s, j.n, j.k, j.t, j.a, j.r, j.i, j.g, j.e, j.p, j.f
			FROM jsonb_to_recordset($1::jsonb) AS j(c text, q bigint, s text, n text, k text, t text, a bigint, r text, i text, g bigint, e text, p bigint, f text)`,
		changeMessages: `UPDATE messages SET text = j.t, edited = GREATEST(edited, j.e), recalled = GREATEST(recalled, j.x),
				file_id = CASE WHEN j.x > 0 THEN '' ELSE file_id END
			FROM jsonb_to_recordset($1::jsonb) AS j(c text, q bigint, t text, e bigint, x bigint)
			WHERE messages.conversation_id = j.c AND messages.seq = j.q`,
		changeMembers: `INSERT INTO members (conversation_id, user_id, role, joined_seq, left_seq)
			SELECT j.c, j.u, j.o, j.j, j.l FROM jsonb_to_recordset($1::jsonb) AS j(c text, u text, o bigint, j bigint, l bigint)
			` + onMember,
		setHeads: `UPDATE conversations SET last_seq = j.q, member_seq = j.v, member_count = j.m,
				name = CASE WHEN j.n = '' THEN name ELSE j.n END, open = COALESCE(j.o, open)
			FROM jsonb_to_recordset($1::jsonb) AS j(c text, q bigint, v bigint, m bigint, n text, o bigint) WHERE conversations.id = j.c`,
		insertRefusals: `INSERT INTO refusals (logged_at, conversation_id, sender_id, client_id, reason)
			SELECT j.t, j.c, j.s, j.k, j.w FROM jsonb_to_recordset($1::jsonb) AS j(c text, s text, k text, t bigint, w text) ON CONFLICT DO NOTHING`,
		setRefused: `UPDATE conversations SET refused_at = GREATEST(refused_at, j.t)
			FROM (SELECT c, MAX(t) AS t FROM jsonb_to_recordset($1::jsonb) AS r(c text, t bigint) GROUP BY c) j WHERE conversations.id = j.c`,
		mark: `WITH j AS (
				SELECT m.conversation_id, m.user_id, x.r, x.d FROM jsonb_to_recordset($1::jsonb) AS x(c text, u text, r bigint, d bigint)
				JOIN members m ON m.conversation_id = x.c AND m.user_id = x.u AND m.left_seq = 0
				ORDER BY m.conversation_id, m.user_id FOR UPDATE OF m)
			UPDATE members SET read_seq = GREATEST(read_seq, j.r), delivered_seq = GREATEST(delivered_seq, j.d) FROM j
			WHERE members.conversation_id = j.conversation_id AND members.user_id = j.user_id
			RETURNING members.conversation_id, members.user_id, members.read_seq, members.delivered_seq`,
		headsOf: `SELECT m.user_id, c.id, m.joined_seq, CASE WHEN m.left_seq > 0 THEN m.left_seq ELSE c.last_seq END
			FROM members m JOIN conversations c ON c.id = m.conversation_id WHERE m.user_id IN ` + ids,
		peopleOf: `SELECT m.conversation_id, u.id, u.name, u.tenant FROM members m JOIN users u ON u.id = m.user_id
			WHERE m.conversation_id IN ` + ids + ` ORDER BY u.name`,
		countsOf:   `SELECT user_id, COUNT(*) FROM members WHERE left_seq = 0 AND user_id IN ` + ids + ` GROUP BY user_id`,
		blockersOf: `SELECT user_id FROM blocks WHERE blocked_id = $2 AND user_id IN ` + ids,
		blocksOf: `SELECT b.user_id, b.blocked_id FROM jsonb_to_recordset($1::jsonb) AS j(u text, b text)
			JOIN blocks b ON b.user_id = j.u AND b.blocked_id = j.b`,
		usersOf: `SELECT id, name, tenant FROM users WHERE name IN ` + ids,
		messagesAt: `SELECT m.conversation_id, ` + entryColumns + reactionsColumn(`json_agg`, `json_build_object`, `::text`) + ` FROM jsonb_to_recordset($1::jsonb) AS j(c text, q bigint)
			JOIN members b ON b.conversation_id = j.c AND b.user_id = $2
			JOIN messages m ON m.conversation_id = b.conversation_id AND m.seq = j.q AND m.kind = ''
				AND m.seq >= b.joined_seq AND (b.left_seq = 0 OR m.seq <= b.left_seq AND m.edited <= b.left_seq) ` + entryJoins,
		reactions: reactionsColumn(`json_agg`, `json_build_object`, `::text`),
		tallies: `SELECT n.conversation_id, n.seq, n.emoji, n.count, n.since FROM jsonb_to_recordset($1::jsonb) AS j(c text, q bigint, e text, u text, o bigint, n bigint, s bigint)
			JOIN tallies n ON n.conversation_id = j.c AND n.seq = j.q ORDER BY n.conversation_id, n.seq, n.since, n.emoji`,
		reacted: `SELECT r.conversation_id, r.seq, r.emoji, r.user_id FROM jsonb_to_recordset($1::jsonb) AS j(c text, q bigint, e text, u text, o bigint, n bigint, s bigint)
			JOIN reactions r ON r.conversation_id = j.c AND r.seq = j.q AND r.emoji = j.e AND r.user_id = j.u`,
		addReactions: `INSERT INTO reactions (conversation_id, seq, emoji, user_id)
			SELECT j.c, j.q, j.e, j.u FROM jsonb_to_recordset($1::jsonb) AS j(c text, q bigint, e text, u text, o bigint, n bigint, s bigint) WHERE j.o = 1 ON CONFLICT DO NOTHING`,
		removeReactions: `DELETE FROM reactions WHERE (conversation_id, seq, emoji, user_id) IN (
			SELECT j.c, j.q, j.e, j.u FROM jsonb_to_recordset($1::jsonb) AS j(c text, q bigint, e text, u text, o bigint, n bigint, s bigint) WHERE j.o = 0)`,
		setTallies: `INSERT INTO tallies (conversation_id, seq, emoji, count, since)
			SELECT j.c, j.q, j.e, j.n, j.s FROM jsonb_to_recordset($1::jsonb) AS j(c text, q bigint, e text, u text, o bigint, n bigint, s bigint) WHERE j.n > 0
			ON CONFLICT (conversation_id, seq, emoji) DO UPDATE SET count = excluded.count, since = excluded.since`,
		removeTallies: `DELETE FROM tallies WHERE (conversation_id, seq, emoji) IN (
			SELECT j.c, j.q, j.e FROM jsonb_to_recordset($1::jsonb) AS j(c text, q bigint, e text, u text, o bigint, n bigint, s bigint) WHERE j.n <= 0)`,
		clearReactions: `DELETE FROM reactions WHERE (conversation_id, seq) IN (SELECT j.c, j.q FROM jsonb_to_recordset($1::jsonb) AS j(c text, q bigint, e text, u text, o bigint, n bigint, s bigint))`,
		clearTallies:   `DELETE FROM tallies WHERE (conversation_id, seq) IN (SELECT j.c, j.q FROM jsonb_to_recordset($1::jsonb) AS j(c text, q bigint, e text, u text, o bigint, n bigint, s bigint))`,
		lockFiles:      `SELECT ` + fileColumns + ` FROM files f WHERE f.state = 1 AND f.id IN ` + ids + ` ORDER BY f.id FOR UPDATE`,
		useFiles: `UPDATE files SET loose_at = CASE WHEN EXISTS (SELECT 1 FROM messages m WHERE m.file_id = j.f AND m.file_id <> '') THEN 0 ELSE j.a END
			FROM jsonb_to_recordset($1::jsonb) AS j(f text, a bigint) WHERE files.id = j.f`,
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
