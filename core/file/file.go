// Package file keeps what users send beside text: it takes uploads, finds out what they
// are by their content, makes thumbnails, says who may download them, and clears away
// what nobody needs any more.
//
// An upload is streamed to where content is kept ([Blobs]: a [Folder] or an [S3] server)
// and is never held in memory whole. Its row in the database comes first (being
// uploaded), its content second, and then the row says that it is whole. A file that no
// message carries for [Config.Grace], because its upload broke off, it was never sent, or
// its message was recalled, is doomed in the database, then its content is deleted, then
// its row. So whichever moment a process is killed at, there is a row for all content, and
// the sweeper finds it; no listing of a bucket is needed, which for millions of objects
// would take hours.
//
// Who may download: the uploader, and who may see a message that carries the file; both
// are one SQL query at the moment of asking, so a recall or a removal holds at once. What
// is handed out then is a URL that expires after minutes and works without a login: S3's
// own presigned one, or for the folder one that core signs and serves ([Folder.Serve]).
// A proxy of our own in front of S3 lost: every byte would pass core, which is there to
// hold sockets. Thumbnails do pass core, so that a page needs to trust no other origin.
//
// It does not know HTTP routes (core/api does) or SQL (core/store does). While the place of
// content is away, uploads and downloads fail as unavailable, and nothing else does.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// Blobs keeps content under keys of a-z 0-9 . - that are used once. Any error but
// ErrNoBlob is taken as temporary.
type Blobs interface {
	// Put reads all of r and returns its size when it is durable: whole or not at all.
	Put(ctx context.Context, key, mime string, r io.Reader) (int64, error)
	// Open answers ErrNoBlob where there is none. Close what it returns.
	Open(ctx context.Context, key string) (io.ReadCloser, error)
	// Delete removes a blob and what a broken Put left of it; nil where there is nothing.
	Delete(ctx context.Context, key string) error
	// Link is a URL by which anybody may download until then.
	Link(ctx context.Context, d Download, until time.Time) (string, error)
	// Sweep removes what no key names and is older than before.
	Sweep(ctx context.Context, before time.Time) error
}

// ErrNoBlob says that there is no content under a key.
var ErrNoBlob = errors.New("no such content")

// Download is what a link hands out.
type Download struct {
	Key, Name, Type string
}

// Inline says whether a browser may show it: pictures that cannot carry scripts.
func (d Download) Inline() bool { return slices.Contains(pictures, d.Type) }

// Store is where files are listed; see core/store.
type Store interface {
	// BeginFile answers chat.ErrLimit where the quota is used up.
	BeginFile(ctx context.Context, f chat.File, quota chat.FileQuota) error
	FinishFile(ctx context.Context, f chat.File) error
	// File answers chat.ErrNotFound where there is none that the user may see.
	File(ctx context.Context, userID, id string) (chat.File, error)
	DoomFiles(ctx context.Context, before time.Time, limit int) ([]string, error)
	ForgetFile(ctx context.Context, id string) error
}

// Config bounds what users may upload.
type Config struct {
	MaxSize int64    // bytes
	Types   []string // MIME types that are allowed; a type may end with /*
	Quota   chat.FileQuota
	Uploads int           // at a time in this process; one user's are a quarter at most
	LinkFor time.Duration // how long a download link works
	Grace   time.Duration // how long a file is kept that no message carries
	Every   time.Duration // between sweeps
	// MaxDecode bounds the memory in bytes that a picture takes to make a thumbnail of it;
	// what is larger has none. One is made at a time.
	MaxDecode int64
	// MaxScanned bounds the pixels that all scans of a JPEG pass over, which may be many;
	// DecodeFor the time that any picture takes. What takes more has no thumbnail.
	MaxScanned int64
	DecodeFor  time.Duration
	Thumbnail  int // longest side in pixels
}

// DefaultConfig lets pictures, sounds, films, texts, office documents and archives in.
func DefaultConfig() Config {
	return Config{
		MaxSize: 100 << 20, Types: slices.Concat(pictures, documents, []string{"audio/*", "video/*"}),
		Quota: chat.FileQuota{Bytes: 5 << 30, Files: 20_000}, Uploads: 32, LinkFor: 10 * time.Minute,
		Grace: 24 * time.Hour, Every: 10 * time.Minute, MaxDecode: 192 << 20, MaxScanned: 512 << 20, DecodeFor: 10 * time.Second, Thumbnail: 480,
	}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	switch {
	case c.MaxSize < 1 || c.MaxSize > 5<<30:
		return errors.New("max_size: must be 1 byte to 5 GiB")
	case len(c.Types) == 0:
		return errors.New("types: name at least one")
	case c.Quota.Bytes < c.MaxSize:
		return errors.New("quota: must not be below max_size")
	case c.Quota.Files < 1:
		return errors.New("quota_files: must be at least 1")
	case c.Uploads < 1:
		return errors.New("uploads: must be at least 1")
	case c.LinkFor < time.Second || c.LinkFor > 7*24*time.Hour: // S3 signs for a week at most
		return errors.New("link_for: must be 1s to 168h")
	case c.Grace < time.Minute || c.Every < time.Second:
		return errors.New("grace: must be at least 1m, and every at least 1s")
	case c.Thumbnail < 16 || c.MaxDecode < 0 || c.MaxScanned < 0 || c.DecodeFor <= 0:
		return errors.New("thumbnail: must be at least 16, max_decode and max_scanned not negative, and decode_for positive")
	}
	return nil
}

// Files takes and hands out files. It is safe for concurrent use.
type Files struct {
	cfg     Config
	store   Store
	blobs   Blobs
	metrics metrics
	slots   chan struct{} // uploads under way
	decode  chan struct{} // the one thumbnail under way
	mu      sync.Mutex
	busy    map[string]int // uploads under way by user
	now     func() time.Time
	log     *slog.Logger
}

// New prepares files. Run sweeps.
func New(cfg Config, store Store, blobs Blobs, now func() time.Time, reg prometheus.Registerer, log *slog.Logger) (*Files, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("file config: %w", err)
	}
	m, err := newMetrics(reg)
	if err != nil {
		return nil, err
	}
	return &Files{
		cfg: cfg, store: store, blobs: blobs, metrics: m, now: now, log: log,
		slots: make(chan struct{}, cfg.Uploads), decode: make(chan struct{}, 1), busy: map[string]int{},
	}, nil
}

// MaxSize is the most that a file may have, in bytes.
func (f *Files) MaxSize() int64 { return f.cfg.MaxSize }

// Upload takes a file from a user. atMost is a bound of its size that is known before, 0
// where there is none; it is what the quota must have room for. The file is durable when
// Upload returns without an error; errors are *protocol.Error.
func (f *Files) Upload(ctx context.Context, owner chat.User, name string, content io.Reader, atMost int64) (protocol.File, error) {
	release, no := f.enter(owner.ID)
	if no != nil {
		return protocol.File{}, f.refuse("busy", no)
	}
	defer release()
	body := &limited{r: content, left: f.cfg.MaxSize}
	head, err := readHead(body)
	if err != nil {
		return protocol.File{}, f.uploadError(body, err)
	}
	mime, no := f.typeOf(head)
	if no != nil {
		return protocol.File{}, f.refuse("type", no)
	}
	file, err := f.begin(ctx, owner, fileName(name, mime), mime, atMost)
	if err != nil {
		return protocol.File{}, err
	}
	if err := f.take(ctx, &file, io.MultiReader(strings.NewReader(string(head)), body)); err != nil {
		f.discard(ctx, file.ID)
		return protocol.File{}, f.uploadError(body, err)
	}
	f.metrics.uploads.WithLabelValues("ok").Inc()
	f.metrics.bytes.Add(float64(file.Size))
	return file.File, nil
}

// enter takes one of the places for uploads.
func (f *Files) enter(userID string) (release func(), no *protocol.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy[userID] >= max(1, f.cfg.Uploads/4) {
		return nil, protocol.NewError(protocol.CodeRateLimited, "", "too many uploads of yours at a time: try again")
	}
	select {
	case f.slots <- struct{}{}:
	default:
		return nil, protocol.NewError(protocol.CodeUnavailable, "", "too many uploads at a time: try again")
	}
	f.busy[userID]++
	return func() {
		<-f.slots
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.busy[userID]--; f.busy[userID] == 0 {
			delete(f.busy, userID)
		}
	}, nil
}

// begin lists the file as being uploaded.
func (f *Files) begin(ctx context.Context, owner chat.User, name, mime string, atMost int64) (chat.File, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return chat.File{}, fmt.Errorf("new file id: %w", err)
	}
	file := chat.File{
		File:    protocol.File{ID: id.String(), Name: name, Type: mime, Size: f.cfg.MaxSize},
		OwnerID: owner.ID, UploadedAt: f.now().UTC().Truncate(time.Microsecond),
	}
	if atMost > 0 {
		file.Size = min(file.Size, atMost)
	}
	switch err := f.store.BeginFile(ctx, file, f.cfg.Quota); {
	case errors.Is(err, chat.ErrLimit):
		return file, f.refuse("quota", protocol.NewError(protocol.CodePermissionDenied, "file", "your files would take more room than you have"))
	case errors.Is(err, chat.ErrUnstorable): // the token's user is not in this database
		return file, f.refuse("client", protocol.NewError(protocol.CodeUnauthenticated, "", "your user does not exist any more"))
	case err != nil:
		f.metrics.uploads.WithLabelValues("internal").Inc()
		return file, fmt.Errorf("begin file: %w", err)
	}
	return file, nil
}

// take moves content and thumbnail to where they are kept and says that the file is whole.
func (f *Files) take(ctx context.Context, file *chat.File, content io.Reader) (err error) {
	if file.Size, err = f.blobs.Put(ctx, file.ID, file.Type, content); err != nil {
		return &blobError{fmt.Errorf("put content: %w", err)}
	}
	if slices.Contains(pictures, file.Type) {
		if err := f.picture(ctx, file); err != nil {
			return err
		}
	}
	if err := f.store.FinishFile(ctx, *file); err != nil {
		return fmt.Errorf("finish file: %w", err)
	}
	return nil
}

// discard takes back what a broken upload left. What it cannot, the sweeper will.
func (f *Files) discard(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := f.remove(ctx, id); err != nil {
		f.log.Warn("broken upload stays until it is swept", "file", id, "error", err)
	}
}

func (f *Files) remove(ctx context.Context, id string) error {
	for _, key := range []string{thumbnailKey(id), id} {
		if err := f.blobs.Delete(ctx, key); err != nil {
			return fmt.Errorf("delete content: %w", err)
		}
	}
	return f.store.ForgetFile(ctx, id)
}

func thumbnailKey(id string) string { return id + ".thumbnail" }

// Link returns a file that a user may see with a URL that works for some minutes.
func (f *Files) Link(ctx context.Context, userID, id string) (protocol.FileLink, error) {
	file, err := f.file(ctx, userID, id)
	if err != nil {
		return protocol.FileLink{}, err
	}
	until := f.now().Add(f.cfg.LinkFor).UTC().Truncate(time.Second)
	url, err := f.blobs.Link(ctx, Download{Key: file.ID, Name: file.Name, Type: file.Type}, until)
	if err != nil {
		return protocol.FileLink{}, unavailable(fmt.Errorf("link content: %w", err))
	}
	f.metrics.links.Inc()
	return protocol.FileLink{File: file.File, URL: url, ExpiresAt: until}, nil
}

// Thumbnail opens the thumbnail of a picture that a user may see, and says its MIME type.
func (f *Files) Thumbnail(ctx context.Context, userID, id string) (content io.ReadCloser, mime string, err error) {
	file, err := f.file(ctx, userID, id)
	if err != nil {
		return nil, "", err
	}
	if file.ThumbnailType == "" {
		return nil, "", protocol.NewError(protocol.CodeNotFound, "id", "the file has no thumbnail")
	}
	content, err = f.blobs.Open(ctx, thumbnailKey(id))
	if err != nil {
		return nil, "", unavailable(fmt.Errorf("open thumbnail: %w", err))
	}
	return content, file.ThumbnailType, nil
}

func (f *Files) file(ctx context.Context, userID, id string) (chat.File, error) {
	if err := chat.CheckConversationID("id", id); err != nil { // the same form
		return chat.File{}, protocol.NewError(protocol.CodeInvalidArgument, "id", "id must be the id of a file")
	}
	file, err := f.store.File(ctx, userID, id)
	if errors.Is(err, chat.ErrNotFound) {
		return file, protocol.NewError(protocol.CodeNotFound, "id", "there is no such file that you may see")
	}
	return file, err
}
