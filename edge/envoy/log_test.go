package envoy

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseLine(t *testing.T) {
	type line struct {
		Level           slog.Level
		Logger, Message string
	}
	tests := []struct {
		in   string
		want line
	}{
		{"info\tmain\tstarting", line{slog.LevelInfo, "main", "starting"}},
		{"warning\tconfig\ta\tb", line{slog.LevelWarn, "config", "a\tb"}},
		{"critical\tmain\terror", line{LevelCritical, "main", "error"}},
		{"trace\thttp\t", line{slog.LevelDebug, "http", ""}},
		{"Caught Segmentation fault", line{slog.LevelWarn, "", "Caught Segmentation fault"}},
		{"loud\tmain\tx", line{slog.LevelWarn, "", "loud\tmain\tx"}},
	}
	for _, tt := range tests {
		var got line
		got.Level, got.Logger, got.Message = parseLine(tt.in)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%q: -want +got\n%s", tt.in, diff)
		}
	}
}

func TestCopyLog(t *testing.T) {
	var out strings.Builder
	var last lastError
	in := "info\tmain\tup\nerror\tconfig\tbad route\n" + strings.Repeat("x", 5*maxLine) + "\ncritical\tmain\tno newline at the end"
	copyLog(strings.NewReader(in), slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})), &last)
	if n := strings.Count(out.String(), "\n"); n != 4 {
		t.Errorf("%d lines, want 4 (one cut)", n)
	}
	if out.Len() > 2*maxLine {
		t.Errorf("a long line was not cut: %d bytes", out.Len())
	}
	if got := last.get(); got != "no newline at the end" {
		t.Errorf("last error %q", got)
	}
}

func TestSampler(t *testing.T) {
	s, start := sampler{}, time.Unix(1000, 0)
	for i, tt := range []struct {
		message string
		after   time.Duration
		ok      bool
		dropped int
	}{
		{"a", 0, true, 0},
		{"a", time.Second, false, 0},
		{"b", time.Second, true, 0},
		{"a", 9 * time.Second, false, 0},
		{"a", 10 * time.Second, true, 2},
		{"a", 21 * time.Second, true, 0},
	} {
		if ok, dropped := s.pass(tt.message, start.Add(tt.after)); ok != tt.ok || dropped != tt.dropped {
			t.Errorf("%d: %s after %s: got %v %d", i, tt.message, tt.after, ok, dropped)
		}
	}
	for i := range 10 * sampleMost {
		s.pass(fmt.Sprint(i), start)
	}
	if len(s) > sampleMost {
		t.Errorf("%d messages are kept", len(s))
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add("info\tmain\tstarting")
	f.Add("\t\t")
	f.Fuzz(func(t *testing.T, s string) {
		_, logger, message := parseLine(s)
		if len(logger)+len(message) > len(s) {
			t.Errorf("%q grew", s)
		}
	})
}

func TestParseVersion(t *testing.T) {
	tests := []struct {
		in   string
		want version
		ok   bool
	}{
		{"\nenvoy  version: 9e55.../1.40.0/Clean/RELEASE/BoringSSL\n", version{1, 40, 0}, true},
		{"/opt/envoy-1.2.3/envoy  version: 9e55/1.41.2-dev/Modified/DEBUG/BoringSSL", version{1, 41, 2}, true},
		{"redis-server v=7", version{}, false},
		{"", version{}, false},
	}
	for _, tt := range tests {
		got, err := parseVersion(tt.in)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%q: got %v, %v", tt.in, got, err)
		}
	}
}
