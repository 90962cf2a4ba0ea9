// Package presence is who is connected, as a value that any number of processes may
// change and merge in any order: a last-writer-wins element set (LWW-Element-Set; Shapiro,
// Preguiça, Baquero, Zawirski, "A comprehensive study of CRDTs", 2011, 3.3.3), with a
// hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014).
//
// A user's set has one element for each core process, named by it. An element says whether
// the user is connected there, when that was said, and by which life of the process. Of
// two that differ the later one holds; so merging is taking a maximum in one order of all
// elements, which is commutative, associative and idempotent, and replicas that have seen
// the same elements are the same.
//
// The clock is why clocks that differ do no harm: who has seen an element says what it
// says later than that, however far its own clock is behind. Without it, a process that
// starts again on a machine whose clock is five seconds slow could not say for five
// seconds that somebody is there.
//
// It is pure: core/fanout keeps the set in Redis, where the same merge is a script, and
// where leases end what a process that died cannot.
package presence

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Stamp is a moment of a hybrid logical clock: 48 bits of milliseconds since 1970, and 16
// bits that count what happens within one, or before a clock that is behind has come
// there.
type Stamp uint64

const (
	countBits = 16
	maxWall   = 1<<48 - 1
)

// At is the first stamp of a time.
func At(t time.Time) Stamp {
	return Stamp(min(uint64(max(t.UnixMilli(), 0)), maxWall)) << countBits
}

// Time is when, by the clocks that it came from.
func (s Stamp) Time() time.Time { return time.UnixMilli(int64(s >> countBits)) }

// Clock gives stamps that only grow. It is safe for concurrent use.
type Clock struct {
	now  func() time.Time
	mu   sync.Mutex
	last Stamp
}

// NewClock makes a clock of a physical one.
func NewClock(now func() time.Time) *Clock { return &Clock{now: now} }

// Next is later than all that the clock has given or seen.
func (c *Clock) Next() Stamp {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last+1, At(c.now()))
	return c.last
}

// maxAhead bounds how far a stamp that was seen may move the clock: one from a process
// whose clock is wrong by a year must not move all others there.
const maxAhead = time.Minute

// Saw takes a stamp of somebody else to have happened. It is false for one that is too far
// ahead, which is not taken.
func (c *Clock) Saw(s Stamp) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s > At(c.now().Add(maxAhead)) {
		return false
	}
	c.last = max(c.last, s)
	return true
}

// Element is what one process says of a user.
type Element struct {
	Online bool
	Stamp  Stamp
	Life   uint64 // of the process: another one after each start, by its clock
}

// Compare is the order of elements: by stamp, then life, then online above offline.
func (e Element) Compare(o Element) int {
	return cmp.Or(cmp.Compare(e.Stamp, o.Stamp), cmp.Compare(e.Life, o.Life), cmp.Compare(bit(e.Online), bit(o.Online)))
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// The statuses, as they are written. Their order as text is that of Compare.
const (
	online  = "online"
	offline = "offline"
)

// String writes status|timestamp|version with numbers of fixed length, so that two of them
// compare as text from the first bar on as Compare does, and then by status.
func (e Element) String() string {
	status := offline
	if e.Online {
		status = online
	}
	return fmt.Sprintf("%s|%016x|%016x", status, uint64(e.Stamp), e.Life)
}

// Parse is the inverse of String.
func Parse(s string) (Element, error) {
	status, rest, _ := strings.Cut(s, "|")
	stamp, life, _ := strings.Cut(rest, "|")
	e := Element{Online: status == online}
	if status != online && status != offline || len(stamp) != 16 || len(life) != 16 {
		return Element{}, fmt.Errorf("presence: %q is not status|timestamp|version", s)
	}
	n, err := strconv.ParseUint(stamp, 16, 64)
	if err != nil {
		return Element{}, fmt.Errorf("presence: timestamp: %w", err)
	}
	e.Stamp = Stamp(n)
	if e.Life, err = strconv.ParseUint(life, 16, 64); err != nil {
		return Element{}, fmt.Errorf("presence: version: %w", err)
	}
	if e.String() != s {
		return Element{}, fmt.Errorf("presence: %q is written in another way", s)
	}
	return e, nil
}

// Set is a user's elements by process.
type Set map[string]Element

// Put takes one element in, and says whether it holds now.
func (s Set) Put(process string, e Element) bool {
	if old, ok := s[process]; ok && old.Compare(e) > 0 {
		return false
	}
	s[process] = e
	return true
}

// Merge takes all of another set in.
func (s Set) Merge(o Set) {
	for process, e := range o {
		s.Put(process, e)
	}
}

// Online is how many processes say that the user is connected and have a lease.
func (s Set) Online(leased func(process string) bool) (n int) {
	for process, e := range s {
		if e.Online && leased(process) {
			n++
		}
	}
	return n
}
