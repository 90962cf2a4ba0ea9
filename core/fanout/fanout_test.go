package fanout_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/tracegate/tracegate/core/fanout"
	"github.com/tracegate/tracegate/core/fanout/embedded"
	"github.com/tracegate/tracegate/mesh/freeport"
)

// inbox is a Receiver that notes what comes.
type inbox struct {
	mu       sync.Mutex
	got      map[string][]string // by user
	caughtUp map[string]int
}

func (i *inbox) Deliver(user, conversation string, seq int64, frame []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.got[user] = append(i.got[user], fmt.Sprintf("%s/%d/%s", conversation, seq, frame))
}

func (i *inbox) CatchUp(user string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.caughtUp[user]++
}

// Group notes under "group".
func (i *inbox) Group(conversation string, version, seq int64, frame []byte) {
	i.Deliver("group", fmt.Sprintf("%s@%d", conversation, version), seq, frame)
}

func (i *inbox) Signal(user string, frame []byte) { i.Deliver(user, "signal", 0, frame) }

func (i *inbox) CatchUpAll() { i.CatchUp("all") }

func (i *inbox) of(user string) []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]string{}, i.got[user]...)
}

func (i *inbox) subscribed(user string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.caughtUp[user]
}

type node struct {
	*fanout.Fanout
	in   *inbox
	reg  *prometheus.Registry
	stop func()
}

func start(t testing.TB, cfg fanout.Config, name string) *node {
	t.Helper()
	return startSkewed(t, cfg, name, 0)
}

// startSkewed starts a process whose clock is wrong.
func startSkewed(t testing.TB, cfg fanout.Config, name string, skew time.Duration) *node {
	t.Helper()
	n := &node{in: &inbox{got: map[string][]string{}, caughtUp: map[string]int{}}, reg: prometheus.NewRegistry()}
	f, err := fanout.New(cfg, name, n.reg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	n.Fanout = f
	if skew != 0 {
		f.Skew(skew)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, n.in) }()
	var once sync.Once
	n.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(n.stop)
	return n
}

func (n *node) metric(t testing.TB, name string) float64 {
	t.Helper()
	families, err := n.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	want, label, _ := strings.Cut(name, "/")
	sum := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == want && (label == "" || m.GetLabel()[0].GetValue() == label) {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func push(user string, seq int64) fanout.Push {
	return fanout.Push{User: user, Conversation: "c", Seq: seq, Frame: []byte(`{"x":"\u0000"}`)}
}

func TestPushReachesTheUsersProcess(t *testing.T) {
	onEach(t, func(t *testing.T, cfg fanout.Config) {
		t.Helper()
		one, two := start(t, cfg, "n1"), start(t, cfg, "n2")
		users := []string{}
		for i := range 40 { // of all slots
			users = append(users, fmt.Sprintf("u%d", i))
			two.Subscribe(users[i])
		}
		one.Subscribe("u0")
		for _, u := range users {
			eventually(t, "subscribed", func() bool { return two.in.subscribed(u) > 0 })
		}
		eventually(t, "healthy", func() bool { return one.Healthy() && two.Healthy() })
		var want []string
		for seq := int64(1); seq <= 20; seq++ {
			batch := []fanout.Push{}
			for _, u := range users {
				batch = append(batch, push(u, seq))
			}
			one.Publish(batch)
			want = append(want, fmt.Sprintf(`c/%d/{"x":"\u0000"}`, seq))
		}
		for _, u := range users {
			eventually(t, "all pushes of "+u, func() bool { return len(two.in.of(u)) == 20 })
			if diff := cmp.Diff(want, two.in.of(u)); diff != "" {
				t.Errorf("%s: %s", u, diff)
			}
		}
		one.Publish([]fanout.Push{{User: "u3", Frame: []byte("typing")}})
		eventually(t, "the signal", func() bool { return slices.Contains(two.in.of("u3"), "signal/0/typing") })
		if got := one.in.of("u0"); len(got) != 0 {
			t.Errorf("a process got its own pushes: %v", got)
		}
		two.Unsubscribe("u1")
		seq := int64(20)
		eventually(t, "unsubscribed", func() bool {
			seq++
			one.Publish([]fanout.Push{push("u1", seq), push("u2", seq)})
			line := fmt.Sprintf(`c/%d/{"x":"\u0000"}`, seq)
			eventually(t, "the push to u2", func() bool { return slices.Contains(two.in.of("u2"), line) })
			return !slices.Contains(two.in.of("u1"), line)
		})
	})
}

// TestPushToAGroupReachesAllProcesses: one push a process, whoever is connected there.
func TestPushToAGroupReachesAllProcesses(t *testing.T) {
	onEach(t, func(t *testing.T, cfg fanout.Config) {
		one, two, three := start(t, cfg, "n1"), start(t, cfg, "n2"), start(t, cfg, "n3")
		eventually(t, "healthy", func() bool { return one.Healthy() && two.Healthy() && three.Healthy() })
		var want []string
		var batch []fanout.Push
		for i := range 40 { // of all slots
			p := fanout.Push{Conversation: fmt.Sprintf("g%d", i), Version: int64(i + 1), Seq: int64(i + 3), Frame: []byte("a\x00b")}
			batch = append(batch, p)
			want = append(want, fmt.Sprintf("g%d@%d/%d/a\x00b", i, i+1, i+3))
		}
		slices.Sort(want)
		one.Publish(batch)
		for _, n := range []*node{two, three} {
			eventually(t, "all pushes", func() bool { return len(n.in.of("group")) == len(want) })
			got := n.in.of("group")
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if n.in.subscribed("all") == 0 {
				t.Error("not told to catch up when the subscriptions stood")
			}
		}
		if got := one.in.of("group"); len(got) != 0 {
			t.Errorf("a process got its own pushes: %v", got)
		}
	})
}

// TestPushToNamedUsersReachesThemWhereverTheyAre: all processes get it, and who published
// knows from then on how many others there are.
func TestPushToNamedUsersReachesThemWhereverTheyAre(t *testing.T) {
	onEach(t, func(t *testing.T, cfg fanout.Config) {
		one, two, three := start(t, cfg, "n1"), start(t, cfg, "n2"), start(t, cfg, "n3")
		eventually(t, "healthy", func() bool { return one.Healthy() && two.Healthy() && three.Healthy() })
		if n := one.Processes(); n != 0 {
			t.Errorf("%d processes before the first push", n)
		}
		var batch []fanout.Push
		for i := range 40 { // of all slots
			batch = append(batch, fanout.Push{Users: []string{"ann", "bob"}, Conversation: fmt.Sprintf("g%d", i), Seq: 7, Frame: []byte("a\x00b")})
		}
		one.Publish(batch)
		for _, n := range []*node{two, three} {
			eventually(t, "all pushes", func() bool { return len(n.in.of("ann")) == len(batch) && len(n.in.of("bob")) == len(batch) })
		}
		eventually(t, "the others are counted", func() bool { return one.Processes() == 2 })
		three.stop()
		eventually(t, "one is gone", func() bool {
			one.Publish(batch[:1])
			return one.Processes() == 1
		})
		if got := one.in.of("ann"); len(got) != 0 {
			t.Errorf("a process got its own pushes: %v", got)
		}
	})
}

func TestPresence(t *testing.T) {
	onEach(t, func(t *testing.T, cfg fanout.Config) {
		one, two := start(t, cfg, "n1"), start(t, cfg, "n2")
		online := func(want int) func() bool {
			return func() bool { n, err := one.Online(t.Context(), "ann"); return err == nil && n == want }
		}
		eventually(t, "offline", online(0))
		one.Subscribe("ann")
		two.Subscribe("ann")
		eventually(t, "on two processes", online(2))
		one.Unsubscribe("ann")
		eventually(t, "on one", online(1))
		two.stop() // in order
		eventually(t, "offline again", online(0))
	})
}

// TestUserWhoIsBackAtOnce: a user comes back before the answer to the end of the
// subscription is read. That answer is no reason to connect to Redis anew.
func TestUserWhoIsBackAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, cfg fanout.Config) {
		cfg.Timeout = 30 * time.Second // a busy machine
		one, two := start(t, cfg, "n1"), start(t, cfg, "n2")
		eventually(t, "healthy", func() bool { return one.Healthy() && two.Healthy() })
		one.Subscribe("ann")
		eventually(t, "subscribed", func() bool { return one.in.subscribed("ann") == 1 })
		one.in.mu.Lock() // what is read waits here, from this push on
		two.Publish([]fanout.Push{push("ann", 1)})
		eventually(t, "published", func() bool { return two.metric(t, "core_fanout_published_total") == 1 })
		one.Unsubscribe("ann")
		eventually(t, "unsubscribed", func() bool { return two.Reaches(t.Context(), "ann") == 0 })
		one.Subscribe("ann")
		one.in.mu.Unlock()
		eventually(t, "subscribed again", func() bool { return one.in.subscribed("ann") == 2 })
		two.Publish([]fanout.Push{push("ann", 2)})
		eventually(t, "both pushes", func() bool { return len(one.in.of("ann")) == 2 })
		if n := one.metric(t, "core_fanout_reconnects_total"); n != 0 {
			t.Errorf("%v connections to Redis broke", n)
		}
	})
}

func TestRedisComesBack(t *testing.T) {
	restart := map[string]func(t *testing.T) (addr string, stop func(), again func()){
		"embedded": func(t *testing.T) (string, func(), func()) {
			addr, stop := startEmbedded(t, freeport.ForTest(t))
			return addr, stop, func() { startEmbedded(t, addr) }
		},
		"redis": func(t *testing.T) (string, func(), func()) {
			port, err := freeport.Row("127.0.0.1", 1, 1)
			if err != nil {
				t.Fatal(err)
			}
			stop, addr := startRedis(t, port)
			return addr, stop, func() { startRedis(t, port) }
		},
	}
	for name, begin := range restart {
		t.Run(name, func(t *testing.T) {
			addr, stop, again := begin(t)
			cfg := config(addr)
			cfg.Timeout = 200 * time.Millisecond
			one, two := start(t, cfg, "n1"), start(t, cfg, "n2")
			two.Subscribe("ann")
			eventually(t, "both are there", func() bool { return two.in.subscribed("ann") == 1 && one.Healthy() })
			stop()
			eventually(t, "not healthy", func() bool { return !two.Healthy() })
			one.Publish([]fanout.Push{push("ann", 1)})
			eventually(t, "dropped and counted", func() bool { return one.metric(t, "core_fanout_dropped_total/error") == 1 })
			again()
			// the new subscription says that pushes may have been missed
			eventually(t, "told to catch up", func() bool { return two.in.subscribed("ann") == 2 && two.Healthy() })
			one.Publish([]fanout.Push{push("ann", 2)})
			eventually(t, "pushes again", func() bool { return len(two.in.of("ann")) == 1 })
		})
	}
}

func TestStartsWithoutRedis(t *testing.T) {
	addr, stop := startEmbedded(t, freeport.ForTest(t))
	stop()
	n := start(t, config(addr), "n1")
	n.Subscribe("ann")
	if n.Healthy() {
		t.Error("healthy without a server")
	}
	startEmbedded(t, addr)
	eventually(t, "subscribed", func() bool { return n.in.subscribed("ann") == 1 && n.Healthy() })
}

func TestFullQueueDropsAndCounts(t *testing.T) {
	addr, stop := startEmbedded(t, freeport.ForTest(t))
	stop()
	cfg := config(addr)
	cfg.Queue = 10
	n := start(t, cfg, "n1")
	for range 4 {
		n.Publish([]fanout.Push{push("a", 1), push("a", 2), push("a", 3)})
	}
	if got := n.metric(t, "core_fanout_dropped_total/full"); got != 3 {
		t.Errorf("%v dropped", got)
	}
}

func TestGarbageIsCounted(t *testing.T) {
	addr, _ := startEmbedded(t, freeport.ForTest(t))
	n := start(t, config(addr), "n1")
	n.Subscribe("ann")
	eventually(t, "subscribed", func() bool { return n.in.subscribed("ann") == 1 })
	client := redis.NewClient(&redis.Options{Addr: addr, Password: password})
	defer client.Close()
	for _, text := range []string{"", "x", "n\x00c\x00x\x00f", "n\x00c\x00-1\x00f", "n\x00c\x00\x00f"} {
		if err := client.Publish(t.Context(), "tracegate:user:ann", text).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"n\x00g\x001\x00", "n\x00g\x001\x00x\x00f", "n\x00g\x000\x001\x00f"} {
		if err := client.Publish(t.Context(), "tracegate:groups", text).Err(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all seen", func() bool { return n.metric(t, "core_fanout_received_total/garbage") == 8 })
	if got := n.in.of("ann"); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestConfigNamesTheKey(t *testing.T) {
	for want, edit := range map[string]func(*fanout.Config){
		"addrs":        func(c *fanout.Config) { c.Addrs = nil },
		"prefix":       func(c *fanout.Config) { c.Prefix = "{x}" },
		"queue":        func(c *fanout.Config) { c.Queue = 0 },
		"timeout":      func(c *fanout.Config) { c.Timeout = 0 },
		"presence_ttl": func(c *fanout.Config) { c.PresenceTTL = 0 },
		"tls.enabled":  func(c *fanout.Config) { c.TLS.CAFile = "ca.crt" },
	} {
		cfg := fanout.DefaultConfig()
		edit(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), want+":") {
			t.Errorf("want %s, got %v", want, err)
		}
	}
	for _, c := range []embedded.Config{{Listen: "0.0.0.0:6379", Password: "x"}, {Listen: "127.0.0.1:6379"}, {Listen: "x", Password: "x"}} {
		if c.Validate() == nil {
			t.Errorf("%+v is valid", c)
		}
	}
}

func BenchmarkPublish(b *testing.B) {
	addr, _ := startEmbedded(b, freeport.ForTest(b))
	n := start(b, config(addr), "n1")
	eventually(b, "healthy", n.Healthy)
	b.ReportAllocs()
	for b.Loop() {
		n.Publish([]fanout.Push{push("ann", 1), push("bob", 1)})
	}
}

// FuzzPush: whatever text comes on a channel, it is a push or it is counted.
func FuzzPush(f *testing.F) {
	f.Add("ann", "n1\x00c\x007\x00{}")
	f.Add("", "n1\x00c\x007\x003\x00{}")
	f.Add("", "n1\x00c\x007\x00,ann,bob\x00{}")
	f.Add("", "n1\x00c\x007\x00,ann,\x00{}")
	f.Add("", "n1\x00c\x007\x00")
	f.Fuzz(func(t *testing.T, user, text string) { fanout.CheckCodec(t, user, []byte(text)) })
}
