package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// States of a file.
const (
	fileUploading = 0
	fileWhole     = 1
	fileDoomed    = 2
)

const fileColumns = `f.id, f.owner_id, f.name, f.type, f.size, f.width, f.height, f.thumbnail, f.uploaded_at`

func scanFile(scan func(...any) error) (chat.File, error) {
	var f chat.File
	var at int64
	err := scan(&f.ID, &f.OwnerID, &f.Name, &f.Type, &f.Size, &f.Width, &f.Height, &f.ThumbnailType, &at)
	f.Thumbnail, f.UploadedAt = f.ThumbnailType != "", time.UnixMicro(at).UTC()
	return f, err
}

// BeginFile makes room for a file that is about to be uploaded: f.Size is the most that
// it may have. Past the owner's quota it is chat.ErrLimit.
func (s *Store) BeginFile(ctx context.Context, f chat.File, quota chat.FileQuota) error {
	return s.inTx(ctx, func(tx *sql.Tx) error {
		// Uploads of one user come one after the other here, or two would fit where one does.
		if err := s.query(ctx, tx, "lock user", s.dialect.lockUsers, []string{f.OwnerID}, func(*sql.Rows) error { return nil }); err != nil {
			return err
		}
		var files int
		var bytes int64
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*), COALESCE(SUM(size), 0) FROM files WHERE owner_id = $1`, f.OwnerID).Scan(&files, &bytes); err != nil {
			return s.dialect.classify("sum up files", err)
		}
		if files >= quota.Files || bytes+f.Size > quota.Bytes {
			return fmt.Errorf("insert file: %w", chat.ErrLimit)
		}
		at := f.UploadedAt.UnixMicro()
		_, err := tx.ExecContext(ctx, `INSERT INTO files (id, owner_id, name, type, size, state, uploaded_at, loose_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $7)`,
			f.ID, f.OwnerID, f.Name, f.Type, f.Size, fileUploading, at)
		return s.dialect.classify("insert file", err)
	})
}

// FinishFile says that a file is whole and may be sent; chat.ErrNotFound where it took so
// long that it is to be deleted.
func (s *Store) FinishFile(ctx context.Context, f chat.File) error {
	r, err := s.write.ExecContext(ctx, `UPDATE files SET size = $2, width = $3, height = $4, thumbnail = $5, state = $6 WHERE id = $1 AND state = $7`,
		f.ID, f.Size, f.Width, f.Height, f.ThumbnailType, fileWhole, fileUploading)
	if err != nil {
		return s.dialect.classify("finish file", err)
	}
	n, err := r.RowsAffected()
	if err == nil && n == 0 {
		err = chat.ErrNotFound
	}
	return s.dialect.classify("finish file", err)
}

// File returns a file that a user has uploaded or sees a message of; else it is
// chat.ErrNotFound.
func (s *Store) File(ctx context.Context, userID, id string) (chat.File, error) {
	row := s.read.QueryRowContext(ctx, `SELECT `+fileColumns+` FROM files f WHERE f.id = $1 AND f.state = 1 AND (f.owner_id = $2 OR EXISTS (
		SELECT 1 FROM messages m JOIN members b ON b.conversation_id = m.conversation_id AND b.user_id = $2
		WHERE m.file_id = f.id AND m.file_id <> '' AND m.seq >= b.joined_seq AND (b.left_seq = 0 OR m.seq <= b.left_seq)))`, id, userID)
	f, err := scanFile(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		err = chat.ErrNotFound
	}
	return f, s.dialect.classify("select file", err)
}

// DoomFiles picks files that no message has carried since before, and those that were
// picked earlier and are still there: at most limit. From then on nobody can send or read
// them. The caller deletes their content and then calls ForgetFile.
func (s *Store) DoomFiles(ctx context.Context, before time.Time, limit int) ([]string, error) {
	if _, err := s.write.ExecContext(ctx, `UPDATE files SET state = $1, loose_at = 0 WHERE id IN (
		SELECT id FROM files WHERE loose_at > 0 AND loose_at < $2 ORDER BY loose_at LIMIT $3) AND loose_at > 0`,
		fileDoomed, before.UnixMicro(), limit); err != nil {
		return nil, s.dialect.classify("doom files", err)
	}
	var ids []string
	err := scanAll(ctx, s.read, `SELECT id FROM files WHERE state = 2 ORDER BY id LIMIT $1`, []any{limit}, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	})
	return ids, s.dialect.classify("select doomed files", err)
}

// ForgetFile ends a file that is not whole: one that was doomed, or whose upload failed.
func (s *Store) ForgetFile(ctx context.Context, id string) error {
	_, err := s.write.ExecContext(ctx, `DELETE FROM files WHERE id = $1 AND state <> $2`, id, fileWhole)
	return s.dialect.classify("delete file", err)
}

// fileUse is a file that a batch has sent or recalled, as the JSON that the statement reads.
type fileUse struct {
	ID string `json:"f"`
	At int64  `json:"a"` // since when it is loose, if no message carries it now
}

// lockFiles reads the files that messages of a batch carry, and holds them and those of
// recalled messages until the transaction ends, in the order of their ids.
func (s *Store) lockFiles(ctx context.Context, tx *sql.Tx, records []chat.Record, targets map[chat.Place]chat.Target) (map[string]chat.File, error) {
	var ids []string
	for _, r := range records {
		if r.File != "" {
			ids = append(ids, r.File)
		}
		if r.Kind != protocol.EventRecalled {
			continue
		}
		if t := targets[chat.Place{Conversation: r.Conversation, Seq: r.Target}]; t.File != "" {
			ids = append(ids, t.File)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	slices.Sort(ids)
	out := map[string]chat.File{}
	err := s.query(ctx, tx, "select files", s.dialect.lockFiles, slices.Compact(ids), func(rows *sql.Rows) error {
		f, err := scanFile(rows.Scan)
		out[f.ID] = f
		return err
	})
	return out, err
}

// use notes the file of a message that is sent or recalled.
func (c *changes) use(n chat.Numbered, state chat.State) {
	id := n.File
	if n.Kind == protocol.EventRecalled {
		id = state.Targets[chat.Place{Conversation: n.Conversation, Seq: n.Target}].File
		if id == "" {
			id = c.sent(n.Conversation, n.Target)
		}
	}
	if id != "" {
		c.files.at(id, fileUse{ID: id}).At = n.SentAt.UnixMicro()
	}
}

// sent is the file of a message of the same batch.
func (c *changes) sent(conversation string, seq int64) string {
	for _, e := range c.entries {
		if e.Conversation == conversation && e.Seq == seq {
			return e.File
		}
	}
	return ""
}
