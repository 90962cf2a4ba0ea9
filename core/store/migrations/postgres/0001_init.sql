-- Times are microseconds since 1970, UTC. Ids and names compare by byte ("C"),
-- as they do in Go and in SQLite.
CREATE TABLE meta (
    name  TEXT COLLATE "C" PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE users (
    id         TEXT COLLATE "C" PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL UNIQUE,
    tenant     TEXT NOT NULL,
    password   TEXT NOT NULL, -- bcrypt
    created_at BIGINT NOT NULL
);

-- pair is "<smaller user id>|<larger user id>" for a direct conversation.
CREATE TABLE conversations (
    id         TEXT COLLATE "C" PRIMARY KEY,
    pair       TEXT COLLATE "C" UNIQUE,
    last_seq   BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL
);

CREATE TABLE members (
    conversation_id TEXT COLLATE "C" NOT NULL REFERENCES conversations (id),
    user_id         TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    PRIMARY KEY (conversation_id, user_id)
);
CREATE INDEX members_user ON members (user_id);

CREATE TABLE messages (
    conversation_id TEXT COLLATE "C" NOT NULL REFERENCES conversations (id),
    seq             BIGINT NOT NULL,
    sender_id       TEXT COLLATE "C" NOT NULL,
    sender          TEXT NOT NULL,
    client_id       TEXT COLLATE "C" NOT NULL,
    text            TEXT NOT NULL,
    sent_at         BIGINT NOT NULL,
    trace_id        TEXT NOT NULL,
    PRIMARY KEY (conversation_id, seq),
    UNIQUE (conversation_id, sender_id, client_id)
);
