package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary play a part: it writes a ready file, records its
// start and its end in a journal, and behaves as its role says.
func TestMain(m *testing.M) {
	if role := os.Getenv("LOCAL_TEST_ROLE"); role != "" && len(os.Args) > 2 {
		os.Exit(play(role, os.Args[1], os.Args[2]))
	}
	os.Exit(m.Run())
}

func play(role, name, dir string) int {
	if role == "fails:"+name {
		fmt.Fprintln(os.Stderr, "listen tcp 127.0.0.1:1: address already in use")
		return 1
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	note(dir, "start "+name)
	_ = os.WriteFile(filepath.Join(dir, name+".ready"), nil, 0o600)
	eof := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(eof) }()
	for {
		select {
		case <-term:
			if role == "hangs:"+name {
				note(dir, "ignore "+name)
				continue
			}
			note(dir, "stop "+name)
			return 0
		case <-eof:
			return 0
		}
	}
}

func note(dir, line string) {
	f, err := os.OpenFile(filepath.Join(dir, "journal"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		fmt.Fprintln(f, line)
		f.Close()
	}
}

func journal(t *testing.T, dir string) []string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "journal"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Fields(strings.ReplaceAll(strings.TrimSpace(string(raw)), " ", ":"))
}

// stages has one part each.
func stages(t *testing.T, dir string, names ...string) [][]Part {
	t.Helper()
	var out [][]Part
	for _, n := range names {
		out = append(out, []Part{{
			Name: n, Argv: []string{os.Args[0], n, dir}, Stop: 10 * time.Second,
			Ready: func(context.Context) error { _, err := os.Stat(filepath.Join(dir, n+".ready")); return err },
		}})
	}
	return out
}

func config(dir string) Config {
	cfg := DefaultConfig()
	cfg.StatusFile = filepath.Join(dir, "status.json")
	cfg.Output = io.Discard
	cfg.MinBackoff = time.Millisecond
	return cfg
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(2 * time.Millisecond) // polling a condition, not waiting for a duration
	}
}

func TestRunStartsInOrderAndStopsInReverse(t *testing.T) {
	t.Setenv("LOCAL_TEST_ROLE", "good")
	dir := t.TempDir()
	s, err := New(config(dir), stages(t, dir, "a", "b", "c"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = s.Run(ctx, t.Context(), func(context.Context) error { cancel(); return nil })
	if err != nil {
		t.Fatal(err)
	}
	want := "start:a start:b start:c stop:c stop:b stop:a"
	if got := strings.Join(journal(t, dir), " "); got != want {
		t.Errorf("journal = %q, want %q", got, want)
	}
	st, err := ReadStatus(filepath.Join(dir, "status.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range st.Parts {
		if p.State != Stopped || p.PID != 0 {
			t.Errorf("part %s = %+v, want stopped without a pid", p.Name, p)
		}
	}
}

func TestRunStartsAndStopsTheStagesOfPartsTogether(t *testing.T) {
	t.Setenv("LOCAL_TEST_ROLE", "good")
	dir := t.TempDir()
	each := stages(t, dir, "a", "b", "c", "d")
	s, err := New(config(dir), [][]Part{each[0], {each[1][0], each[2][0]}, each[3]}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.Run(ctx, t.Context(), func(context.Context) error { cancel(); return nil }); err != nil {
		t.Fatal(err)
	}
	got := journal(t, dir)
	slices.Sort(got[1:3])
	slices.Sort(got[5:7])
	if want := []string{"start:a", "start:b", "start:c", "start:d", "stop:d", "stop:b", "stop:c", "stop:a"}; !slices.Equal(got, want) {
		t.Errorf("journal = %v, want %v", got, want)
	}
}

func TestRunRestartsAPartThatIsKilled(t *testing.T) {
	t.Setenv("LOCAL_TEST_ROLE", "good")
	dir := t.TempDir()
	cfg := config(dir)
	s, err := New(cfg, stages(t, dir, "a", "b"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var first int
	err = s.Run(ctx, t.Context(), func(context.Context) error {
		st, err := ReadStatus(cfg.StatusFile)
		if err != nil {
			return err
		}
		b, _ := st.Part("b")
		first = b.PID
		if err := os.Remove(filepath.Join(dir, "b.ready")); err != nil {
			return err
		}
		if err := syscall.Kill(b.PID, syscall.SIGKILL); err != nil {
			return err
		}
		eventually(t, "b runs again", func() bool {
			st, err := ReadStatus(cfg.StatusFile)
			p, _ := st.Part("b")
			return err == nil && p.State == Running && p.PID != first && p.Restarts == 1
		})
		cancel()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(journal(t, dir), " "); got != "start:a start:b start:b stop:b stop:a" {
		t.Errorf("journal = %q", got)
	}
}

func TestRunReportsTheLastLineOfAPartThatCannotStart(t *testing.T) {
	t.Setenv("LOCAL_TEST_ROLE", "fails:b")
	dir := t.TempDir()
	s, err := New(config(dir), stages(t, dir, "a", "b", "c"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	err = s.Run(t.Context(), t.Context(), func(context.Context) error { t.Error("up was called"); return nil })
	if err == nil || !strings.Contains(err.Error(), "start b") || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("error = %v, want the part and its last line", err)
	}
	if got := strings.Join(journal(t, dir), " "); got != "start:a stop:a" {
		t.Errorf("journal = %q, want a stopped and c never started", got)
	}
}

func TestRunKillsAPartThatDoesNotDrain(t *testing.T) {
	for _, tc := range []struct {
		name string
		stop time.Duration
		kill bool
	}{
		{"after its deadline", 50 * time.Millisecond, false},
		{"at once on the second interrupt", time.Hour, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("LOCAL_TEST_ROLE", "hangs:a")
			dir := t.TempDir()
			ps := stages(t, dir, "a")
			ps[0][0].Stop = tc.stop
			s, err := New(config(dir), ps, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			kill, killNow := context.WithCancel(t.Context())
			defer killNow()
			var wg sync.WaitGroup
			if tc.kill {
				wg.Go(func() {
					eventually(t, "a was asked to stop", func() bool { return strings.Contains(strings.Join(journal(t, dir), " "), "ignore:a") })
					killNow()
				})
			}
			if err := s.Run(ctx, kill, func(context.Context) error { cancel(); return nil }); err != nil {
				t.Fatal(err)
			}
			wg.Wait()
		})
	}
}

func TestNewRefusesBadParts(t *testing.T) {
	ok := Part{Name: "a", Argv: []string{"x"}, Ready: func(context.Context) error { return nil }}
	for name, ps := range map[string][][]Part{
		"no name":        {{{Argv: ok.Argv, Ready: ok.Ready}}},
		"name twice":     {{ok}, {ok}},
		"no command":     {{{Name: "a", Ready: ok.Ready}}},
		"no ready check": {{{Name: "a", Argv: ok.Argv}}},
	} {
		if _, err := New(DefaultConfig(), ps, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
