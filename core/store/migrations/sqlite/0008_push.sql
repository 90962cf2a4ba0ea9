-- How a device is notified while its user is not connected; empty where it is not.
ALTER TABLE sessions ADD COLUMN push_platform TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN push_token TEXT NOT NULL DEFAULT '';
CREATE INDEX sessions_push ON sessions (push_token) WHERE push_token <> ''; -- a token is one device's

-- Up to which message of a conversation devices have been notified.
CREATE TABLE pushed (
    conversation_id TEXT PRIMARY KEY REFERENCES conversations (id),
    seq             INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
