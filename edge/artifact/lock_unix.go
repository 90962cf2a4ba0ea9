//go:build unix

package artifact

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"syscall"
	"time"
)

// Lock takes path for this process until unlock; the kernel lets go of it when the
// process dies, so a kill leaves nothing to clean up. The file itself stays:
// removing it would let two processes lock two different files of one name.
func Lock(ctx context.Context, path string, log *slog.Logger) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for said := false; ; said = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(err, f.Close())
		}
		if !said {
			log.Info("waiting for another process that is downloading", "lock", path)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		}
	}
}
