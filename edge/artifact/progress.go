package artifact

import (
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"
)

// progress logs once a second how many bytes lie below dir, until stop. The
// clients are asked to keep all their files there, so this works the same for all
// of them, and with their own output switched off.
func progress(dir string, a Artifact, total int64, log *slog.Logger) (stop func()) {
	log = log.With("artifact", a.Name, "version", a.Version)
	log.Info("downloading", "bytes", 0, "of", total, "from", string(a.From))
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for last := int64(-1); ; {
			select {
			case <-tick.C:
			case <-done:
				return
			}
			// A client may hold the file twice for a moment.
			n := min(bytesBelow(dir), total)
			if n != last {
				log.Info("downloading", "bytes", n, "of", total, "percent", percent(n, total))
			}
			last = n
		}
	}()
	return func() { close(done); <-ended }
}

func percent(n, total int64) int64 {
	if total <= 0 {
		return 0
	}
	return n * 100 / total
}

func bytesBelow(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // files come and go while the client works
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}
