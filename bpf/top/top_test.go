package top

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/bpf"
	"github.com/tracegate/tracegate/bpf/probe"
)

var update = flag.Bool("update", false, "rewrite golden files")

func snapshot() bpf.Snapshot {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	canary := probe.Owner{Service: "core", Pool: "canary", Name: "core-canary"}
	return bpf.Snapshot{
		At: at, Window: 10 * time.Second, Watched: 4,
		Probes: []bpf.ProbeState{
			{Status: probe.Status{Probe: "tcpconnect", State: probe.On}, Rate: 142, EventCost: 226, Share: 0.00003},
			{Status: probe.Status{Probe: "schedlatency", State: probe.Degraded, Why: "samples one event in 2: 1.20% of a core, budget 1.00%"}, Rate: 45747, EventCost: 156, Share: 0.0071, Estimated: true, Lost: map[probe.Reason]uint64{probe.LostLimited: 3}},
			{Status: probe.Status{Probe: "gcpause", State: probe.Off, Why: "the kernel has no uprobes (CONFIG_UPROBE_EVENTS)"}},
		},
		Latencies: []bpf.Latency{
			{Kind: "wakeup", Owner: canary, Count: 90210, P50: 4 * time.Microsecond, P95: 87 * time.Microsecond, P99: 1200 * time.Microsecond, Threshold: 10 * time.Millisecond},
			{Kind: "connect", Owner: canary, Target: "127.0.0.1:9092", Count: 12, P50: 398 * time.Millisecond, P95: 403 * time.Millisecond, P99: 1403 * time.Millisecond, Threshold: 200 * time.Millisecond},
			{Kind: "connect", Owner: canary, Target: "127.0.0.1:6379", Total: 3, Threshold: 200 * time.Millisecond},
		},
		Counters: []bpf.Counter{{Kind: "connect_failed", Owner: canary, Reason: "refused", Target: "127.0.0.1:9092", Count: 2, Total: 9}, {Kind: "drop", Reason: "tcp_csum", Total: 4}, {Kind: "drop", Reason: "no_socket", Count: 4, Total: 4}},
		Queues:   []probe.Queue{{Owner: canary, Listen: "127.0.0.1:9102", Length: 3, Limit: 128}, {Listen: "127.0.0.1:9101", Limit: 128}},
		Slow:     []probe.Exemplar{{Kind: "connect", At: at, Latency: 403 * time.Millisecond, Owner: canary, PID: 4242, Command: "trace\x1b[2Jgate", Target: "127.0.0.1:9092"}},
		Causes:   []bpf.Cause{{Owner: canary, Text: "connects to kafka (127.0.0.1:9092) take 400ms (P95 of 12, threshold 200ms)"}},
		Problems: []string{"core-canary: connection refused"},
	}
}

func TestRender(t *testing.T) {
	for name, size := range map[string][2]int{"wide": {160, 100}, "small": {60, 12}} {
		t.Run(name, func(t *testing.T) {
			got := Render(snapshot(), size[0], size[1])
			for line := range strings.Lines(got) {
				if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > size[0] {
					t.Errorf("%d columns: %q", n, line)
				}
			}
			if n := strings.Count(got, "\n"); n >= size[1] {
				t.Errorf("%d lines for %d rows", n, size[1])
			}
			if strings.ContainsRune(got, '\x1b') {
				t.Error("a process has written to the terminal")
			}
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0ns", 789: "789ns", 45600: "45.6us", 1234567: "1.23ms", 403 * time.Millisecond: "403ms", 90 * time.Second: "90.0s"} {
		if got := short(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}

func TestRunDrawsAndSaysWhatIsMissing(t *testing.T) {
	answers := make(chan bool, 3) // whether the probes answer
	answers <- false
	answers <- true
	ctx, cancel := context.WithCancel(t.Context())
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		select {
		case ok := <-answers:
			if !ok {
				http.Error(w, "nothing read yet", http.StatusServiceUnavailable)
				return
			}
			_ = json.NewEncoder(w).Encode(snapshot())
		default:
			cancel()
		}
	}))
	defer srv.Close()
	var out bytes.Buffer
	cfg := Config{Addr: strings.TrimPrefix(srv.URL, "http://"), Interval: 20 * time.Millisecond}
	if err := Run(ctx, cfg, &out, func() (int, int) { return 100, 40 }); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"503 Service Unavailable", "connects to kafka", show} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the screen never said %q:\n%s", want, out.String())
		}
	}
	cfg.Once = true
	if err := Run(t.Context(), Config{Addr: "127.0.0.1:1", Once: true}, &out, func() (int, int) { return 80, 24 }); err == nil {
		t.Error("no error where nobody answers")
	}
}
