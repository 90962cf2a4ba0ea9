-- How far a member has read, and how far its devices have got; muted is 0 or 1.
ALTER TABLE members ADD COLUMN read_seq BIGINT NOT NULL DEFAULT 0;
ALTER TABLE members ADD COLUMN delivered_seq BIGINT NOT NULL DEFAULT 0;
ALTER TABLE members ADD COLUMN muted BIGINT NOT NULL DEFAULT 0;
