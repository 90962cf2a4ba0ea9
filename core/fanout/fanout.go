// Package fanout carries stored messages to the processes where their recipients are
// connected, by Redis Pub/Sub, and keeps who is connected where (presence.go).
//
// A process subscribes to one channel for each user that is connected to it, and to those
// that all processes have: one push there serves all members of a group, named in it or,
// of a large one, by a version of its roster. Who publishes chooses by how many processes
// there are (Processes): with two of them, ten members are one push and not ten. Redis
// promises nothing (at most once), and nothing here tries to improve on that: a push
// is only a hint that arrives early. Whenever this package cannot know whether pushes
// were missed (after every subscription, first or renewed) it tells the [Receiver] to
// look into the store, and sessions also do so by a slow tick. So Redis may be down, or
// lose its memory, and messages come late, never lost, twice or out of order.
//
// On Redis 7 and Valkey channels are sharded (SSUBSCRIBE): a cluster carries a push
// through one shard instead of all. Channels are spread over a fixed number of hash
// tags, because one connection can subscribe only within one slot. Elsewhere plain
// Pub/Sub is used over one connection.
//
// One channel a node, and a directory of who is where, would need fewer subscriptions
// and lost: the directory is wrong whenever a node dies, and reading it costs a round
// trip for each message.
//
// Its callers are core/deliver (Publish), core/session (Subscribe) and core.Run.
package fanout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/core/presence"
	"github.com/tracegate/tracegate/mesh/tlsdial"
)

// Config says where Redis is.
type Config struct {
	Addrs    []string // one server, or some nodes of a cluster
	Cluster  bool     // Addrs are of a cluster; implied by more than one
	TLS      tlsdial.Config
	Username string
	Password string
	Prefix   string // of all keys and channels

	Queue       int           // pushes waiting to be published; beyond it they are dropped
	Timeout     time.Duration // of one round trip
	PresenceTTL time.Duration // a process that dies is seen as connected for so long
}

// DefaultConfig is Redis's own port on loopback.
func DefaultConfig() Config {
	return Config{
		Addrs: []string{"127.0.0.1:6379"}, Prefix: "tracegate", Queue: 8192,
		Timeout: time.Second, PresenceTTL: 30 * time.Second,
	}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	switch {
	case len(c.Addrs) == 0:
		return errors.New("addrs: name at least one")
	case c.Prefix == "" || strings.ContainsAny(c.Prefix, "{}"):
		return errors.New("prefix: must not be empty or contain braces")
	case c.Queue < 1:
		return errors.New("queue: must be at least 1")
	case c.Timeout < 10*time.Millisecond:
		return errors.New("timeout: must be at least 10ms")
	case c.PresenceTTL < 3*time.Second:
		return errors.New("presence_ttl: must be at least 3s")
	}
	if err := c.TLS.Validate(); err != nil {
		return fmt.Errorf("tls.%w", err)
	}
	return nil
}

// connect makes a client, which connects when it is first used.
func (c Config) connect() (redis.UniversalClient, error) {
	dial, err := tlsdial.Dial(c.TLS, c.Timeout)
	if err != nil {
		return nil, err
	}
	return redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: c.Addrs, IsClusterMode: c.Cluster, Username: c.Username, Password: c.Password,
		DialTimeout: c.Timeout, ReadTimeout: c.Timeout, WriteTimeout: c.Timeout, ContextTimeoutEnabled: true,
		MaxRetries: 1, DisableIdentity: true, Protocol: 2, Dialer: dial,
	}), nil
}

// Push is a stored entry on its way to one user; where User is empty, to Users wherever
// they are; where there are none, to all members of a group. One with Seq 0 is a signal:
// not stored anywhere, and to one user.
type Push struct {
	User         string   // id
	Users        []string // ids
	Version      int64    // of the group's roster, for the processes to know whom; not sent to one user
	Conversation string
	Seq          int64
	// Frame is what the user's connections are to be sent. Empty where it is not at
	// hand: then Seq is only a hint that there is something to read.
	Frame []byte
}

// Receiver is told what comes for the users of this process. Its methods must not
// block.
type Receiver interface {
	// Deliver is at most once and in no promised order. An empty frame is only a hint.
	Deliver(user, conversation string, seq int64, frame []byte)
	// Group is Deliver for all members of a group, as they are by a version of its roster.
	Group(conversation string, version, seq int64, frame []byte)
	// Signal passes on what is stored nowhere.
	Signal(user string, frame []byte)
	// CatchUp says that pushes for a user may have been missed until now.
	CatchUp(user string)
	// CatchUpAll says that pushes to groups may have been.
	CatchUpAll()
}

// slots is how many hash tags channels are spread over where they are sharded. It is a
// constant because all processes must agree on it.
const slots = 16

// Fanout is this process's part in it. Run it.
type Fanout struct {
	cfg     Config
	node    string
	client  redis.UniversalClient
	out     chan []Push
	queued  atomic.Int64 // pushes in out
	up      atomic.Int64 // links that work
	heard   atomic.Int64 // processes that the last push to all has reached, this one included
	sharded atomic.Bool
	ready   chan struct{} // closed when sharded is known
	changed chan string   // users who came or went; may lose some, presence is said again and again
	metrics metrics
	log     *slog.Logger

	clock *presence.Clock
	life  uint64 // of this process, in what it says of users

	mu    sync.Mutex
	users map[string]int      // wanted, with their connections here
	fewer map[string]struct{} // who have lost some since it was said
	links []*link
}

// New prepares a fan-out; node must be unique among processes. It connects in Run.
func New(cfg Config, node string, reg prometheus.Registerer, log *slog.Logger) (*Fanout, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("fanout config: %w", err)
	}
	client, err := cfg.connect()
	if err != nil {
		return nil, fmt.Errorf("new redis client: %w", err)
	}
	f := &Fanout{
		cfg: cfg, client: client, node: node, log: log, users: map[string]int{}, fewer: map[string]struct{}{}, clock: presence.NewClock(time.Now), ready: make(chan struct{}),
		out: make(chan []Push, cfg.Queue), changed: make(chan string, 1024),
	}
	// The client's own log knows no levels and repeats itself while a server is down;
	// what matters is logged and counted here. It is one for the whole program.
	redis.SetLogger(silence{})
	for i := range slots {
		f.links = append(f.links, &link{f: f, slot: i, wake: make(chan struct{}, 1)})
	}
	f.life = uint64(f.clock.Next())
	m, err := newMetrics(reg, f)
	if err != nil {
		return nil, fmt.Errorf("register fanout metrics: %w", err)
	}
	f.metrics = m
	return f, nil
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// Run publishes and receives until ctx is done, then publishes what still waits, for at
// most Timeout, and disconnects. Redis being down is no error.
func (f *Fanout) Run(ctx context.Context, to Receiver) error {
	defer f.client.Close() // nothing is lost by it
	if !f.detect(ctx) {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range f.links[:f.width()] {
		g.Go(func() error { l.run(ctx, to); return nil })
	}
	g.Go(func() error { f.publishLoop(ctx); return nil })
	g.Go(func() error { f.presenceLoop(ctx); return nil })
	return g.Wait()
}

// width is how many links there are.
func (f *Fanout) width() int {
	if f.sharded.Load() {
		return slots
	}
	return 1
}

// detect finds out whether the server knows sharded channels, and waits for a server
// that answers; false when ctx is done.
func (f *Fanout) detect(ctx context.Context) bool {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := f.client.SPublish(ctx, f.channel("probe", true), "").Err()
		unknown := err != nil && strings.Contains(strings.ToLower(err.Error()), "unknown command")
		if err == nil || unknown {
			f.sharded.Store(err == nil)
			close(f.ready)
			return true
		}
		if pause == 50*time.Millisecond {
			f.log.Warn("redis is not ready, messages reach other processes by the slow way", "addrs", f.cfg.Addrs, "error", err)
		}
		if !sleep(ctx, pause) {
			return false
		}
	}
}

// Healthy says whether pushes can be expected to arrive. While they cannot, sessions
// look into the store more often.
func (f *Fanout) Healthy() bool {
	select {
	case <-f.ready:
		return int(f.up.Load()) == f.width()
	default:
		return false
	}
}

// Processes is how many others a push to all has reached last; 0 before there was one.
func (f *Fanout) Processes() int { return int(max(0, f.heard.Load()-1)) }

// Subscribe makes pushes for a user arrive. It does not wait: CatchUp tells when the
// subscription stands.
func (f *Fanout) Subscribe(user string) {
	f.change(user, func() { f.users[user] = max(1, f.users[user]) })
}

// Unsubscribe ends it.
func (f *Fanout) Unsubscribe(user string) {
	f.change(user, func() { delete(f.users, user); f.fewer[user] = struct{}{} })
}

func (f *Fanout) change(user string, do func()) {
	f.mu.Lock()
	do()
	l := f.links[0]
	if f.sharded.Load() { // under the lock: a link that begins later sees all users
		l = f.links[slotOf(user)]
	}
	if l.todo != nil {
		l.todo[user] = struct{}{}
	}
	f.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	f.tell(user)
}

func slotOf(user string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(user))
	return int(h.Sum32() % slots)
}

// channel names a user's channel; the braces are Redis's hash tag.
func (f *Fanout) channel(user string, sharded bool) string {
	if sharded {
		return f.cfg.Prefix + ":{" + strconv.Itoa(slotOf(user)) + "}:user:" + user
	}
	return f.cfg.Prefix + ":user:" + user
}

// userOf is the inverse of channel.
func userOf(channel string) string {
	return channel[strings.LastIndex(channel, ":user:")+len(":user:"):]
}

// groups names the channel of a slot that all processes are subscribed to.
func (f *Fanout) groups(slot int, sharded bool) string {
	if sharded {
		return f.cfg.Prefix + ":{" + strconv.Itoa(slot) + "}:groups"
	}
	return f.cfg.Prefix + ":groups"
}

// channelOf is where a push is published.
func (f *Fanout) channelOf(p Push, sharded bool) string {
	if p.User == "" {
		return f.groups(slotOf(p.Conversation), sharded)
	}
	return f.channel(p.User, sharded)
}

// encode writes node, conversation and seq, and for a push to all processes the users, each
// behind a comma, or the version of the roster; each ended by NUL, before the frame.
func encode(node string, p Push) []byte {
	size := len(node) + len(p.Conversation) + len(p.Frame) + 40
	for _, u := range p.Users {
		size += len(u) + 1
	}
	b := make([]byte, 0, size)
	b = append(append(b, node...), 0)
	b = append(append(b, p.Conversation...), 0)
	b = append(strconv.AppendInt(b, p.Seq, 10), 0)
	switch {
	case p.User != "":
	case len(p.Users) > 0:
		for _, u := range p.Users {
			b = append(append(b, ','), u...)
		}
		b = append(b, 0)
	default:
		b = append(strconv.AppendInt(b, p.Version, 10), 0)
	}
	return append(b, p.Frame...)
}

// decode is the inverse; user is empty for a push to all processes.
func decode(user string, b []byte) (node string, p Push, ok bool) {
	parts := bytes.SplitN(b, []byte{0}, 4)
	if len(parts) != 4 {
		return "", p, false
	}
	p = Push{User: user, Conversation: string(parts[1]), Frame: parts[3]}
	var err error
	if p.Seq, err = strconv.ParseInt(string(parts[2]), 10, 64); err != nil || p.Seq < 0 || p.Seq == 0 && user == "" {
		return "", p, false
	}
	if user == "" {
		to, frame, ok := bytes.Cut(p.Frame, []byte{0})
		p.Frame = frame
		if users, named := strings.CutPrefix(string(to), ","); named && ok {
			p.Users = strings.Split(users, ",")
			return string(parts[0]), p, !slices.Contains(p.Users, "")
		}
		if p.Version, err = strconv.ParseInt(string(to), 10, 64); !ok || err != nil || p.Version < 1 {
			return "", p, false
		}
	}
	return string(parts[0]), p, true
}

// sleep is false when ctx was done first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
