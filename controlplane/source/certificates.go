package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tracegate/tracegate/controlplane/certificate"
)

// Certificates watches a folder with a folder for each certificate. It asks for the
// files' times and sizes, and reads again what has changed: links that are swapped, as
// Kubernetes does with mounted secrets, need no special care then.
type Certificates struct {
	Dir  string
	Poll time.Duration // between two looks; 1 s where zero
}

// CertificateUpdate is one reading of a certificate's folder. Exactly one of Pair and
// Err holds; where both are empty the folder is gone.
type CertificateUpdate struct {
	Name string
	Pair certificate.Pair
	Err  error
}

const (
	defaultCertificatePoll = time.Second
	maxCertificateFolders  = 1024
)

// Run sends what has changed since seen, until ctx is done. seen is what [Certificates.Read]
// returned, or nil. A folder that reads as before is not sent.
func (c Certificates) Run(ctx context.Context, seen *CertificatesSeen, out chan<- []CertificateUpdate) error {
	poll := c.Poll
	if poll <= 0 {
		poll = defaultCertificatePoll
	}
	if seen == nil {
		seen = new(CertificatesSeen)
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		updates := c.Read(seen)
		if len(updates) > 0 {
			select {
			case out <- updates:
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// CertificatesSeen is what was read last. The zero value has read nothing.
type CertificatesSeen struct {
	folders map[string]folderSeen
}

type folderSeen struct {
	files [3]fileSeen
	pair  certificate.Pair
	err   string
}

type fileSeen struct {
	there    bool
	modified time.Time
	size     int64
}

// Read looks once, and notes in seen what it saw.
func (c Certificates) Read(seen *CertificatesSeen) []CertificateUpdate {
	if seen.folders == nil {
		seen.folders = map[string]folderSeen{}
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil // a folder that cannot be read for a moment takes nothing away
	}
	var out []CertificateUpdate
	there := map[string]bool{}
	for _, e := range entries {
		name := e.Name()
		if name[0] == '.' || len(there) == maxCertificateFolders {
			continue
		}
		if info, err := os.Stat(filepath.Join(c.Dir, name)); err != nil || !info.IsDir() {
			continue
		}
		there[name] = true
		if u, changed := c.look(name, seen); changed {
			out = append(out, u)
		}
	}
	for name := range seen.folders {
		if !there[name] {
			delete(seen.folders, name)
			out = append(out, CertificateUpdate{Name: name})
		}
	}
	return out
}

// fresh is how long after a change a file is read at each look: the clock of a file
// system is coarse, so two changes may have one time.
const fresh = 2 * time.Second

// look reads a folder where a file of it has changed.
func (c Certificates) look(name string, seen *CertificatesSeen) (CertificateUpdate, bool) {
	now, settled := folderSeen{}, true
	for i, file := range certificateFiles() {
		if info, err := os.Stat(filepath.Join(c.Dir, name, file)); err == nil {
			now.files[i] = fileSeen{true, info.ModTime(), info.Size()}
			settled = settled && time.Since(info.ModTime()) > fresh
		}
	}
	last, known := seen.folders[name]
	if known && settled && now.files == last.files {
		return CertificateUpdate{}, false
	}
	u := CertificateUpdate{Name: name}
	if u.Pair, u.Err = c.parse(name); u.Err != nil {
		now.err = u.Err.Error()
	}
	now.pair = u.Pair
	seen.folders[name] = now
	return u, !known || now.err != last.err || !now.pair.Equal(last.pair)
}

func certificateFiles() [3]string {
	return [3]string{certificate.ChainFile, certificate.KeyFile, certificate.CAFile}
}

func (c Certificates) parse(name string) (certificate.Pair, error) {
	var content [3][]byte
	for i, file := range certificateFiles() {
		var err error
		if content[i], err = readBounded(filepath.Join(c.Dir, name, file), certificate.MaxSize); err != nil {
			return certificate.Pair{}, err
		}
	}
	return certificate.Parse(content[0], content[1], content[2])
}

// readBounded is nil for a file that is not there.
func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("open file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("read file: %w", err)
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return data, nil
}
