//go:build unix

package child

import (
	"errors"
	"os"
	"syscall"
)

// terminate asks the whole process group of p to end.
func terminate(p *os.Process) error {
	err := syscall.Kill(-p.Pid, syscall.SIGTERM)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}
