package source

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/source/etcdtest"
	"github.com/tracegate/tracegate/mesh/discovery"
)

// TestRegistry: processes come, stop, are killed; etcd is killed and comes back without
// their leases; nobody is left.
func TestRegistry(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	log := slog.New(slog.DiscardHandler)
	updates := make(chan Update[policy.Endpoints])
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	r := Registry{Etcd: EtcdPrefix{Client: server.Client(), Prefix: "/discovery", Retry: 20 * time.Millisecond, Log: log}, Grace: 20 * time.Second}
	go func() { done <- r.Run(ctx, updates) }()

	register := func(pool, addr string) (stop, kill func()) {
		client := server.Client()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = discovery.Registration{
				Client: client, Prefix: "/discovery", Service: "core", Pool: pool, Addr: addr, TTL: 2 * time.Second, Retry: 20 * time.Millisecond, Log: log,
			}.Run(ctx)
		}()
		stop = func() { cancel(); <-ended }
		t.Cleanup(stop)
		return stop, func() { client.Close(); stop() } // as if killed: nothing is said to etcd any more
	}
	// until waits for an update that says so, and returns how long that took.
	until := func(what string, lost bool, want ...string) time.Duration {
		t.Helper()
		begun, last := time.Now(), ""
		for {
			select {
			case u := <-updates:
				var all []string
				for pool, addrs := range u.Value.Services["core"] {
					for _, a := range addrs {
						all = append(all, pool+" "+a)
					}
				}
				slices.Sort(all)
				if last = fmt.Sprint(all, u.Lost, u.Err); u.Err == nil && slices.Equal(all, want) && (len(u.Lost) > 0) == lost {
					return time.Since(begun)
				}
			case <-time.After(time.Minute):
				t.Fatalf("%s: want %v, last %s", what, want, last)
			}
		}
	}
	stopA, _ := register("baseline", "127.0.0.1:1")
	until("one", false, "baseline 127.0.0.1:1")
	_, killB := register("baseline", "127.0.0.1:2")
	until("two", false, "baseline 127.0.0.1:1", "baseline 127.0.0.1:2")
	client := server.Client()
	for _, bad := range []string{"/discovery/core/baseline/nonsense", "/discovery/core", "/discovery/core/baseline/127.0.0.1:9/x"} {
		if _, err := client.Put(t.Context(), bad, ""); err != nil {
			t.Fatal(err)
		}
	}
	register("canary", "127.0.0.1:3")
	until("three, and what is no address is left out", false, "baseline 127.0.0.1:1", "baseline 127.0.0.1:2", "canary 127.0.0.1:3")
	go killB() // it waits for its own end
	t.Log("a killed one is gone after", until("killed", false, "baseline 127.0.0.1:1", "canary 127.0.0.1:3"))
	go stopA()
	t.Log("one that stops is gone after", until("stopped", false, "canary 127.0.0.1:3"))

	server.Stop()
	until("etcd is away", true, "canary 127.0.0.1:3")
	server.Start()
	if all, err := client.Leases(t.Context()); err == nil {
		for _, l := range all.Leases { // it has forgotten who was there
			_, _ = client.Revoke(t.Context(), l.ID)
		}
	}
	until("etcd is back", false, "canary 127.0.0.1:3")
	stopD, _ := register("canary", "127.0.0.1:4")
	until("and is followed", false, "canary 127.0.0.1:3", "canary 127.0.0.1:4")
	stopD()
	until("the one before has registered again", false, "canary 127.0.0.1:3")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestNobodyIsRegistered: the last ones stay, and it is said.
func TestNobodyIsRegistered(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	client := server.Client()
	updates := make(chan Update[policy.Endpoints])
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	r := Registry{Etcd: EtcdPrefix{Client: server.Client(), Prefix: "/d", Retry: 20 * time.Millisecond, Log: slog.New(slog.DiscardHandler)}, Grace: time.Second}
	go func() { done <- r.Run(ctx, updates) }()
	if _, err := client.Put(t.Context(), "/d/core/baseline/127.0.0.1:1", ""); err != nil {
		t.Fatal(err)
	}
	if u := <-updates; u.Err != nil || len(u.Lost) > 0 || len(u.Value.Services["core"]["baseline"]) != 1 {
		t.Errorf("%+v", u)
	}
	if _, err := client.Delete(t.Context(), "/d/core/baseline/127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	if u := <-updates; u.Err != nil || len(u.Lost) != 1 || len(u.Value.Services["core"]["baseline"]) != 1 {
		t.Errorf("%+v", u)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
