-- How a user stands to another one, one row for each side: outgoing, incoming or friend.
CREATE TABLE friends (
    user_id  TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    other_id TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    state    TEXT COLLATE "C" NOT NULL,
    since    BIGINT NOT NULL,
    PRIMARY KEY (user_id, other_id)
);
CREATE INDEX friends_state ON friends (user_id, state, other_id); -- pages of one state
