// Package child starts processes that end with the one that started them: the
// registry clients of edge/artifact, Envoy, and the engines that tests run.
//
// On Linux the kernel does it (PR_SET_PDEATHSIG), also when the parent is killed
// with -9. Elsewhere only the end of ctx does: a parent that is killed with -9
// leaves its children running there, and their ports taken. A pipe that the child
// watches would work everywhere but needs a child that watches it, which Envoy,
// pip and redis-server are not.
package child

import (
	"context"
	"os/exec"
	"time"
)

// Grace is how long a child may take to end by itself after ctx is done.
const Grace = 5 * time.Second

// Command is exec.CommandContext for a child that does not outlive this process.
// When ctx is done the child gets SIGTERM and, after Grace, is killed. It is put
// into a process group of its own, so that a Ctrl-C on the terminal reaches the
// parent only, which then ends its children in order, and so that the SIGTERM also
// reaches what a wrapper script has started (pip is one where pyenv is used).
//
// The kernel sends the signal when the thread that started the child ends. Go ends
// threads only where a goroutine locked to one returns, so callers must not start
// children from such a goroutine.
func Command(ctx context.Context, name string, arg ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, arg...)
	cmd.SysProcAttr = attributes()
	cmd.Cancel = func() error { return terminate(cmd.Process) }
	cmd.WaitDelay = Grace
	return cmd
}
