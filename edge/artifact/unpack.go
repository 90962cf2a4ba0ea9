package artifact

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// unpack writes the wanted regular files of a wheel (zip) or tarball below dir and
// returns their sizes by name. Links are not followed and not made; a name that
// leaves dir is an error (os.Root).
func unpack(ctx context.Context, archive, dir string, members []string) (sizes map[string]int64, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	sizes = map[string]int64{}
	each := func(name string, mode fs.FileMode, open func() (io.ReadCloser, error)) error {
		if !wanted(name, members) || !mode.IsRegular() {
			return nil
		}
		n, err := write(ctx, root, name, mode, open)
		sizes[name] = n
		return err
	}
	switch {
	case strings.HasSuffix(archive, ".whl"):
		err = eachZip(archive, each)
	case strings.HasSuffix(archive, ".tgz"):
		err = eachTar(archive, each)
	default:
		err = errors.New("neither a wheel nor a tarball")
	}
	return sizes, err
}

type entry func(name string, mode fs.FileMode, open func() (io.ReadCloser, error)) error

func eachZip(archive string, each entry) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer z.Close()
	for _, f := range z.File {
		if err := each(f.Name, f.Mode(), f.Open); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return nil
}

func eachTar(archive string, each entry) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for t := tar.NewReader(gz); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		open := func() (io.ReadCloser, error) { return io.NopCloser(t), nil }
		if err := each(h.Name, h.FileInfo().Mode(), open); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

func wanted(name string, members []string) bool {
	for _, m := range members {
		if name == m || strings.HasSuffix(m, "/") && strings.HasPrefix(name, m) {
			return true
		}
	}
	return false
}

func write(ctx context.Context, root *os.Root, name string, mode fs.FileMode, open func() (io.ReadCloser, error)) (int64, error) {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return 0, err
	}
	r, err := open()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	// Owner may always write, so that the cache can be removed; nobody else may.
	w, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode.Perm()&0o755|0o600)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(w, contextReader{ctx.Err, r})
	if err == nil {
		err = w.Sync()
	}
	return n, errors.Join(err, w.Close())
}

// contextReader stops a long copy when the caller gives up.
type contextReader struct {
	done func() error
	r    io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.done(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
