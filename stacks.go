package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
)

// fixedStacks is a setting of Go's runtime: a goroutine starts with the smallest stack
// (2 KB). Otherwise it starts with the average of what others used at the last collection
// (since Go 1.19), which in a whole core process is 4 KB; a connection's reader, which
// needs less than 2, then keeps 4 for as long as it lives, as the runtime halves a stack
// only where less than a quarter of it is used. `load sockets` measured 8.5 KB a
// connection with it and 6.5 without.
const fixedStacks = "adaptivestackstart=0"

// withFixedStacks is an environment with that setting; false where it says something
// about it already.
func withFixedStacks(env []string) ([]string, bool) {
	const key = "GODEBUG="
	i := slices.IndexFunc(env, func(v string) bool { return strings.HasPrefix(v, key) })
	if i < 0 {
		return append(slices.Clone(env), key+fixedStacks), true
	}
	name, _, _ := strings.Cut(fixedStacks, "=")
	if strings.Contains(env[i], name+"=") {
		return env, false
	}
	out := slices.Clone(env)
	out[i] += "," + fixedStacks // the runtime passes over an empty setting
	return out, true
}

// fixStacks makes this process start again as itself, under the same process id, where its
// stacks are not fixed: the runtime reads the setting once, when a process starts. It only
// returns where there is nothing to do, or an error.
func fixStacks() error {
	env, missing := withFixedStacks(os.Environ())
	if !missing {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this binary: %w", err)
	}
	return fmt.Errorf("start again with small stacks: %w", syscall.Exec(self, os.Args, env)) //nolint:gosec // what was started already
}
