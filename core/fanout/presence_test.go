package fanout_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tracegate/tracegate/core/fanout"
	"github.com/tracegate/tracegate/core/presence"
	"github.com/tracegate/tracegate/mesh/freeport"
)

// TestPresenceOfTheDeadEnds: a process that is gone without a word is forgotten with its
// lease, and all of it with the state.
func TestPresenceOfTheDeadEnds(t *testing.T) {
	onEach(t, func(t *testing.T, cfg fanout.Config) {
		one := start(t, cfg, "n1")
		one.Subscribe("ann")
		online := func(want int) func() bool {
			return func() bool { n, err := one.Online(t.Context(), "ann"); return err == nil && n == want }
		}
		eventually(t, "online", online(1))
		dead := presence.Element{Online: true, Stamp: presence.At(time.Now()), Life: 7}
		if _, err := one.Merge(t.Context(), "ann", "dead", dead); err != nil {
			t.Fatal(err)
		}
		eventually(t, "two", online(2))
		eventually(t, "only the living", online(1))
		if ttl := client(t, cfg).PTTL(t.Context(), cfg.Prefix+":user:{ann}:state").Val(); ttl <= 0 || ttl > 10*cfg.PresenceTTL {
			t.Errorf("the state ends in %v", ttl)
		}
	})
}

func client(t *testing.T, cfg fanout.Config) redis.UniversalClient {
	t.Helper()
	c := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: cfg.Addrs, Password: cfg.Password})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestServerMergesAsTheSetDoes: the script and the pure merge agree, whatever comes in
// whichever order, also twice.
func TestServerMergesAsTheSetDoes(t *testing.T) {
	onEach(t, func(t *testing.T, cfg fanout.Config) {
		f := start(t, cfg, "n1")
		r := rand.New(rand.NewPCG(1, 2))
		for round := range 20 {
			user := fmt.Sprint("user", round)
			want := presence.Set{}
			for range 15 {
				node := fmt.Sprint("n", r.IntN(3))
				e := presence.Element{Online: r.IntN(2) == 0, Stamp: presence.Stamp(r.IntN(3)) << 40, Life: uint64(r.IntN(2))}
				want.Put(node, e)
				holds, err := f.Merge(t.Context(), user, node, e)
				if err != nil {
					t.Fatal(err)
				}
				if holds != want[node] {
					t.Fatalf("%v in %s: the server says %v, the set %v", e, node, holds, want[node])
				}
			}
			if got, err := f.State(t.Context(), user); err != nil || !maps.Equal(got, want) {
				t.Errorf("%v: %v, want %v", err, got, want)
			}
		}
	})
}

// TestClockThatIsBehind: a process starts again where the clock is ten seconds behind that
// of its life before (five behind and five ahead). What it says holds at once.
func TestClockThatIsBehind(t *testing.T) {
	onEach(t, func(t *testing.T, cfg fanout.Config) {
		watcher := start(t, cfg, "watcher")
		online := func(want int) func() bool {
			return func() bool { n, err := watcher.Online(t.Context(), "ann"); return err == nil && n == want }
		}
		ahead := startSkewed(t, cfg, "n1", 5*time.Second)
		ahead.Subscribe("ann")
		eventually(t, "online by the fast clock", online(1))
		ahead.stop()
		eventually(t, "offline by the fast clock", online(0))
		behind := startSkewed(t, cfg, "n1", -5*time.Second)
		begin := time.Now()
		behind.Subscribe("ann")
		eventually(t, "online by the slow clock", online(1))
		if took := time.Since(begin); took > 9*time.Second {
			t.Errorf("it took %v, as long as the clocks are apart", took)
		}
		behind.Unsubscribe("ann")
		eventually(t, "offline by the slow clock", online(0))
	})
}

// TestServerForgetsScripts: as it does when it starts again.
func TestServerForgetsScripts(t *testing.T) {
	addr, _ := startEmbedded(t, freeport.ForTest(t))
	cfg := config(addr)
	f := start(t, cfg, "n1")
	for i := range 3 {
		if err := client(t, cfg).ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		user := fmt.Sprint("user", i)
		f.Subscribe(user)
		eventually(t, "online", func() bool { n, err := f.Online(t.Context(), user); return err == nil && n == 1 })
	}
}

// TestClockThatWasFarAhead: a process starts again after its clock has been set back by an
// hour, while the user is on another one too, so that what is written of it never ends. What
// it says holds all the same.
func TestClockThatWasFarAhead(t *testing.T) {
	onEach(t, func(t *testing.T, cfg fanout.Config) {
		other := start(t, cfg, "other")
		other.Subscribe("ann")
		online := func(want int) func() bool {
			return func() bool { n, err := other.Online(t.Context(), "ann"); return err == nil && n == want }
		}
		ahead := startSkewed(t, cfg, "n1", time.Hour)
		ahead.Subscribe("ann")
		eventually(t, "on both", online(2))
		ahead.stop()
		eventually(t, "on the other", online(1))
		right := start(t, cfg, "n1")
		right.Subscribe("ann")
		eventually(t, "on both again", online(2))
	})
}

// TestProcessesOfThePastAreForgotten: a user who is always there does not keep something of
// every process that ever was. What has been said lately stays, as it may be in order.
func TestProcessesOfThePastAreForgotten(t *testing.T) {
	onEach(t, func(t *testing.T, cfg fanout.Config) {
		state, sockets := cfg.Prefix+":user:{ann}:state", cfg.Prefix+":user:{ann}:sockets"
		c := client(t, cfg)
		past, lately := presence.At(time.Now().Add(-time.Hour)), presence.At(time.Now())
		for node, e := range map[string]presence.Element{"left": {Stamp: past, Life: 1}, "died": {Online: true, Stamp: past, Life: 2}, "leaves": {Stamp: lately, Life: 3}} {
			if err := c.HSet(t.Context(), state, node, e.String()).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.HSet(t.Context(), sockets, "died", 5).Err(); err != nil {
			t.Fatal(err)
		}
		f := start(t, cfg, "n1")
		eventually(t, "healthy", f.Healthy)
		f.Subscribe("ann")
		eventually(t, "the state has who is there", func() bool {
			set, err := f.State(t.Context(), "ann")
			return err == nil && slices.Equal(slices.Sorted(maps.Keys(set)), []string{"leaves", "n1"})
		})
		eventually(t, "and who is counted", func() bool {
			f.Claim(t.Context(), "ann", 1, 10)
			return maps.Equal(c.HGetAll(t.Context(), sockets).Val(), map[string]string{"n1": "1"})
		})
	})
}

// TestClaimsComeInAnyOrder: of claims at once, one for fewer connections comes last. It does
// not hide the others from other processes, and who has gone is not counted for long.
func TestClaimsComeInAnyOrder(t *testing.T) {
	onEach(t, func(t *testing.T, cfg fanout.Config) {
		cfg.Timeout, cfg.PresenceTTL = 30*time.Second, time.Minute
		one, two := start(t, cfg, "n1"), start(t, cfg, "n2")
		eventually(t, "healthy", func() bool { return one.Healthy() && two.Healthy() })
		for _, mine := range []int{3, 1, 2} {
			if !one.Claim(t.Context(), "ann", mine, 4) {
				t.Fatalf("no room for %d", mine)
			}
		}
		if two.Claim(t.Context(), "ann", 2, 4) || !two.Claim(t.Context(), "ann", 1, 4) {
			t.Error("not three are counted")
		}
		one.Subscribe("ann")
		one.Seated("ann", 3)
		one.Unsubscribe("ann")
		one.Subscribe("ann") // one is back at once
		eventually(t, "only one is counted", func() bool { return two.Claim(t.Context(), "ann", 3, 4) })
	})
}

// TestClaimCountsAllProcesses: many ask at once on several processes, and exactly as many
// get in as may.
func TestClaimCountsAllProcesses(t *testing.T) {
	onEach(t, func(t *testing.T, cfg fanout.Config) {
		const limit = 10
		cfg.Timeout = 30 * time.Second // a busy machine: who does not answer lets all in
		nodes := []*node{start(t, cfg, "n1"), start(t, cfg, "n2"), start(t, cfg, "n3")}
		for _, n := range nodes {
			eventually(t, "healthy", n.Healthy)
		}
		var in atomic.Int32
		var wg sync.WaitGroup
		for _, n := range nodes {
			wg.Go(func() {
				for mine := 1; mine <= limit && n.Claim(t.Context(), "ann", mine, limit); mine++ {
					in.Add(1)
					if mine == 1 {
						n.Subscribe("ann")
					} else {
						n.Seated("ann", mine)
					}
				}
			})
		}
		wg.Wait()
		if got := in.Load(); got != limit {
			t.Errorf("%d got in, limit %d", got, limit)
		}
		for _, n := range nodes[:2] {
			n.Unsubscribe("ann")
		}
		eventually(t, "room again", func() bool { return nodes[0].Claim(t.Context(), "ann", 1, limit) })
	})
}

func TestClaimWithoutRedis(t *testing.T) {
	addr, stop := startEmbedded(t, freeport.ForTest(t))
	f := start(t, config(addr), "n1")
	eventually(t, "healthy", f.Healthy)
	stop()
	begin := time.Now()
	if !f.Claim(t.Context(), "ann", 100, 10) {
		t.Error("nobody gets in without redis")
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("a new connection waits for %v", took)
	}
}
