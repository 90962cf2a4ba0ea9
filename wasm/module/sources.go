//go:build !embedfilter

package module

import (
	"crypto/sha256"
	"fmt"
	"go/build"
	"hash"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

const (
	modulePath = "github.com/tracegate/tracegate"
	filterDir  = "wasm/filter"
)

// sourceRoot finds the checkout that this package was compiled from, else the one
// that the working folder is in.
func sourceRoot() (string, error) {
	if _, file, _, ok := runtime.Caller(0); ok {
		if root := filepath.Dir(filepath.Dir(filepath.Dir(file))); isRoot(root) {
			return root, nil
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("working folder: %w", err)
	}
	for !isRoot(dir) {
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", ErrNoSources
		}
		dir = parent
	}
	return dir, nil
}

func isRoot(dir string) bool {
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil || !strings.HasPrefix(string(mod), "module "+modulePath+"\n") {
		return false
	}
	_, err = os.Stat(filepath.Join(dir, filterDir, "main.go"))
	return err == nil
}

// hashSources covers every file of this module that goes into the filter, the
// versions of everything else, and the toolchain.
func hashSources(root string) (hash.Hash, error) {
	files, err := sourceFiles(root)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version())
	for _, f := range files {
		if err := hashFile(h, root, f); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// sourceFiles follows imports by itself, so that a filter which is there is found
// without the go command.
func sourceFiles(root string) ([]string, error) {
	ctx := build.Default
	ctx.GOOS, ctx.GOARCH, ctx.CgoEnabled = "wasip1", "wasm", false
	files := []string{"go.mod", "go.sum"}
	seen := map[string]bool{}
	for todo := []string{filterDir}; len(todo) > 0; todo = todo[1:] {
		dir := todo[0]
		if seen[dir] {
			continue
		}
		seen[dir] = true
		pkg, err := ctx.ImportDir(filepath.Join(root, dir), 0)
		if err != nil {
			return nil, err
		}
		for _, f := range slices.Concat(pkg.GoFiles, pkg.SFiles) {
			files = append(files, filepath.Join(dir, f))
		}
		for _, path := range pkg.Imports {
			if own, ok := strings.CutPrefix(path, modulePath+"/"); ok {
				todo = append(todo, own)
			}
		}
	}
	slices.Sort(files)
	return files, nil
}

func hashFile(h hash.Hash, root, name string) error {
	f, err := os.Open(filepath.Join(root, name))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	fmt.Fprintln(h, filepath.ToSlash(name), info.Size())
	_, err = io.Copy(h, f)
	return err
}
