CREATE TABLE blocks (
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    blocked_id TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, blocked_id)
);

-- What blocks mean for a direct conversation, so that it is read with its row: 1 where
-- the first of the pair blocks the second, 2 where the second blocks the first, 3 both.
ALTER TABLE conversations ADD COLUMN blocked BIGINT NOT NULL DEFAULT 0;
