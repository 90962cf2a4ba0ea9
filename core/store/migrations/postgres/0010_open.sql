-- 1 where anybody may join a group.
ALTER TABLE conversations ADD COLUMN open BIGINT NOT NULL DEFAULT 0;
