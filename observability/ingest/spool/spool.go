// Package spool keeps batches in files while what should take them is away. It knows
// nothing of what a batch holds.
//
// One file a batch: written whole, synced, then named; taken by removing it. So there is
// no position to keep, a crash leaves whole batches or leftovers that Open removes, and
// a batch that was being taken is offered again under its token. A log of segments with
// an offset does the same with fewer files and more states, and lost.
//
// A full spool refuses the newest batch and never drops one it has accepted.
package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

var (
	// ErrFull says that a batch would exceed the bound.
	ErrFull = errors.New("spool is full")
	// ErrCorrupt says that a batch is not what was written.
	ErrCorrupt = errors.New("spooled batch is corrupt")
)

const (
	magic      = "TGSPOOL1"
	headerSize = len(magic) + 4 + 4 + 2 // checksum of all that follows it, rows, token's length
	extension  = ".batch"
	temporary  = ".tmp"
)

// Batch is one spooled batch.
type Batch struct {
	Token   string
	Rows    int
	Payload []byte

	file entry
}

// Usage is what the spool holds.
type Usage struct {
	Batches int
	Rows    int
	Bytes   int64
}

// Spool is safe for concurrent use, but one goroutine takes: Oldest, then Remove.
type Spool struct {
	dir      string
	maxBytes int64

	mu    sync.Mutex
	next  uint64
	files []entry // oldest first
	usage Usage
}

type entry struct {
	name  string
	token string
	rows  int
	size  int64
}

// Open makes dir where it is not there, removes what a crash left half written, and
// finds the batches of earlier runs.
func Open(dir string, maxBytes int64) (*Spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make spool folder: %w", err)
	}
	list, err := os.ReadDir(dir) // sorted by name, which is by age
	if err != nil {
		return nil, fmt.Errorf("read spool folder: %w", err)
	}
	s := &Spool{dir: dir, maxBytes: maxBytes}
	for _, f := range list {
		if strings.HasSuffix(f.Name(), temporary) {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return nil, fmt.Errorf("remove half-written batch: %w", err)
			}
			continue
		}
		number, err := strconv.ParseUint(strings.TrimSuffix(f.Name(), extension), 16, 64)
		if err != nil || !strings.HasSuffix(f.Name(), extension) {
			continue // not ours
		}
		info, err := f.Info()
		if err != nil {
			return nil, fmt.Errorf("read spool folder: %w", err)
		}
		e := entry{name: f.Name(), size: info.Size()}
		if e.rows, e.token, err = readHead(filepath.Join(dir, f.Name())); err != nil && !errors.Is(err, ErrCorrupt) {
			return nil, err
		}
		s.add(e)
		s.next = max(s.next, number+1)
	}
	return s, nil
}

// readHead reads the count and the token, which are not verified until the batch is read.
func readHead(path string) (rows int, token string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", fmt.Errorf("open spooled batch: %w", err)
	}
	defer f.Close()
	var h [headerSize]byte
	if _, err := io.ReadFull(f, h[:]); err != nil || string(h[:len(magic)]) != magic {
		return 0, "", ErrCorrupt
	}
	rows = int(binary.LittleEndian.Uint32(h[len(magic)+4:]))
	name := make([]byte, binary.LittleEndian.Uint16(h[headerSize-2:]))
	if _, err := io.ReadFull(f, name); err != nil {
		return rows, "", ErrCorrupt
	}
	return rows, string(name), nil
}

// Each calls f with what is known of every batch, oldest first.
func (s *Spool) Each(f func(token string, rows int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.files {
		f(e.token, e.rows)
	}
}

// Append writes a batch and returns once it is on disk. It fails with ErrFull where the
// spool would then hold more than room, or than its own bound.
func (s *Spool) Append(token string, rows int, payload []byte, room int64) error {
	raw := encode(token, rows, payload)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.usage.Bytes+int64(len(raw)) > min(room, s.maxBytes) {
		return ErrFull
	}
	e := entry{name: fmt.Sprintf("%016x%s", s.next, extension), token: token, rows: rows, size: int64(len(raw))}
	if err := s.write(e.name, raw); err != nil {
		return err
	}
	s.next++
	s.add(e)
	return nil
}

func (s *Spool) write(name string, raw []byte) (err error) {
	tmp := filepath.Join(s.dir, name+temporary)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("create spooled batch: %w", err)
	}
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, filepath.Join(s.dir, name))
	}
	if err != nil {
		return fmt.Errorf("write spooled batch: %w", errors.Join(err, os.Remove(tmp)))
	}
	return s.syncDir()
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

// Oldest reads the oldest batch; ok is false where there is none. With ErrCorrupt the
// batch has what is known of it, and can be removed.
func (s *Spool) Oldest() (b Batch, ok bool, err error) {
	s.mu.Lock()
	if len(s.files) == 0 {
		s.mu.Unlock()
		return Batch{}, false, nil
	}
	e := s.files[0]
	s.mu.Unlock()
	raw, err := os.ReadFile(filepath.Join(s.dir, e.name))
	if err != nil {
		return Batch{Token: e.token, Rows: e.rows, file: e}, true, fmt.Errorf("read spooled batch: %w", err)
	}
	b, err = decode(raw)
	if err != nil {
		b.Token, b.Rows = e.token, e.rows
	}
	b.file = e
	return b, true, err
}

// Remove ends a batch that Oldest gave.
func (s *Spool) Remove(b Batch) error {
	if err := os.Remove(filepath.Join(s.dir, b.file.name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove spooled batch: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.files, b.file); i >= 0 {
		s.files = slices.Delete(s.files, i, i+1)
		s.usage.Batches--
		s.usage.Rows -= b.file.rows
		s.usage.Bytes -= b.file.size
	}
	return nil
}

// Usage says what the spool holds now.
func (s *Spool) Usage() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.usage
}

func (s *Spool) add(e entry) {
	s.files = append(s.files, e)
	s.usage.Batches++
	s.usage.Rows += e.rows
	s.usage.Bytes += e.size
}

func encode(token string, rows int, payload []byte) []byte {
	raw := make([]byte, 0, headerSize+len(token)+len(payload))
	raw = append(raw, magic...)
	raw = append(raw, 0, 0, 0, 0)
	raw = binary.LittleEndian.AppendUint32(raw, uint32(rows))
	raw = binary.LittleEndian.AppendUint16(raw, uint16(len(token)))
	raw = append(raw, token...)
	raw = append(raw, payload...)
	binary.LittleEndian.PutUint32(raw[len(magic):], crc32.Checksum(raw[len(magic)+4:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

func decode(raw []byte) (Batch, error) {
	if len(raw) < headerSize || string(raw[:len(magic)]) != magic {
		return Batch{}, ErrCorrupt
	}
	body := raw[len(magic)+4:]
	if binary.LittleEndian.Uint32(raw[len(magic):]) != crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) {
		return Batch{}, ErrCorrupt
	}
	n := int(binary.LittleEndian.Uint16(body[4:]))
	if len(body) < 6+n {
		return Batch{}, ErrCorrupt
	}
	return Batch{Rows: int(binary.LittleEndian.Uint32(body)), Token: string(body[6 : 6+n]), Payload: body[6+n:]}, nil
}
