package ingest

import (
	"maps"
	"sync"

	"github.com/tracegate/tracegate/observability/ingest/otlp"
)

// Reasons for which records are lost here, after [otlp]'s.
const (
	SpoolFull    otlp.Reason = "spool_full"    // ClickHouse away longer than the spool lasts; the sender was told
	SpoolError   otlp.Reason = "spool_error"   // the disk refused; the sender was told and may send again
	SpoolCorrupt otlp.Reason = "spool_corrupt" // a spooled batch was damaged on disk
	Rejected     otlp.Reason = "rejected"      // ClickHouse refuses the data itself
)

// Reasons is the closed list of why a record is not stored.
func Reasons() []otlp.Reason {
	return []otlp.Reason{
		otlp.BadTraceID, otlp.BadSpanID, otlp.TooOld, otlp.InFuture, otlp.UnsupportedLog,
		otlp.UnsupportedMetric, otlp.NoName, otlp.NoTime, otlp.NoValue, otlp.BadBuckets, otlp.TooLarge, otlp.TooManyPoints,
		SpoolFull, SpoolError, SpoolCorrupt, Rejected,
	}
}

// Account is where every record is; a record is a span, a log record or a point. At any
// moment
//
//	Received + Recovered = Stored + Spooled + Pending + the sum of Dropped
type Account struct {
	Received  uint64                 `json:"received"`  // since the start, in messages that were not refused
	Recovered uint64                 `json:"recovered"` // found in the spool at the start
	Stored    uint64                 `json:"stored"`    // acknowledged by ClickHouse
	Spooled   uint64                 `json:"spooled"`   // on disk now
	Pending   uint64                 `json:"pending"`   // in memory now; not acknowledged to their senders
	Dropped   map[otlp.Reason]uint64 `json:"dropped"`
	// Refused came in messages that were turned away whole because too much was
	// pending; their senders keep them.
	Refused uint64              `json:"refused"`
	Cut     map[otlp.Cut]uint64 `json:"cut"` // stored, but not whole
	// SpoolBatches and SpoolBytes are the spool's size; Away is true while ClickHouse
	// does not take batches.
	SpoolBatches int   `json:"spool_batches"`
	SpoolBytes   int64 `json:"spool_bytes"`
	Away         bool  `json:"away"`
}

// Balanced says whether the equation holds.
func (a Account) Balanced() bool {
	sum := a.Stored + a.Spooled + a.Pending
	for _, n := range a.Dropped {
		sum += n
	}
	return a.Received+a.Recovered == sum
}

// ledger is an Account that changes; each change keeps the equation.
type ledger struct {
	mu           sync.Mutex
	a            Account
	pendingBytes int64
}

func newLedger(recovered int) *ledger {
	a := Account{Recovered: uint64(recovered), Spooled: uint64(recovered), Dropped: map[otlp.Reason]uint64{}, Cut: map[otlp.Cut]uint64{}}
	for _, r := range Reasons() {
		a.Dropped[r] = 0
	}
	return &ledger{a: a}
}

// receive takes a message's result in, unless more would be pending than may.
func (l *ledger) receive(r *otlp.Result, size, maxBytes int64, maxRows int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(r.Spans) + len(r.Points)
	if n > 0 && (l.a.Pending+uint64(n) > uint64(maxRows) || l.pendingBytes+size > maxBytes) {
		l.a.Refused += uint64(r.Received)
		return false
	}
	l.a.Received += uint64(r.Received)
	for reason, n := range r.Dropped {
		l.a.Dropped[reason] += uint64(n)
	}
	for cut, n := range r.Cut {
		l.a.Cut[cut] += uint64(n)
	}
	if n > 0 {
		l.a.Pending += uint64(n)
		l.pendingBytes += size
	}
	return true
}

// settle moves a pending batch to where it went.
func (l *ledger) settle(rows int, size int64, to func(*Account, uint64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.a.Pending -= uint64(rows)
	l.pendingBytes -= size
	to(&l.a, uint64(rows))
}

// unspool moves a spooled batch to where it went.
func (l *ledger) unspool(rows int, to func(*Account, uint64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.a.Spooled -= uint64(rows)
	to(&l.a, uint64(rows))
}

func stored(a *Account, n uint64)  { a.Stored += n }
func spooled(a *Account, n uint64) { a.Spooled += n }

func dropped(reason otlp.Reason) func(*Account, uint64) {
	return func(a *Account, n uint64) { a.Dropped[reason] += n }
}

// snapshot is a copy.
func (l *ledger) snapshot() Account {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.a
	a.Dropped, a.Cut = maps.Clone(l.a.Dropped), maps.Clone(l.a.Cut)
	return a
}
