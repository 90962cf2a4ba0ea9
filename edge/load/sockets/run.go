package sockets

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/client"
	"github.com/tracegate/tracegate/edge/load"
	"github.com/tracegate/tracegate/mesh/procfs"
)

const (
	dialers  = 32               // connections that are opened at a time
	patience = 30 * time.Second // in which a connection that is refused for now is tried again
)

// crowd is a run.
type crowd struct {
	cfg     Config
	admin   *admin
	log     *slog.Logger
	people  []person
	reading sync.WaitGroup
	refused atomic.Int64 // attempts that were told to come back

	mu      sync.Mutex
	sockets []*socket
	lost    int
	example error // of a connection that was lost
	late    []time.Duration
}

// person is a user with where its conversation is read up to.
type person struct {
	token     string
	positions map[string]int64
}

// Run opens connections, measures, and writes the report.
func Run(ctx context.Context, cfg Config, out io.Writer, log *slog.Logger) (Report, error) {
	rep := Report{Schema: Schema, Started: time.Now(), Settings: settings(cfg)}
	files, err := openFiles()
	if err == nil {
		err = cfg.Validate(files)
	}
	for _, address := range append([]string{cfg.Door}, values(cfg.Cores)...) {
		err = errors.Join(err, load.Loopback(address))
	}
	if err != nil {
		return rep, err
	}
	c := &crowd{cfg: cfg, admin: newAdmin(cfg), log: log}
	defer c.hangUp()
	if err := c.measure(ctx, &rep); err != nil {
		return rep, err
	}
	rep.Ended = time.Now()
	rep.judge(cfg)
	return rep, rep.Write(out, cfg.Format)
}

func values(m map[string]string) (out []string) {
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

// measure is the run in its order.
func (c *crowd) measure(ctx context.Context, rep *Report) error {
	if err := c.enroll(ctx); err != nil {
		return fmt.Errorf("enroll users: %w", err)
	}
	c.log.Info("users are enrolled", "users", len(c.people))
	// Some connections come and go first, so that code and pools are not counted.
	others, err := c.serving(ctx)
	if err != nil {
		return err
	}
	if _, err := c.open(ctx, min(100, c.cfg.Connections)); err != nil {
		return err
	}
	c.hangUp()
	if err := c.gone(ctx, others); err != nil {
		return err
	}
	base, err := c.calm(ctx)
	if err != nil {
		return err
	}
	c.refused.Store(0)
	took, err := c.open(ctx, c.cfg.Connections)
	if err != nil {
		return err
	}
	rep.Opened = Opened{Connections: c.count(), Refused: c.refused.Load(), TookMS: ms(took)}
	c.log.Info("connections are open", "connections", rep.Opened.Connections, "took", took.Round(time.Millisecond))
	idle, err := c.calm(ctx)
	if err != nil {
		return err
	}
	rep.Pings.Due, rep.Pings.Sent, took = c.ping(ctx)
	busy, err := c.admin.used(ctx) // before what is collected on purpose
	if err != nil {
		return err
	}
	after, err := c.calm(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	rep.Pings.answered(c.late, took)
	if rep.Lost = c.lost; c.example != nil {
		rep.Example = c.example.Error()
	}
	rep.Memory, rep.Pings.Collections, rep.Pings.CPU = cost(base, idle, after, busy, c.cfg.Connections, rep.Pings)
	return ctx.Err()
}

// serving is how many connections core's processes have, ours and others'.
func (c *crowd) serving(ctx context.Context) (n float64, err error) {
	used, err := c.admin.used(ctx)
	for _, u := range used {
		n += u.sockets
	}
	return n, err
}

// gone waits until core has noticed that connections have ended, but not for long: others
// may have come meanwhile.
func (c *crowd) gone(ctx context.Context, want float64) error {
	for begin := time.Now(); time.Since(begin) < patience; {
		n, err := c.serving(ctx)
		if err != nil || n <= want {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// snapshot is what processes and kernel use at a moment.
type snapshot struct {
	cores  map[string]usage
	kernel float64
	known  bool // kernel is
}

// calm waits until what came or went has settled, and measures after a collection.
func (c *crowd) calm(ctx context.Context) (s snapshot, err error) {
	select {
	case <-time.After(c.cfg.Settle):
	case <-ctx.Done():
		return s, ctx.Err()
	}
	if err := c.admin.collect(ctx); err != nil {
		return s, err
	}
	s.cores, err = c.admin.used(ctx)
	kernel, unknown := procfs.Kernel()
	s.kernel, s.known = float64(kernel), unknown == nil
	return s, err
}

// enroll registers users in pairs with a conversation and a message in it, two at a time:
// core hashes passwords slowly on purpose.
func (c *crowd) enroll(ctx context.Context) error {
	cfg := client.DefaultConfig()
	cfg.Address = c.cfg.Door
	api, err := client.New(cfg)
	if err != nil {
		return err
	}
	defer api.Close()
	pairs := (c.cfg.Connections + 2*c.cfg.PerUser - 1) / (2 * c.cfg.PerUser)
	c.people = make([]person, 2*pairs)
	prefix := strings.ToLower("sockets-" + rand.Text()[:6])
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for i := range pairs {
		g.Go(func() error {
			var both [2]*client.User
			for j := range both {
				name, password := fmt.Sprintf("%s-%d", prefix, 2*i+j), rand.Text()
				_, _, err := api.Register(ctx, name, password)
				if err == nil {
					both[j], _, err = api.Login(ctx, name, password)
				}
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			conversation, _, err := both[0].Open(ctx, both[1].Profile().Name)
			if err != nil {
				return fmt.Errorf("open a conversation: %w", err)
			}
			if _, _, err := both[0].Send(ctx, protocol.Send{Conversation: conversation.ID, ClientID: "hello", Text: "hello"}); err != nil {
				return fmt.Errorf("send: %w", err)
			}
			for j, u := range both {
				c.people[2*i+j] = person{u.Token(), map[string]int64{conversation.ID: 1}}
			}
			return nil
		})
	}
	return g.Wait()
}

// open opens connections, users and addresses in turn.
func (c *crowd) open(ctx context.Context, n int) (took time.Duration, err error) {
	begin := time.Now()
	g, opening := errgroup.WithContext(ctx)
	g.SetLimit(dialers)
	for i := range n {
		g.Go(func() error {
			s, err := c.dial(opening, i)
			if err != nil {
				return fmt.Errorf("open connection %d: %w", i, err)
			}
			c.mu.Lock()
			c.sockets = append(c.sockets, s)
			c.mu.Unlock()
			c.reading.Go(func() { c.ended(s.read(c.pong)) })
			return nil
		})
	}
	err = g.Wait()
	return time.Since(begin), err
}

// dial tries again while core says that it would help.
func (c *crowd) dial(ctx context.Context, i int) (*socket, error) {
	p := c.people[i%len(c.people)]
	from := net.IPv4(127, 0, 0, byte(1+i%c.cfg.Sources)) //nolint:gosec // at most 250
	for begin := time.Now(); ; {
		s, err := dial(ctx, c.cfg.Door, from, p.token, p.positions)
		refusal, ok := errors.AsType[*protocol.Error](err)
		if err == nil || !ok || !refusal.Temporary || time.Since(begin) > patience {
			return s, err
		}
		c.refused.Add(1)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *crowd) ended(err error) {
	if err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost++
	c.example = err
}

func (c *crowd) pong(late time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.late) < maxPings {
		c.late = append(c.late, late)
	}
}

func (c *crowd) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sockets)
}

// ping goes round all connections by the clock, and waits for the answers.
func (c *crowd) ping(ctx context.Context) (due, sent int, took time.Duration) {
	c.mu.Lock()
	sockets := c.sockets
	c.mu.Unlock()
	begin := time.Now()
	due = int(c.cfg.Pings * c.cfg.Duration.Seconds())
	for i := range due {
		at := begin.Add(time.Duration(float64(i) / c.cfg.Pings * float64(time.Second)))
		if wait := time.Until(at); wait > 0 {
			<-time.After(wait)
		}
		if ctx.Err() != nil {
			break
		}
		if sockets[i%len(sockets)].ping(at) == nil {
			sent++
		}
	}
	took = time.Since(begin)
	for wait := time.Now(); time.Since(wait) < c.cfg.Wait && ctx.Err() == nil; <-time.After(10 * time.Millisecond) {
		c.mu.Lock()
		all := len(c.late) >= sent
		c.mu.Unlock()
		if all {
			break
		}
	}
	return due, sent, took
}

// hangUp ends all connections and waits for their readers.
func (c *crowd) hangUp() {
	c.mu.Lock()
	sockets := c.sockets
	c.sockets = nil
	c.mu.Unlock()
	for _, s := range sockets {
		s.hangUp()
	}
	c.reading.Wait()
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
