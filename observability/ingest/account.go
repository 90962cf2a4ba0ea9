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
	SpoolCorrupt otlp.Reason = "spool_corrupt" // spooled records were damaged on disk
	Rejected     otlp.Reason = "rejected"      // ClickHouse refuses the data itself
)

// Reasons is the closed list of why a record is not stored.
func Reasons() []otlp.Reason {
	return []otlp.Reason{
		otlp.BadTraceID, otlp.BadSpanID, otlp.TooOld, otlp.InFuture, otlp.TooManyLogs,
		otlp.UnsupportedMetric, otlp.NoName, otlp.NoTime, otlp.NoValue, otlp.BadBuckets, otlp.TooLarge, otlp.TooManyPoints,
		SpoolFull, SpoolError, SpoolCorrupt, Rejected,
	}
}

// Flow is where records are; a record is a span, a log record or a point. At any moment
//
//	Received + Recovered = Stored + Spooled + Pending + the sum of Dropped
type Flow struct {
	Received  uint64                 `json:"received"`  // since the start, in messages that were not refused
	Recovered uint64                 `json:"recovered"` // found in the spool at the start
	Stored    uint64                 `json:"stored"`    // acknowledged by ClickHouse
	Spooled   uint64                 `json:"spooled"`   // on disk now
	Pending   uint64                 `json:"pending"`   // in memory now; not acknowledged to their senders
	Dropped   map[otlp.Reason]uint64 `json:"dropped"`
	// Refused came in messages that were turned away whole because too much was
	// pending; their senders keep them.
	Refused uint64 `json:"refused"`
}

// Account is where every record is: of all tables, and table by table. The edge's records
// are in the account of spans, which they become.
type Account struct {
	Flow
	Tables map[otlp.Table]Flow `json:"tables"`
	Cut    map[otlp.Cut]uint64 `json:"cut"` // stored, but not whole
	// SpoolSegments and SpoolBytes are the spool's size; Away is true while ClickHouse
	// does not take batches.
	SpoolSegments int   `json:"spool_segments"`
	SpoolBytes    int64 `json:"spool_bytes"`
	Away          bool  `json:"away"`
}

// Balanced says whether the equation holds, for each table too.
func (a Account) Balanced() bool {
	for _, f := range a.Tables {
		if !f.balanced() {
			return false
		}
	}
	return a.balanced()
}

func (f Flow) balanced() bool {
	sum := f.Stored + f.Spooled + f.Pending
	for _, n := range f.Dropped {
		sum += n
	}
	return f.Received+f.Recovered == sum
}

func (f *Flow) add(o *Flow) {
	f.Received += o.Received
	f.Recovered += o.Recovered
	f.Stored += o.Stored
	f.Spooled += o.Spooled
	f.Pending += o.Pending
	f.Refused += o.Refused
	for reason, n := range o.Dropped {
		f.Dropped[reason] += n
	}
}

func newFlow() *Flow {
	f := &Flow{Dropped: map[otlp.Reason]uint64{}}
	for _, r := range Reasons() {
		f.Dropped[r] = 0
	}
	return f
}

// ledger is an Account that changes; each change keeps the equation.
type ledger struct {
	mu           sync.Mutex
	tables       map[otlp.Table]*Flow
	cut          map[otlp.Cut]uint64
	pending      uint64 // of all tables
	pendingBytes int64
}

// newLedger begins with what the spool has, by table.
func newLedger(recovered map[otlp.Table]int) *ledger {
	l := &ledger{tables: map[otlp.Table]*Flow{}, cut: map[otlp.Cut]uint64{}}
	for _, t := range otlp.Tables() {
		f := newFlow()
		f.Recovered, f.Spooled = uint64(recovered[t]), uint64(recovered[t])
		l.tables[t] = f
	}
	return l
}

// receive takes a message's results in, unless more would be pending than may.
func (l *ledger) receive(results []*otlp.Result, size, maxBytes int64, maxRows int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	rows := 0
	for _, r := range results {
		rows += kept(r)
	}
	if rows > 0 && (l.pending+uint64(rows) > uint64(maxRows) || l.pendingBytes+size > maxBytes) {
		for _, r := range results {
			l.tables[r.Table].Refused += uint64(r.Received)
		}
		return false
	}
	for _, r := range results {
		f := l.tables[r.Table]
		f.Received += uint64(r.Received)
		f.Pending += uint64(kept(r))
		for reason, n := range r.Dropped {
			f.Dropped[reason] += uint64(n)
		}
		for cut, n := range r.Cut {
			l.cut[cut] += uint64(n)
		}
	}
	if rows > 0 {
		l.pending += uint64(rows)
		l.pendingBytes += size
	}
	return true
}

// kept is how many rows came of a message for a table.
func kept(r *otlp.Result) int { return r.Received - r.Rejected() }

// settle moves a pending batch to where it went.
func (l *ledger) settle(t otlp.Table, rows int, size int64, to func(*Flow, uint64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending -= uint64(rows)
	l.pendingBytes -= size
	l.tables[t].Pending -= uint64(rows)
	to(l.tables[t], uint64(rows))
}

// unspool moves spooled rows to where it went.
func (l *ledger) unspool(t otlp.Table, rows int, to func(*Flow, uint64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tables[t].Spooled -= uint64(rows)
	to(l.tables[t], uint64(rows))
}

func stored(f *Flow, n uint64)  { f.Stored += n }
func spooled(f *Flow, n uint64) { f.Spooled += n }

func dropped(reason otlp.Reason) func(*Flow, uint64) {
	return func(f *Flow, n uint64) { f.Dropped[reason] += n }
}

// snapshot is a copy.
func (l *ledger) snapshot() Account {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := newFlow()
	a := Account{Tables: map[otlp.Table]Flow{}, Cut: maps.Clone(l.cut)}
	for t, f := range l.tables {
		all.add(f)
		table := *f
		table.Dropped = maps.Clone(f.Dropped)
		a.Tables[t] = table
	}
	a.Flow = *all
	return a
}
