package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/source/etcdtest"
	"github.com/tracegate/tracegate/mesh/freeport"
)

// TestFollow goes through what an address may answer, and wants what is said of it.
func TestFollow(t *testing.T) {
	t.Parallel()
	refused := fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	for name, tt := range map[string]struct {
		answers []error // nil: a connection, which the other side ends after a second
		want    string
	}{
		"serves":                  {[]error{nil, nil, nil}, ""},
		"is killed":               {[]error{nil, refused, refused, refused}, "gone"},
		"is started again":        {[]error{nil, refused, refused, nil, refused, refused}, "gone back gone"},
		"refuses once":            {[]error{nil, refused, nil, refused}, ""},
		"was never reached":       {[]error{refused, refused, refused}, ""},
		"is not reached any more": {[]error{nil, errors.New("no route"), context.DeadlineExceeded, errors.New("no route")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				var said []string
				n := 0
				follow(ctx, redial, func(context.Context) (net.Conn, error) {
					if n++; n > len(tt.answers) {
						cancel()
						return nil, ctx.Err()
					}
					if err := tt.answers[n-1]; err != nil {
						return nil, err
					}
					near, far := net.Pipe()
					time.AfterFunc(time.Second, func() { far.Close() })
					return near, nil
				}, func(gone bool) { said = append(said, map[bool]string{true: "gone", false: "back"}[gone]) })
				if got := strings.Join(said, " "); got != tt.want {
					t.Errorf("said %q, want %q", got, tt.want)
				}
			})
		})
	}
}

// process listens, and serves nobody.
type process struct {
	net.Listener
	conns chan net.Conn
}

func startProcess(t *testing.T, addr string) *process {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{l, make(chan net.Conn, 100)}
	go func() {
		defer close(p.conns)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.conns <- c
		}
	}()
	t.Cleanup(p.kill)
	return p
}

// kill ends it as the kernel does.
func (p *process) kill() {
	p.Close()
	for c := range p.conns {
		c.Close()
	}
}

// TestKilledProcessLeaves before its lease, which lasts ten minutes here, and is back where
// another takes its place; of a pool in which nobody is left all stay.
func TestKilledProcessLeaves(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	client := server.Client()
	updates := make(chan Update[policy.Endpoints])
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	r := Registry{
		Etcd:  EtcdPrefix{Client: server.Client(), Prefix: "/d", Retry: 20 * time.Millisecond, Log: slog.New(slog.DiscardHandler)},
		Grace: time.Minute, Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		},
	}
	go func() { done <- r.Run(ctx, updates) }()
	until := func(what string, want ...string) {
		t.Helper()
		slices.Sort(want)
		begun := time.Now()
		for {
			select {
			case u := <-updates:
				got := slices.Sorted(slices.Values(u.Value.Services["core"]["baseline"]))
				if u.Err == nil && len(u.Lost) == 0 && slices.Equal(got, want) {
					t.Logf("%s after %v", what, time.Since(begun).Round(time.Millisecond))
					return
				}
			case <-time.After(time.Minute):
				t.Fatalf("%s: no update with %v", what, want)
			}
		}
	}
	a, b := startProcess(t, freeport.ForTest(t)), startProcess(t, freeport.ForTest(t))
	addrA, addrB := a.Addr().String(), b.Addr().String()
	for _, addr := range []string{addrA, addrB} {
		if _, err := client.Put(t.Context(), "/d/core/baseline/"+addr, ""); err != nil {
			t.Fatal(err)
		}
	}
	until("both are there", addrA, addrB)
	for _, p := range []*process{a, b} { // both are watched
		p.conns <- <-p.conns
	}
	b.kill()
	until("the killed one has left", addrA)
	b = startProcess(t, addrB)
	until("it is back", addrA, addrB)
	b.conns <- <-b.conns
	b.kill()
	until("it has left again", addrA)
	a.kill()
	until("with nobody left all stay", addrA, addrB)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
