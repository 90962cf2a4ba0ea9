-- state: 0 being uploaded, 1 whole, 2 to be deleted. type is MIME; thumbnail is the MIME
-- type of the thumbnail, empty where there is none. loose_at is since when no message
-- carries the file, 0 while one does: what is loose for long is deleted.
CREATE TABLE files (
    id          TEXT PRIMARY KEY,
    owner_id    TEXT NOT NULL REFERENCES users (id),
    name        TEXT NOT NULL,
    type        TEXT NOT NULL,
    size        INTEGER NOT NULL,
    width       INTEGER NOT NULL DEFAULT 0,
    height      INTEGER NOT NULL DEFAULT 0,
    thumbnail   TEXT NOT NULL DEFAULT '',
    state       INTEGER NOT NULL DEFAULT 0,
    uploaded_at INTEGER NOT NULL,
    loose_at    INTEGER NOT NULL
) STRICT;
-- What a user keeps is summed up at each upload.
CREATE INDEX files_owner ON files (owner_id, size);
-- The sweeper looks for these alone.
CREATE INDEX files_loose ON files (loose_at) WHERE loose_at > 0;
CREATE INDEX files_doomed ON files (id) WHERE state = 2;

ALTER TABLE messages ADD COLUMN file_id TEXT NOT NULL DEFAULT '';
-- Who may download a file is found by the messages that carry it.
CREATE INDEX messages_file ON messages (file_id) WHERE file_id <> '';
