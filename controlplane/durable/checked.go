// Package durable is what the control plane keeps on disk: whole values in
// checksummed files that are replaced atomically ([Save], [Load]), and an
// append-only journal of decisions ([Journal]).
//
// It knows nothing of what it keeps. controlplane calls it.
package durable

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrCorrupt is a file whose content does not match its checksum.
var ErrCorrupt = errors.New("file is corrupt")

// envelope is what a file holds.
type envelope struct {
	SHA256 string          `json:"sha256"` // of Value's bytes
	Value  json.RawMessage `json:"value"`
}

// Save writes v as JSON so that a reader, also after a crash, sees the old or the
// new value whole. It returns when the value is on disk.
func Save(path string, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	sum := sha256.Sum256(value)
	data := make([]byte, 0, len(value)+128) // an envelope; json.Marshal would look at all of the value again
	data = append(data, `{"sha256":"`...)
	data = hex.AppendEncode(data, sum[:])
	data = append(data, `","value":`...)
	data = append(data, value...)
	return Replace(path, append(data, "}\n"...))
}

// Load reads what Save wrote. Its error is fs.ErrNotExist where there is no file,
// and [ErrCorrupt] where it was damaged.
func Load(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", filepath.Base(path), err)
	}
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("decode %s: %w: %w", filepath.Base(path), ErrCorrupt, err)
	}
	if sum := sha256.Sum256(e.Value); hex.EncodeToString(sum[:]) != e.SHA256 {
		return fmt.Errorf("decode %s: %w: checksum differs", filepath.Base(path), ErrCorrupt)
	}
	if err := json.Unmarshal(e.Value, v); err != nil {
		return fmt.Errorf("decode %s: %w: %w", filepath.Base(path), ErrCorrupt, err)
	}
	return nil
}

// Replace writes data to a new file beside path, syncs it and renames it over
// path. Only its owner may read it.
func Replace(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("create file: %w", err)
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
		}
	}()
	if _, err := tmp.Write(data); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	if err := tmp.Sync(); err != nil {
		return fmt.Errorf("sync file: %w", err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("close file: %w", err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("replace file: %w", err)
	}
	return syncDir(dir)
}

// syncDir makes a rename durable. Some file systems cannot, and say so; the data
// itself is on disk by then.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	defer d.Close()
	_ = d.Sync()
	return nil
}
