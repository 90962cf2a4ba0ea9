package procfs

import (
	"bytes"
	"math"
	"os"
	"path"
	"path/filepath"
	"strconv"
)

// CPUQuota is how many CPUs this process's control groups (v2) let it use at most, from the
// kernel's files under root ("/"); ok is false where they let it use all. GOMAXPROCS knows
// the quota too, but rounds it up, to two at least: half a CPU would never look used up.
func CPUQuota(root string) (cpus float64, ok bool) {
	raw, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0, false
	}
	cpus = math.Inf(1)
	for line := range bytes.Lines(raw) {
		group, v2 := bytes.CutPrefix(bytes.TrimSpace(line), []byte("0::"))
		if !v2 {
			continue
		}
		// A limit of any group above holds too. A container sees its own as the top.
		for dir := path.Clean("/" + string(group)); ; dir = path.Dir(dir) {
			if n, limited := quotaOf(filepath.Join(root, "sys/fs/cgroup", dir, "cpu.max")); limited {
				cpus = min(cpus, n)
			}
			if dir == "/" {
				break
			}
		}
	}
	return cpus, !math.IsInf(cpus, 1)
}

// quotaOf reads "QUOTA PERIOD" in microseconds; the quota may be "max".
func quotaOf(file string) (float64, bool) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(raw)
	if len(fields) != 2 {
		return 0, false
	}
	quota, err := strconv.ParseFloat(string(fields[0]), 64)
	if err != nil {
		return 0, false
	}
	period, err := strconv.ParseFloat(string(fields[1]), 64)
	if err != nil || quota <= 0 || period <= 0 {
		return 0, false
	}
	return quota / period, true
}
