package chat

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/core/protocol"
)

// device is one of a user's: it stays connected, here and there, and notes what it is
// given.
type device struct {
	name  string
	owner *person
	book  *Book
	doors []string // base URLs
	rnd   *rand.Rand
	// hop bounds how long it stays at one door; 0: until the connection ends.
	hop   time.Duration
	stats *Connections

	still atomic.Bool // no hops any more
	mu    sync.Mutex
	now   *socket // the connection that is live, after its resume; nil: none
}

// Connections counts what happened to devices.
type Connections struct {
	Opened  atomic.Int64
	Failed  atomic.Int64 // attempts that did not get through
	Hung    atomic.Int64 // hung up by the device, without notice
	Closed  atomic.Int64 // by a close frame of core
	Broken  atomic.Int64 // otherwise
	Late    atomic.Int64 // resumes that were answered with recovered: false
	Resumed atomic.Int64 // entries that came by a resume

	Unanswered atomic.Int64 // uses of refresh tokens whose outcome is not known
	Logins     atomic.Int64 // of users whose session ended by that
}

// live is the connection to send by; nil while there is none.
func (d *device) live() *socket {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *device) set(s *socket) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = s
}

// run stays connected until ctx is done.
func (d *device) run(ctx context.Context) {
	for ctx.Err() == nil {
		s, err := d.dial(ctx)
		if err != nil {
			d.stats.Failed.Add(1)
			if d.owner.final(ctx, err) {
				d.book.Problem("%s was refused for good: %v", d.name, err)
			}
			pause(ctx, 50*time.Millisecond+time.Duration(d.rnd.Int64N(int64(200*time.Millisecond))))
			continue
		}
		d.stats.Opened.Add(1)
		d.stay(ctx, s)
	}
}

// dial comes in at any door, with a token that another may have given.
func (d *device) dial(ctx context.Context) (*socket, error) {
	token, err := d.owner.token(ctx, d.rnd.IntN(len(d.doors)))
	if err != nil {
		return nil, err
	}
	return dial(ctx, d.doors[d.rnd.IntN(len(d.doors))], token, 5*time.Second)
}

// stay resumes, and reads until the connection ends or it is time to hop.
func (d *device) stay(ctx context.Context, s *socket) {
	stop := context.AfterFunc(ctx, s.hangUp)
	defer stop()
	var hung atomic.Bool
	if d.hop > 0 && !d.still.Load() {
		t := time.AfterFunc(time.Duration(1+d.rnd.Int64N(int64(d.hop))), func() {
			if !d.still.Load() {
				hung.Store(true)
				s.hangUp()
			}
		})
		defer t.Stop()
	}
	held := &hold{give: func(m protocol.Message) { d.book.Received(d.name, m) }}
	resumed := make(chan struct{})
	go func() { defer close(resumed); d.resume(ctx, s, held) }()
	err := s.read(func(f protocol.Frame) {
		if f.Message != nil {
			held.take(*f.Message)
		}
	})
	s.hangUp()
	<-resumed
	d.set(nil)
	closed, ok := asClose(err)
	switch {
	case ctx.Err() != nil:
	case hung.Load():
		d.stats.Hung.Add(1)
	case ok:
		d.stats.Closed.Add(1)
		expired := closed.Code == protocol.CloseExpired
		if closed.Code > protocol.CloseExpired || expired && d.owner.revive(ctx) != nil && ctx.Err() == nil || closed.Code == websocket.CloseInternalServerErr {
			d.book.Problem("%s was closed with %d %s", d.name, closed.Code, closed.Text)
		}
	default:
		d.stats.Broken.Add(1)
	}
}

// hold keeps entries until it is known that they follow the position that was asked for.
type hold struct {
	give  func(protocol.Message)
	mu    sync.Mutex
	open  bool
	early []protocol.Message
}

func (h *hold) take(m protocol.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.open {
		h.early = append(h.early, m)
		return
	}
	h.give(m)
}

func (h *hold) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open = true
	for _, m := range h.early {
		h.give(m)
	}
	h.early = nil
}

// resume asks for what was missed. Core may say that it cannot give exactly that, as to
// who asks later than two seconds after the greeting; then the device starts over, and
// would never get to the end if that was the rule.
func (d *device) resume(ctx context.Context, s *socket, held *hold) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	f, err := s.do(ctx, protocol.Command{Resume: &protocol.Resume{Epoch: s.hello.Epoch, Positions: d.book.Positions(d.name)}})
	switch {
	case err != nil: // the connection has ended, or it takes too long and is given up
		s.hangUp()
	case f.Resumed == nil:
		d.book.Problem("%s: the reply to resume is none", d.name)
		s.hangUp()
	case !f.Resumed.Recovered:
		d.stats.Late.Add(1)
		s.hangUp()
	default:
		d.stats.Resumed.Add(int64(f.Resumed.Replayed))
		held.release()
		d.set(s)
	}
}

// pause waits, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
