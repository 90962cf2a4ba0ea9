ALTER TABLE users ADD COLUMN display_name TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN avatar TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN about TEXT NOT NULL DEFAULT '';

-- One log-in of a user on one device. generation is that of the refresh token that is
-- good now; the token itself is stored nowhere.
CREATE TABLE sessions (
    id         TEXT PRIMARY KEY,
    user_id    TEXT NOT NULL REFERENCES users (id),
    device     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    used_at    INTEGER NOT NULL,
    generation INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_user ON sessions (user_id, used_at); -- a user's list; the one that was not used for longest
CREATE INDEX sessions_used ON sessions (used_at);          -- sweep

-- Sessions that have ended while access tokens of theirs, or sockets, may be about.
CREATE TABLE ended_sessions (
    id       TEXT PRIMARY KEY,
    user_id  TEXT NOT NULL,
    ended_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX ended_sessions_at ON ended_sessions (ended_at); -- each process asks every second; sweep
