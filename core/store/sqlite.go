package store

import (
	"database/sql"
	"errors"
	"net/url"
	"strconv"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// openSQLite opens one writer and several readers. WAL lets them work at the same time,
// in this process and in others; synchronous=FULL makes a commit wait for the disk.
func openSQLite(cfg Config) (*Store, error) {
	q := url.Values{}
	q.Add("_pragma", "busy_timeout("+strconv.FormatInt(cfg.BusyTimeout.Milliseconds(), 10)+")")
	q.Add("_pragma", "journal_mode(WAL)")
	q.Add("_pragma", "synchronous(FULL)")
	q.Add("_pragma", "foreign_keys(1)")
	q.Set("_txlock", "immediate")
	file := (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: strings.TrimPrefix(cfg.URL, "sqlite:")}).EscapedPath()}).String()
	write, err := sql.Open("sqlite", file+"?"+q.Encode())
	if err != nil {
		return nil, err
	}
	write.SetMaxOpenConns(1)
	read, err := sql.Open("sqlite", file+"?"+q.Encode()+"&_pragma=query_only(1)")
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	read.SetMaxOpenConns(cfg.Conns)
	read.SetMaxIdleConns(cfg.Conns)
	return &Store{write: write, read: read, dialect: sqliteDialect()}, nil
}

func sqliteDialect() dialect {
	const ids = `(SELECT value FROM json_each($1))`
	return dialect{
		name:              "sqlite",
		lockConversations: selectStanding + ids,
		standingOf:        selectStanding + ids,
		lockUsers:         `SELECT id FROM users WHERE id IN ` + ids,
		membersOf:         selectMembers + ids,
		existing: `SELECT m.conversation_id, m.sender_id, m.client_id, m.seq
			FROM json_each($1) j JOIN messages m
			ON m.conversation_id = j.value ->> 'c' AND m.sender_id = j.value ->> 's' AND m.client_id = j.value ->> 'k'`,
		refusals: `SELECT r.conversation_id, r.sender_id, r.client_id, r.logged_at, r.reason FROM json_each($1) j JOIN refusals r
			ON r.logged_at = j.value ->> 't' AND r.conversation_id = j.value ->> 'c' AND r.sender_id = j.value ->> 's' AND r.client_id = j.value ->> 'k'`,
		targets: `SELECT m.conversation_id, m.seq, m.kind, m.sender_id, m.sent_at, m.recalled, m.file_id
			FROM json_each($1) j JOIN messages m ON m.conversation_id = j.value ->> 'c' AND m.seq = j.value ->> 'q'`,
		insertMessages: `INSERT INTO messages (conversation_id, seq, sender_id, sender, client_id, text, sent_at, trace_id)
			SELECT j.value ->> 'c', j.value ->> 'q', j.value ->> 's', j.value ->> 'n', j.value ->> 'k', j.value ->> 't', j.value ->> 'a', j.value ->> 'r'
			FROM json_each($1) j`,
		insertEntries: `INSERT INTO messages (conversation_id, seq, sender_id, sender, client_id, text, sent_at, trace_id, kind, target, event, reply_to, file_id)
			SELECT j.value ->> 'c', j.value ->> 'q', j.value ->> 's', j.value ->> 'n', j.value ->> 'k', j.value ->> 't', j.value ->> 'a', j.value ->> 'r',
				j.value ->> 'i', j.value ->> 'g', j.value ->> 'e', j.value ->> 'p', j.value ->> 'f'
			FROM json_each($1) j`,
		changeMessages: `UPDATE messages SET text = j.value ->> 't', edited = MAX(edited, j.value ->> 'e'), recalled = MAX(recalled, j.value ->> 'x'),
				file_id = CASE WHEN j.value ->> 'x' > 0 THEN '' ELSE file_id END
			FROM json_each($1) j WHERE messages.conversation_id = j.value ->> 'c' AND messages.seq = j.value ->> 'q'`,
		changeMembers: `INSERT INTO members (conversation_id, user_id, role, joined_seq, left_seq)
			SELECT j.value ->> 'c', j.value ->> 'u', j.value ->> 'o', j.value ->> 'j', j.value ->> 'l' FROM json_each($1) j WHERE true
			` + onMember,
		setHeads: `UPDATE conversations SET last_seq = j.value ->> 'q', member_seq = j.value ->> 'v',
				member_count = j.value ->> 'm',
				name = CASE WHEN j.value ->> 'n' = '' THEN name ELSE j.value ->> 'n' END,
				open = COALESCE(j.value ->> 'o', open)
			FROM json_each($1) j WHERE conversations.id = j.value ->> 'c'`,
		insertRefusals: `INSERT INTO refusals (logged_at, conversation_id, sender_id, client_id, reason)
			SELECT j.value ->> 't', j.value ->> 'c', j.value ->> 's', j.value ->> 'k', j.value ->> 'w' FROM json_each($1) j WHERE true ON CONFLICT DO NOTHING`,
		setRefused: `UPDATE conversations SET refused_at = MAX(refused_at, j.t)
			FROM (SELECT value ->> 'c' AS c, MAX(value ->> 't') AS t FROM json_each($1) GROUP BY 1) j WHERE conversations.id = j.c`,
		mark: `UPDATE members SET read_seq = MAX(read_seq, j.value ->> 'r'), delivered_seq = MAX(delivered_seq, j.value ->> 'd')
			FROM json_each($1) j WHERE members.conversation_id = j.value ->> 'c' AND members.user_id = j.value ->> 'u' AND members.left_seq = 0
			RETURNING conversation_id, user_id, read_seq, delivered_seq`,
		headsOf: `SELECT m.user_id, c.id, m.joined_seq, CASE WHEN m.left_seq > 0 THEN m.left_seq ELSE c.last_seq END
			FROM members m JOIN conversations c ON c.id = m.conversation_id WHERE m.user_id IN ` + ids,
		peopleOf: `SELECT m.conversation_id, u.id, u.name, u.tenant FROM members m JOIN users u ON u.id = m.user_id
			WHERE m.conversation_id IN ` + ids + ` ORDER BY u.name`,
		countsOf:   `SELECT user_id, COUNT(*) FROM members WHERE left_seq = 0 AND user_id IN ` + ids + ` GROUP BY user_id`,
		blockersOf: `SELECT user_id FROM blocks WHERE blocked_id = $2 AND user_id IN ` + ids,
		blocksOf: `SELECT b.user_id, b.blocked_id FROM json_each($1) j
			JOIN blocks b ON b.user_id = j.value ->> 'u' AND b.blocked_id = j.value ->> 'b'`,
		usersOf: `SELECT id, name, tenant FROM users WHERE name IN ` + ids,
		messagesAt: `SELECT m.conversation_id, ` + entryColumns + reactionsColumn(`json_group_array`, `json_object`, ``) + ` FROM json_each($1) j
			JOIN members b ON b.conversation_id = j.value ->> 'c' AND b.user_id = $2
			JOIN messages m ON m.conversation_id = b.conversation_id AND m.seq = j.value ->> 'q' AND m.kind = ''
				AND m.seq >= b.joined_seq AND (b.left_seq = 0 OR m.seq <= b.left_seq AND m.edited <= b.left_seq) ` + entryJoins,
		reactions: reactionsColumn(`json_group_array`, `json_object`, ``),
		tallies: `SELECT n.conversation_id, n.seq, n.emoji, n.count, n.since FROM json_each($1) j
			JOIN tallies n ON n.conversation_id = j.value ->> 'c' AND n.seq = j.value ->> 'q' ORDER BY n.conversation_id, n.seq, n.since, n.emoji`,
		reacted: `SELECT r.conversation_id, r.seq, r.emoji, r.user_id FROM json_each($1) j
			JOIN reactions r ON r.conversation_id = j.value ->> 'c' AND r.seq = j.value ->> 'q' AND r.emoji = j.value ->> 'e' AND r.user_id = j.value ->> 'u'`,
		addReactions: `INSERT INTO reactions (conversation_id, seq, emoji, user_id)
			SELECT j.value ->> 'c', j.value ->> 'q', j.value ->> 'e', j.value ->> 'u' FROM json_each($1) j WHERE j.value ->> 'o' = 1 ON CONFLICT DO NOTHING`,
		removeReactions: `DELETE FROM reactions WHERE (conversation_id, seq, emoji, user_id) IN (
			SELECT j.value ->> 'c', j.value ->> 'q', j.value ->> 'e', j.value ->> 'u' FROM json_each($1) j WHERE j.value ->> 'o' = 0)`,
		setTallies: `INSERT INTO tallies (conversation_id, seq, emoji, count, since)
			SELECT j.value ->> 'c', j.value ->> 'q', j.value ->> 'e', j.value ->> 'n', j.value ->> 's' FROM json_each($1) j WHERE j.value ->> 'n' > 0
			ON CONFLICT (conversation_id, seq, emoji) DO UPDATE SET count = excluded.count, since = excluded.since`,
		removeTallies: `DELETE FROM tallies WHERE (conversation_id, seq, emoji) IN (
			SELECT j.value ->> 'c', j.value ->> 'q', j.value ->> 'e' FROM json_each($1) j WHERE j.value ->> 'n' <= 0)`,
		clearReactions: `DELETE FROM reactions WHERE (conversation_id, seq) IN (SELECT j.value ->> 'c', j.value ->> 'q' FROM json_each($1) j)`,
		clearTallies:   `DELETE FROM tallies WHERE (conversation_id, seq) IN (SELECT j.value ->> 'c', j.value ->> 'q' FROM json_each($1) j)`,
		lockFiles:      `SELECT ` + fileColumns + ` FROM files f WHERE f.state = 1 AND f.id IN ` + ids,
		useFiles: `UPDATE files SET loose_at = CASE WHEN EXISTS (SELECT 1 FROM messages m WHERE m.file_id = j.value ->> 'f' AND m.file_id <> '')
				THEN 0 ELSE j.value ->> 'a' END
			FROM json_each($1) j WHERE files.id = j.value ->> 'f'`,
		permanent: func(err error) bool {
			switch sqliteCode(err) & 0xff {
			case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG:
				return true
			}
			return false
		},
		unique: func(err error) bool {
			c := sqliteCode(err)
			return c == sqlite3.SQLITE_CONSTRAINT_UNIQUE || c == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
		},
	}
}

func sqliteCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}
