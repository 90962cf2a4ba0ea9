-- Records of the log that were refused, by the time at which the log took them: what it
-- delivers again is refused again, whatever has changed since. Swept by that time.
CREATE TABLE refusals (
    logged_at       INTEGER NOT NULL,
    conversation_id TEXT NOT NULL REFERENCES conversations (id),
    sender_id       TEXT NOT NULL,
    client_id       TEXT NOT NULL,
    reason          TEXT NOT NULL,
    PRIMARY KEY (logged_at, conversation_id, sender_id, client_id)
) STRICT, WITHOUT ROWID;

-- logged_at of the newest one: what the log took later need not be looked for.
ALTER TABLE conversations ADD COLUMN refused_at INTEGER NOT NULL DEFAULT 0;
