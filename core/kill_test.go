package core_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/protocol"
)

// fleet is processes that are killed and started again.
type fleet struct {
	w     *world
	mu    sync.RWMutex
	nodes []*node
}

func (f *fleet) pick(r *rand.Rand) *node {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.nodes[r.IntN(len(f.nodes))]
}

// kill kills one with -9 and starts it again under the same name.
func (f *fleet) kill(i int, pool string) {
	f.mu.RLock()
	old := f.nodes[i]
	f.mu.RUnlock()
	old.stop()
	fresh := f.w.spawn(f.w.config(pool))
	f.mu.Lock()
	f.nodes[i] = fresh
	f.mu.Unlock()
}

// TestKilledProcessesLoseNothing kills processes with -9 while users send and receive
// by REST and WebSocket. What was accepted must come exactly once, in the same order
// for all, and in the order in which its sender sent it. The seed is printed and can be
// set again by TRACEGATE_TEST_SEED, the number of kills by TRACEGATE_TEST_KILLS.
func TestKilledProcessesLoseNothing(t *testing.T) {
	seed, kills := uint64(time.Now().UnixNano()), 4
	if s, err := strconv.ParseUint(os.Getenv("TRACEGATE_TEST_SEED"), 10, 64); err == nil {
		seed = s
	}
	if k, err := strconv.Atoi(os.Getenv("TRACEGATE_TEST_KILLS")); err == nil {
		kills = k
	}
	t.Logf("seed %d, %d kills", seed, kills)
	w := newWorld(t)
	pools := []string{"baseline", "canary", "isolated"}
	f := &fleet{w: w}
	for _, p := range pools {
		f.nodes = append(f.nodes, w.spawn(w.config(p)))
	}
	const pairs = 3
	var users [2 * pairs]string
	var ids [pairs]string
	for i := range users {
		users[i] = f.nodes[0].person(fmt.Sprintf("user%d", i))
	}
	for i := range ids {
		ids[i] = f.nodes[0].direct(users[2*i], fmt.Sprintf("user%d", 2*i+1))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	accepted := make([]int, len(users)) // each sends 0, 1, 2, ... until stop
	all := make([]*seen, len(users))
	for i, bearer := range users {
		all[i] = newSeen()
		all[i].positions[ids[i/2]] = 0 // from the first message on
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() { accepted[i] = f.chat(t, r, bearer, ids[i/2], i, all[i], stop) })
	}
	r := rand.New(rand.NewPCG(seed, 99))
	for range kills {
		pair := r.IntN(pairs) // kill after some progress
		all[2*pair].wait(t, ids[pair], all[2*pair].count(ids[pair])+r.IntN(100))
		i := r.IntN(len(pools))
		f.kill(i, pools[i])
	}
	close(stop)
	wg.Wait()
	sent := 0
	for i, id := range ids {
		a, b := 2*i, 2*i+1
		want := accepted[a] + accepted[b]
		sent += want
		// whoever is still behind gets the rest on a last connection
		for _, u := range []int{a, b} {
			if all[u].count(id) < want {
				c, _ := f.nodes[0].connect(users[u], all[u])
				all[u].wait(t, id, want)
				_ = c.ws.Close()
			}
		}
		if diff := cmp.Diff(all[a].ids[id], all[b].ids[id]); diff != "" {
			t.Errorf("the two saw different messages: %s", diff)
		}
		next := map[string]int{}
		for _, cid := range all[a].ids[id] {
			var from string
			var n int
			_, err := fmt.Sscanf(cid, "u%1s-%d", &from, &n)
			must(t, err)
			if n != next[from] {
				t.Fatalf("from user %s: message %d where %d was next", from, n, next[from])
			}
			next[from]++
		}
		if got := len(all[a].ids[id]); got != want {
			t.Errorf("%d messages received, %d accepted", got, want)
		}
	}
	t.Logf("%d messages", sent)
	if sent < 50 {
		t.Errorf("only %d messages: this was no test", sent)
	}
}

// chat keeps a user connected somewhere, sends one message after the other, each until
// it is accepted, and returns how many were.
func (f *fleet) chat(t *testing.T, r *rand.Rand, bearer, conversation string, user int, s *seen, stop <-chan struct{}) int {
	t.Helper()
	var c *socket
	defer func() {
		if c != nil {
			_ = c.ws.Close()
			<-c.closed // nothing is taken after this
		}
	}()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return n
		default:
		}
		id := fmt.Sprintf("u%d-%d", user, n)
		for {
			c = f.stayConnected(t, r, bearer, s, c)
			var err error
			if r.IntN(2) == 0 && c != nil {
				err = c.send(conversation, id)
			} else {
				err = f.pick(r).send(bearer, conversation, id)
			}
			if err == nil {
				break
			}
			if pe, ok := errors.AsType[*protocol.Error](err); ok && !pe.Temporary {
				t.Errorf("send: %v", err)
				return n
			}
		}
	}
}

// stayConnected returns a live connection, or nil when none is to be had.
func (f *fleet) stayConnected(t *testing.T, r *rand.Rand, bearer string, s *seen, c *socket) *socket {
	t.Helper()
	if c != nil {
		select {
		case <-c.closed:
		default:
			return c
		}
	}
	c, err := f.pick(r).tryOpen(bearer, s, nil)
	if err != nil {
		return nil
	}
	got, err := c.tryResume()
	if err != nil {
		_ = c.ws.Close()
		<-c.closed
		return nil
	}
	if !got.Recovered {
		t.Error("not recovered")
	}
	return c
}
