package durable

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Journal is a file of one JSON object a line. It is for one owner; it locks nothing.
type Journal struct {
	path    string
	maxSize int64
	file    *os.File // nil where the last rotation could not open the next one
	size    int64
	torn    bool // the last write failed, and may have left a part of a line
}

// OpenJournal opens or creates the file. Above maxSize bytes the file becomes
// path.1, and replaces the path.1 before it: two files hold at most 2 maxSize.
func OpenJournal(path string, maxSize int64) (*Journal, error) {
	j := &Journal{path: path, maxSize: maxSize}
	if err := j.open(); err != nil {
		return nil, err
	}
	return j, nil
}

func (j *Journal) open() error {
	f, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	size, err := endLine(f)
	if err != nil {
		f.Close()
		return fmt.Errorf("open journal: %w", err)
	}
	j.file, j.size = f, size
	return nil
}

// endLine ends a line that a crash tore, so that the next one stands alone.
func endLine(f *os.File) (int64, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || size == 0 {
		return size, err
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], size-1); err != nil {
		return 0, err
	}
	if last[0] == '\n' {
		return size, nil
	}
	n, err := f.Write([]byte{'\n'})
	return size + int64(n), err
}

// Append returns when v is on disk.
func (j *Journal) Append(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode journal entry: %w", err)
	}
	if err := j.rotate(); err != nil {
		return err
	}
	line = append(line, '\n')
	if j.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := j.file.Write(line)
	j.size += int64(n)
	if j.torn = err != nil; j.torn {
		return fmt.Errorf("write journal: %w", err)
	}
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("sync journal: %w", err)
	}
	return nil
}

func (j *Journal) rotate() error {
	switch {
	case j.file == nil: // the last rotation ended here
		return j.open()
	case j.size < j.maxSize:
		return nil
	}
	if err := j.Close(); err != nil {
		return fmt.Errorf("rotate journal: %w", err)
	}
	if err := os.Rename(j.path, j.path+".1"); err != nil {
		return fmt.Errorf("rotate journal: %w", errors.Join(err, j.open()))
	}
	return j.open()
}

// Close closes the file. A later Append opens it again.
func (j *Journal) Close() error {
	f := j.file
	if j.file = nil; f == nil {
		return nil
	}
	return f.Close()
}

// ReadJournal calls each with the lines of path.1 and path, oldest first. Lines
// that are no JSON, which a crash leaves, are counted and left out.
func ReadJournal(path string, each func(line []byte) error) (torn int, err error) {
	for _, p := range []string{path + ".1", path} {
		n, err := readLines(p, each)
		torn += n
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return torn, fmt.Errorf("read journal: %w", err)
		}
	}
	return torn, nil
}

// maxLine bounds one entry.
const maxLine = 1 << 20

func readLines(path string, each func([]byte) error) (torn int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		line := bytes.TrimSpace(s.Bytes())
		switch {
		case len(line) == 0:
		case !json.Valid(line):
			torn++
		default:
			if err := each(line); err != nil {
				return torn, err
			}
		}
	}
	return torn, s.Err()
}
