// Package push notifies devices of messages while nobody of their user is connected. How a
// device is reached is not its business: it asks a [Sender], of which there is one, a
// webhook behind which FCM, APNs or anything else may stand.
//
// The log is its queue: it follows it behind the group that stores (queue.Follower), in a
// group of its own, so that what was not sent when a process ended is sent by the next one,
// and a receiver that is away holds up nothing else. Where it has got is kept for each
// conversation, by seq, so that what comes again from the log is not sent again. The queue
// is bounded by time: after MaxAge a message is not worth a notification.
//
// A receiver that is away holds up all notifications, and loses none. A device that alone
// cannot be reached, while others are, is given up after some tries.
//
// A device is notified of a message once. Only where the process dies between an answer and
// its note, or two processes overlap when the group is balanced anew, it may be twice, and
// then under the same id. A table of notifications that wait lost: it would be written for
// each device of each message, beside a log that has it all.
//
// Who is connected is known from presence, which may be behind by seconds: then a device is
// notified of what it has been shown too, rather than of nothing.
//
// Its caller is core.Run.
package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/core/chat"
)

// Config bounds it.
type Config struct {
	MaxAge   time.Duration // of a message that is worth a notification
	Patience time.Duration // for one batch of the log, before others may take it over
	Parallel int           // notifications sent at a time
	Backoff  time.Duration // first pause after a failure; doubles up to 40 times it
}

// DefaultConfig fits a receiver that answers in some 100 ms.
func DefaultConfig() Config {
	return Config{MaxAge: time.Hour, Patience: 20 * time.Second, Parallel: 16, Backoff: 250 * time.Millisecond}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	switch {
	case c.MaxAge <= 0:
		return errors.New("max_age: must be positive")
	case c.Patience <= 0:
		return errors.New("patience: must be positive")
	case c.Parallel < 1:
		return errors.New("parallel: must be at least 1")
	case c.Backoff <= 0:
		return errors.New("backoff: must be positive")
	}
	return nil
}

// Notification is for one device.
type Notification struct {
	Conversation string
	Message      chat.Unpushed
	Device       chat.PushDevice
}

// What a Sender may answer; any other error is temporary, as ErrBusy is, and may be about
// the device alone, as ErrBusy is not.
var (
	ErrGone    = errors.New("the token is not good any more")
	ErrRefused = errors.New("refused")
	ErrBusy    = errors.New("the receiver takes no more for now")
)

// Sender reaches devices. Sending the same once more must do no harm.
type Sender interface {
	Send(ctx context.Context, n Notification) error
}

// Store is where devices and messages are kept.
type Store interface {
	Unpushed(ctx context.Context, conversation string, after time.Time, limit int) ([]chat.Unpushed, error)
	Pushed(ctx context.Context, conversation string, seq int64) error
	PushDevices(ctx context.Context, conversation string, seq int64, senderID, after string, limit int) ([]chat.PushDevice, error)
	ForgetPush(ctx context.Context, session, token string) error
}

// Presence says on how many processes a user is connected.
type Presence interface {
	Online(ctx context.Context, userID string) (int, error)
}

// Pusher notifies. Its Handle is what a follower of the log calls.
type Pusher struct {
	cfg      Config
	store    Store
	presence Presence
	sender   Sender
	now      func() time.Time
	results  *prometheus.CounterVec
	log      *slog.Logger
	reach    *reach
}

// New prepares a pusher.
func New(cfg Config, store Store, presence Presence, sender Sender, now func() time.Time, reg prometheus.Registerer, log *slog.Logger) (*Pusher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("push config: %w", err)
	}
	p := &Pusher{
		cfg: cfg, store: store, presence: presence, sender: sender, now: now, log: log, reach: newReach(2 * cfg.Parallel),
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "core_push_total",
			Help: "Notifications by what became of them: sent, online (its user is connected), refused or gone (by the receiver), failed (again and again, while others were sent), too_old, or retried.",
		}, []string{"result"}),
	}
	for _, r := range []string{"sent", "online", "refused", "gone", "failed", "too_old", "retried"} {
		p.results.WithLabelValues(r)
	}
	if err := reg.Register(p.results); err != nil {
		return nil, fmt.Errorf("register push metrics: %w", err)
	}
	return p, nil
}

const (
	pageMessages = 100
	pageDevices  = 500
)

// Handle notifies of what is new in conversations. Those with a device that is not reached
// are tried again behind the others. An error means that it is to be called again; what was
// sent is remembered.
func (p *Pusher) Handle(ctx context.Context, conversations []string) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Patience)
	defer cancel()
	conversations = p.reach.order(conversations)
	for pause := p.cfg.Backoff; ; pause = min(2*pause, 40*p.cfg.Backoff) {
		waiting, err := p.pass(ctx, conversations)
		if len(waiting) == 0 {
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
			conversations = waiting
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
}

// pass tries each conversation once. Where some wait for the next pass, the error says why.
func (p *Pusher) pass(ctx context.Context, conversations []string) (waiting []string, err error) {
	p.reach.begin()
	for i, c := range conversations {
		if p.reach.away() { // the next pass begins with those that this one does not come to
			return append(slices.Clone(conversations[i:]), waiting...), err
		}
		one := p.conversation(ctx, c)
		switch {
		case one == nil:
			p.reach.end(c)
		case isUnreached(one):
			waiting, err = append(waiting, c), fmt.Errorf("push: %w", one)
		default:
			return nil, fmt.Errorf("push: %w", one)
		}
	}
	return waiting, err
}

func (p *Pusher) conversation(ctx context.Context, conversation string) error {
	for {
		list, err := p.store.Unpushed(ctx, conversation, p.now().Add(-p.cfg.MaxAge), pageMessages)
		if err != nil {
			return err
		}
		for _, m := range list {
			if err := p.message(ctx, conversation, m); err != nil {
				return err
			}
			if err := p.store.Pushed(ctx, conversation, m.Seq); err != nil {
				return err
			}
		}
		if len(list) < pageMessages {
			return nil
		}
	}
}

// message tries each device once that has not had it.
func (p *Pusher) message(ctx context.Context, conversation string, m chat.Unpushed) (unreached error) {
	done := p.reach.done(conversation, m.Seq)
	online := map[string]bool{}
	for after := ""; ; {
		devices, err := p.store.PushDevices(ctx, conversation, m.Seq, m.SenderID, after, pageDevices)
		if err != nil {
			return err
		}
		full := len(devices) == pageDevices
		if full {
			after = devices[len(devices)-1].Session
		}
		var g errgroup.Group
		g.SetLimit(p.cfg.Parallel)
		for _, d := range p.reach.left(done, devices) {
			if p.reach.away() {
				unreached = errAway
				break
			}
			if p.online(ctx, online, d.User.ID) {
				p.finish(done, d.Session, "online")
				continue
			}
			g.Go(func() error {
				return p.device(ctx, done, Notification{Conversation: conversation, Message: m, Device: d})
			})
		}
		if err := g.Wait(); err != nil {
			unreached = err
		}
		if !full || unreached != nil && (p.reach.away() || !isUnreached(unreached)) {
			return unreached
		}
	}
}

// finish notes what became of a device's notification.
func (p *Pusher) finish(done map[string]bool, session, result string) {
	p.results.WithLabelValues(result).Inc()
	p.reach.finish(done, session, result)
}

// online asks once for each user of a message. Who is not known to be connected is not.
func (p *Pusher) online(ctx context.Context, known map[string]bool, user string) bool {
	is, asked := known[user]
	if !asked {
		n, err := p.presence.Online(ctx, user)
		is = err == nil && n > 0
		known[user] = is
	}
	return is
}

// device sends one notification; an error means that it is to be sent again.
func (p *Pusher) device(ctx context.Context, done map[string]bool, n Notification) error {
	session := n.Device.Session
	if p.now().Sub(n.Message.SentAt) > p.cfg.MaxAge {
		p.finish(done, session, "too_old")
		return nil
	}
	if p.reach.hopeless(session, p.now()) {
		p.finish(done, session, "failed")
		return nil
	}
	err := p.sender.Send(ctx, n)
	switch {
	case err == nil:
		p.finish(done, session, "sent")
	case errors.Is(err, ErrGone):
		if err := p.store.ForgetPush(ctx, session, n.Device.Token); err != nil {
			return err
		}
		p.finish(done, session, "gone")
	case errors.Is(err, ErrRefused):
		p.log.Warn("a notification was refused, it is dropped", "session", session, "error", err)
		p.finish(done, session, "refused")
	case ctx.Err() != nil: // it was not waited for
		return &unreachedError{err}
	default:
		return p.missed(done, session, err)
	}
	return nil
}

// missed gives a device up, or says that it is to be tried again.
func (p *Pusher) missed(done map[string]bool, session string, err error) error {
	first, given := p.reach.missed(session, errors.Is(err, ErrBusy), p.now())
	if given {
		p.log.Warn("a notification cannot be sent while others can, it is dropped", "session", session, "error", err)
		p.finish(done, session, "failed")
		return nil
	}
	if first {
		p.log.Warn("a notification cannot be sent, trying on", "session", session, "error", err)
	}
	p.results.WithLabelValues("retried").Inc()
	return &unreachedError{err}
}
