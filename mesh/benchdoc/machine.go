package benchdoc

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
)

// Machine describes what a benchmark ran on, and how busy it was just now.
func Machine() string {
	return fmt.Sprintf("%s, %d cores, %s/%s, load %s, Go %s",
		cpuModel(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, loadAverage(), strings.TrimPrefix(runtime.Version(), "go"))
}

func cpuModel() string {
	raw, _ := os.ReadFile("/proc/cpuinfo") // elsewhere the model stays unknown
	if m := regexp.MustCompile(`model name\s*:\s*(.*)`).FindSubmatch(raw); m != nil {
		return string(m[1])
	}
	return "unknown CPU"
}

func loadAverage() string {
	raw, err := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(raw))
	if err != nil || len(fields) < 3 {
		return "unknown"
	}
	return strings.Join(fields[:3], " ")
}
