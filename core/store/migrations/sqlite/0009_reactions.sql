-- Who has reacted to a message, and how many have: a history reads the few rows of tallies
-- and looks into reactions only for its reader. since is the seq of the entry from which on
-- it was never none. Both are written in the transaction that numbers the entry.
CREATE TABLE reactions (
    conversation_id TEXT NOT NULL REFERENCES conversations (id),
    seq             INTEGER NOT NULL,
    emoji           TEXT NOT NULL,
    user_id         TEXT NOT NULL,
    PRIMARY KEY (conversation_id, seq, emoji, user_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE tallies (
    conversation_id TEXT NOT NULL REFERENCES conversations (id),
    seq             INTEGER NOT NULL,
    emoji           TEXT NOT NULL,
    count           INTEGER NOT NULL,
    since           INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, seq, emoji)
) STRICT, WITHOUT ROWID;
