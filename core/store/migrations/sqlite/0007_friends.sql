-- How a user stands to another one, one row for each side: outgoing, incoming or friend.
CREATE TABLE friends (
    user_id  TEXT NOT NULL REFERENCES users (id),
    other_id TEXT NOT NULL REFERENCES users (id),
    state    TEXT NOT NULL,
    since    INTEGER NOT NULL,
    PRIMARY KEY (user_id, other_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX friends_state ON friends (user_id, state, other_id); -- pages of one state
