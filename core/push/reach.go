package push

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tracegate/tracegate/core/chat"
)

// unreachedError says that a device is to be tried again.
type unreachedError struct{ err error }

func (e *unreachedError) Error() string { return fmt.Sprintf("send notification: %v", e.err) }

func (e *unreachedError) Unwrap() error { return e.err }

var errAway = &unreachedError{errors.New("nobody is reached")}

func isUnreached(err error) bool {
	_, ok := errors.AsType[*unreachedError](err)
	return ok
}

const (
	tries      = 5 // of a device that is not reached, while others are
	tryAgain   = time.Minute
	maxMissing = 10_000
)

// reach is what is known of devices: which have had a message that not all have had, and
// which are not reached. That may be the receiver's fault, which is away, or their own:
// theirs it is when others are reached meanwhile. It is safe for concurrent use.
type reach struct {
	mu      sync.Mutex
	begun   map[string]begun    // messages that not all have had, by conversation
	missing map[string]*missing // devices by session; bounded by maxMissing
	sent    int                 // notifications
	inRow   int                 // misses since the receiver last took or refused one
	most    int                 // of them before it is said to be away
}

type begun struct {
	seq  int64
	done map[string]bool // sessions that have had it
}

type missing struct {
	sent  int  // when it was first missed
	times int  // it was missed since others were reached
	given bool // up
	last  time.Time
}

func newReach(most int) *reach {
	return &reach{begun: map[string]begun{}, missing: map[string]*missing{}, most: most}
}

// order is in which order a batch is taken: behind what is new comes what has waited, so
// that it is seen whether others are reached. Of other conversations nothing is remembered.
func (r *reach) order(conversations []string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept, fresh, waited := map[string]begun{}, []string{}, []string{}
	for _, c := range conversations {
		if b, ok := r.begun[c]; ok {
			kept[c], waited = b, append(waited, c)
		} else {
			fresh = append(fresh, c)
		}
	}
	r.begun = kept
	if len(waited) == 0 { // others are not missed any more, but read, muted or gone
		maps.DeleteFunc(r.missing, func(_ string, m *missing) bool { return !m.given })
	}
	return append(fresh, waited...)
}

// begin is a new pass, which does not know whether the receiver is away.
func (r *reach) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inRow = 0
}

// away says that so many in a row were not reached that it is no use to try more.
func (r *reach) away() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inRow >= r.most
}

// done are the sessions that have had a message; for left and finish.
func (r *reach) done(conversation string, seq int64) map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.begun[conversation]
	if !ok || b.seq != seq {
		b = begun{seq, map[string]bool{}}
		r.begun[conversation] = b
	}
	return b.done
}

// end forgets a conversation, of which all have had everything.
func (r *reach) end(conversation string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.begun, conversation)
}

// left are the devices that have not had a message, those that were missed lately last.
func (r *reach) left(done map[string]bool, devices []chat.PushDevice) []chat.PushDevice {
	r.mu.Lock()
	defer r.mu.Unlock()
	var first, last []chat.PushDevice
	for _, d := range devices {
		switch {
		case done[d.Session]:
		case r.missing[d.Session] != nil:
			last = append(last, d)
		default:
			first = append(first, d)
		}
	}
	return slices.Concat(first, last)
}

// finish notes what became of a device's notification.
func (r *reach) finish(done map[string]bool, session, result string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	done[session] = true
	if result != "failed" {
		delete(r.missing, session)
	}
	switch result {
	case "sent":
		r.sent++
		r.inRow = 0
	case "refused", "gone":
		r.inRow = 0
	}
}

// missed notes that a device was not reached. It is given up when others were, unless the
// receiver says that it is not the device.
func (r *reach) missed(session string, busy bool, now time.Time) (first, given bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.missing[session]
	if first = m == nil; first {
		if len(r.missing) >= maxMissing {
			clear(r.missing)
		}
		m = &missing{sent: r.sent}
		r.missing[session] = m
	}
	m.last = now
	if r.sent > m.sent {
		m.times++
	}
	if busy || m.times < tries {
		r.inRow++
		return first, false
	}
	m.given = true
	return first, true
}

// hopeless says that a device was given up and is not to be tried again yet: each try may
// take as long as the receiver likes.
func (r *reach) hopeless(session string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.missing[session]
	return m != nil && m.given && now.Sub(m.last) < tryAgain
}
