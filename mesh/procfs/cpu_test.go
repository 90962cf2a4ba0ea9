package procfs

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCPUQuota(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		files map[string]string
		want  float64 // 0: none
	}{
		"half a CPU":               {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, 0.5},
		"of a group above":         {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 1.5},
		"the lowest of several":    {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "400000 100000\n", "sys/fs/cgroup/a/b/cpu.max": "200000 100000\n"}, 2},
		"a container's own":        {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "25000 50000"}, 0.5},
		"without a limit":          {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}, 0},
		"beside version 1":         {map[string]string{"proc/self/cgroup": "3:cpu,cpuacct:/x\n0::/a\n", "sys/fs/cgroup/x/cpu.max": "1 100000", "sys/fs/cgroup/a/cpu.max": "100000 100000"}, 1},
		"not a number":             {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "many 100000\n"}, 0},
		"no period":                {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "50000\n"}, 0},
		"a period of nothing":      {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "50000 0\n"}, 0},
		"no control groups at all": {map[string]string{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for file, content := range tc.files {
				file = filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got, ok := CPUQuota(root); ok != (tc.want > 0) || ok && got != tc.want {
				t.Errorf("%v, %v; want %v", got, ok, tc.want)
			}
		})
	}
}
