-- Who has reacted to a message, and how many have: a history reads the few rows of tallies
-- and looks into reactions only for its reader. since is the seq of the entry from which on
-- it was never none. Both are written in the transaction that numbers the entry.
CREATE TABLE reactions (
    conversation_id TEXT COLLATE "C" NOT NULL REFERENCES conversations (id),
    seq             BIGINT NOT NULL,
    emoji           TEXT COLLATE "C" NOT NULL,
    user_id         TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (conversation_id, seq, emoji, user_id)
);
CREATE TABLE tallies (
    conversation_id TEXT COLLATE "C" NOT NULL REFERENCES conversations (id),
    seq             BIGINT NOT NULL,
    emoji           TEXT COLLATE "C" NOT NULL,
    count           BIGINT NOT NULL,
    since           BIGINT NOT NULL,
    PRIMARY KEY (conversation_id, seq, emoji)
);
