// Package spool keeps batches in files while what should take them is away. It knows
// nothing of what a batch holds.
//
// Batches of one kind are gathered in a segment, a file that is taken whole, under one
// token: an hour without an engine must not cost it as many inserts as it missed. A batch is
// written at the end of its kind's open segment and synced. A segment is sealed when it is
// large, when it is taken, and by a restart, and then never changes, so that what goes with
// its token is always the same; it ends by being removed. There is no position to keep: a
// crash leaves whole segments, at most with the beginning of a batch at the end, which
// nobody was told of. A batch that was tried before keeps its own token, and so has a
// segment of its own.
//
// One file a batch has fewer states, and lost: of a minute without ClickHouse it made a
// thousand inserts, which took longer than to receive what was in them.
//
// A full spool refuses the newest batch and never drops one it has accepted.
package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// ErrFull says that a batch would exceed the bound.
var ErrFull = errors.New("spool is full")

const (
	extension = ".segment"
	oldest    = ".batch" // of versions that had a file for each batch
	temporary = ".tmp"
)

// Bounds are what a spool and its segments may hold.
type Bounds struct {
	Bytes int64 // of all files
	// SegmentRows and SegmentBytes seal a segment; a batch that is larger has one of its own.
	SegmentRows  int
	SegmentBytes int64
}

// Batch is what Append keeps.
type Batch struct {
	// Kind is what batches have in common that may be taken together.
	Kind string
	// Token names the segment where this batch begins one, else it is not used.
	Token string
	// Alone says that Token was tried before: nothing else may go by that name.
	Alone   bool
	Rows    int
	Payload []byte
}

// Segment is what is taken at once.
type Segment struct {
	Token   string
	Batches []Kept // oldest first
	Damaged int    // rows of batches that are not what was written, as far as that can be told
	Skipped int64  // bytes that are no whole batch, as a crash leaves them at the end

	file *file
}

// Kept is a batch as it was given to Append.
type Kept struct {
	Rows    int
	Payload []byte
}

// Usage is what the spool holds.
type Usage struct {
	Segments int
	Rows     int
	Bytes    int64
}

// Spool is safe for concurrent use, but one goroutine takes: Oldest, then Remove or Defer.
type Spool struct {
	dir    string
	bounds Bounds

	mu    sync.Mutex
	next  uint64
	files []*file          // oldest first
	open  map[string]*file // by kind, of files
	usage Usage

	unreadable []error // of Open
}

// file is a segment. What a failed write may have left behind size is not part of it.
type file struct {
	name  string
	token string
	rows  int
	size  int64
	out   *os.File // nil: sealed
}

// Open makes dir where it is not there, removes what a crash left half written, and
// finds the batches of earlier runs. Files that cannot be read stay for the next time
// (Unreadable).
func Open(dir string, bounds Bounds) (*Spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make spool folder: %w", err)
	}
	list, err := os.ReadDir(dir) // sorted by name, which is by age
	if err != nil {
		return nil, fmt.Errorf("read spool folder: %w", err)
	}
	s := &Spool{dir: dir, bounds: bounds, open: map[string]*file{}}
	for _, f := range list {
		if strings.HasSuffix(f.Name(), temporary) {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return nil, fmt.Errorf("remove half-written segment: %w", err)
			}
			continue
		}
		ext := filepath.Ext(f.Name())
		number, err := strconv.ParseUint(strings.TrimSuffix(f.Name(), ext), 16, 64)
		if err != nil || ext != extension && ext != oldest {
			continue // not ours
		}
		s.next = max(s.next, number+1)
		found, err := inspect(filepath.Join(dir, f.Name()))
		if err != nil {
			s.unreadable = append(s.unreadable, err)
			continue
		}
		found.name = f.Name()
		s.add(found)
	}
	return s, nil
}

// Unreadable says which files Open could not read.
func (s *Spool) Unreadable() []error { return s.unreadable }

// Each calls f with what is known of every segment, oldest first.
func (s *Spool) Each(f func(token string, rows int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.files {
		f(e.token, e.rows)
	}
}

// Append writes a batch and returns once it is on disk. It fails with ErrFull where the
// spool would then hold more than room, or than its own bound.
func (s *Spool) Append(b Batch, room int64) error {
	record := encodeRecord(b.Rows, b.Payload)
	s.mu.Lock()
	defer s.mu.Unlock()
	into := s.open[b.Kind]
	if into != nil && (into.rows+b.Rows > s.bounds.SegmentRows || into.size+int64(len(record)) > s.bounds.SegmentBytes) {
		s.seal(into)
		into = nil
	}
	begins := b.Alone || into == nil
	if begins {
		record = append(encodeHead(b.Token), record...)
	}
	if s.usage.Bytes+int64(len(record)) > min(room, s.bounds.Bytes) {
		return ErrFull
	}
	if !begins {
		return s.extend(into, b.Rows, record)
	}
	created, err := s.create(record)
	if err != nil {
		return err
	}
	created.token, created.rows = b.Token, b.Rows
	s.add(created)
	if b.Alone {
		s.seal(created)
	} else {
		s.open[b.Kind] = created
	}
	return nil
}

// create makes a segment that has its first batch when it gets its name.
func (s *Spool) create(raw []byte) (_ *file, err error) {
	name := fmt.Sprintf("%016x%s", s.next, extension)
	tmp := filepath.Join(s.dir, name+temporary)
	out, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create spooled segment: %w", err)
	}
	_, err = out.Write(raw)
	if err == nil {
		err = out.Sync()
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(s.dir, name))
	}
	if err != nil {
		return nil, fmt.Errorf("write spooled segment: %w", errors.Join(err, out.Close(), os.Remove(tmp)))
	}
	s.next++ // the name is taken, whatever follows
	if err := s.syncDir(); err != nil {
		return nil, errors.Join(err, out.Close(), os.Remove(filepath.Join(s.dir, name)))
	}
	return &file{name: name, size: int64(len(raw)), out: out}, nil
}

// extend writes a record at the end of an open segment, which is sealed where that fails:
// whatever is behind its size then, no batch follows it.
func (s *Spool) extend(f *file, rows int, record []byte) error {
	_, err := f.out.WriteAt(record, f.size)
	if err == nil {
		err = f.out.Sync()
	}
	if err != nil {
		err = errors.Join(err, f.out.Truncate(f.size))
		s.seal(f)
		return fmt.Errorf("write spooled batch: %w", err)
	}
	f.rows += rows
	f.size += int64(len(record))
	s.usage.Rows += rows
	s.usage.Bytes += int64(len(record))
	return nil
}

// seal ends an open segment. What is in it is synced, so that closing cannot lose it.
func (s *Spool) seal(f *file) {
	if f.out == nil {
		return
	}
	_ = f.out.Close()
	f.out = nil
	for kind, open := range s.open {
		if open == f {
			delete(s.open, kind)
		}
	}
}

// syncDir makes a name in the folder as lasting as the file.
func (s *Spool) syncDir() (err error) {
	d, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("sync spool folder: %w", err)
	}
	if err = errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync spool folder: %w", err)
	}
	return nil
}

// Oldest seals and reads the oldest segment; ok is false where there is none. One whose file
// is gone is all damaged. With an error it has its token, and can be deferred.
func (s *Spool) Oldest() (seg Segment, ok bool, err error) {
	s.mu.Lock()
	if len(s.files) == 0 {
		s.mu.Unlock()
		return Segment{}, false, nil
	}
	f := s.files[0]
	s.seal(f)
	s.mu.Unlock()
	raw, err := os.ReadFile(filepath.Join(s.dir, f.name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Segment{Token: f.token, file: f}, true, fmt.Errorf("read spooled segment: %w", err)
	}
	return decode(raw, f), true, nil
}

// Remove ends a segment that Oldest gave.
func (s *Spool) Remove(seg Segment) error {
	if err := os.Remove(filepath.Join(s.dir, seg.file.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove spooled segment: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.files, seg.file); i >= 0 {
		s.files = slices.Delete(s.files, i, i+1)
		s.usage.Segments--
		s.usage.Rows -= seg.file.rows
		s.usage.Bytes -= seg.file.size
	}
	return nil
}

// Defer has all others come before a segment that could not be read.
func (s *Spool) Defer(seg Segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.files, seg.file); i >= 0 {
		s.files = append(slices.Delete(s.files, i, i+1), seg.file)
	}
}

// Close seals what is open; the spool can be read on.
func (s *Spool) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.open {
		s.seal(f)
	}
}

// Usage says what the spool holds now.
func (s *Spool) Usage() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.usage
}

func (s *Spool) add(f *file) {
	s.files = append(s.files, f)
	s.usage.Segments++
	s.usage.Rows += f.rows
	s.usage.Bytes += f.size
}
