package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// served notes what edges were told, in the journal of processes, and may refuse.
type served struct {
	mu    sync.Mutex
	addrs []string
	err   error
}

func (s *served) set(dir string) func([]string) error {
	return func(addrs []string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.err != nil {
			return s.err
		}
		s.addrs = slices.Clone(addrs)
		note(dir, fmt.Sprintf("serve %d", len(addrs)))
		return nil
	}
}

func (s *served) is(addrs ...string) func() bool {
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		slices.Sort(s.addrs)
		return slices.Equal(s.addrs, addrs)
	}
}

func (s *served) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// TestFleet grows, shrinks by the process with the fewest connections, which leaves edges
// before it ends, and ends with the rest.
func TestFleet(t *testing.T) {
	t.Setenv("LOCAL_TEST_ROLE", "part")
	dir := t.TempDir()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := New(config(dir), stages(t, dir, "first"), log)
	if err != nil {
		t.Fatal(err)
	}
	var want atomic.Int64
	want.Store(1)
	var edges served
	f := Fleet{
		Fixed: []string{"first"}, Serve: edges.set(dir), Leave: time.Millisecond, Log: log,
		Want: func(context.Context, int) int { return int(want.Load()) },
		Make: func(n int) (Instance, error) {
			name := fmt.Sprintf("more-%d", n)
			connections := map[string]float64{"more-0": 7, "more-1": 3, "more-2": 5}[name]
			return Instance{
				Part: stages(t, dir, name)[0][0], Addr: name,
				Connections: func(context.Context) (float64, error) { return connections, nil },
			}, nil
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- s.Run(ctx, context.WithoutCancel(ctx), func(ctx context.Context) error { return f.Run(ctx, context.WithoutCancel(ctx), s) })
	}()
	want.Store(4)
	eventually(t, "three more serve", edges.is("first", "more-0", "more-1", "more-2"))
	for _, p := range mustStatus(t, dir).Parts {
		if p.State != Running {
			t.Errorf("%s serves and is %s", p.Name, p.State)
		}
	}
	want.Store(3)
	eventually(t, "the one with the fewest connections is out", edges.is("first", "more-0", "more-2"))
	eventually(t, "it has ended", func() bool { return slices.Contains(journal(t, dir), "stop:more-1") })
	j := journal(t, dir)
	if out := slices.Index(j[slices.Index(j, "serve:4"):], "serve:3"); out < 0 || slices.Index(j, "stop:more-1") < slices.Index(j, "serve:4")+out {
		t.Errorf("it ended before edges were told: %q", j)
	}
	eventually(t, "status forgets it", func() bool { _, there := mustStatus(t, dir).Part("more-1"); return !there })

	edges.fail(errors.New("disk is full"))
	want.Store(1)
	eventually(t, "asked again and again", func() bool { return slices.Contains(journal(t, dir), "start:more-2") })
	edges.fail(nil)
	eventually(t, "only the first is left", edges.is("first"))
	eventually(t, "the others have ended", func() bool {
		j := journal(t, dir)
		return slices.Contains(j, "stop:more-0") && slices.Contains(j, "stop:more-2")
	})
	want.Store(2)
	eventually(t, "one more", edges.is("first", "more-3"))
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	j = journal(t, dir)
	if !slices.Contains(j, "stop:more-3") || slices.Index(j, "stop:more-3") > slices.Index(j, "stop:first") {
		t.Errorf("processes that were started later must end first: %q", j)
	}
}

func mustStatus(t *testing.T, dir string) Status {
	t.Helper()
	st, err := ReadStatus(config(dir).StatusFile)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestLaunchThatFails leaves nothing behind.
func TestLaunchThatFails(t *testing.T) {
	t.Setenv("LOCAL_TEST_ROLE", "fails:bad")
	dir := t.TempDir()
	s, err := New(config(dir), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	bad := stages(t, dir, "bad")[0][0]
	if _, err := s.Launch(t.Context(), t.Context(), bad); err == nil {
		t.Fatal("it started")
	}
	if _, there := mustStatus(t, dir).Part("bad"); there {
		t.Error("status still has it")
	}
	if _, err := s.Launch(t.Context(), t.Context(), Part{Name: "x", Argv: []string{os.Args[0]}}); !errors.Is(err, errTaken) {
		t.Error(err)
	}
}
