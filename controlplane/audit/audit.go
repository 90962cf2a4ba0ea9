// Package audit keeps who asked the control plane to change what, and what came of it, so
// that it can be looked up afterwards whoever did it.
//
// A request has two lines in an append-only file (controlplane/durable): one before it is
// carried out, and one with its outcome; a request that is refused has the second only.
// Nothing is carried out that the first line of could not be made durable. (The record
// after the fact alone lost: a full disk would let orders through that nobody can find. A
// table of the trace store lost: it may be away, which must not stop an operator.)
//
// Files are bounded, so somebody without the right to change anything must not be able to
// fill them: of the refused requests of one name a few a second are kept, others counted.
// It decides nothing. controlplane opens it, controlplane/ctl writes and reads it.
package audit

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/durable"
)

const (
	// fileSize bounds one of the two files.
	fileSize = 8 << 20
	// Remembered is how many of the newest records can be asked for; the files have more.
	Remembered = 10_000

	refusedRate  = 1 // a second and name
	refusedBurst = 60
)

// Log is one file. It is safe for concurrent use.
type Log struct {
	records *prometheus.CounterVec

	mu      sync.Mutex
	journal *durable.Journal
	newest  []ctlapi.AuditRecord     // oldest first
	refused map[string]*rate.Limiter // by name; the names of tokens are few
}

// Open reads a file and what came before it, or makes it. Lines that a crash has torn are
// counted.
func Open(path string, reg prometheus.Registerer) (l *Log, torn int, err error) {
	l = &Log{refused: map[string]*rate.Limiter{}, records: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tracegate_audit_records_total", Help: "Lines of the audit log, by result: written, failed, dropped_refused.",
	}, []string{"result"})}
	torn, err = durable.ReadJournal(path, func(line []byte) error {
		var r ctlapi.AuditRecord
		if json.Unmarshal(line, &r) == nil && r.ID != "" {
			l.remember(r)
		}
		return nil
	})
	if err != nil {
		return nil, torn, fmt.Errorf("read audit log: %w", err)
	}
	if l.journal, err = durable.OpenJournal(path, fileSize); err != nil {
		return nil, torn, fmt.Errorf("open audit log: %w", err)
	}
	if err := reg.Register(l.records); err != nil {
		return nil, torn, fmt.Errorf("count audit records: %w", err)
	}
	return l, torn, nil
}

// Keep returns when a record is durable; a later one of the same id takes its place.
func (l *Log) Keep(r ctlapi.AuditRecord) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.keep(r)
}

// KeepRefused keeps the record of a request that is refused, unless there were too many of
// the same name lately.
func (l *Log) KeepRefused(r ctlapi.AuditRecord) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit := l.refused[r.Who]
	if limit == nil {
		limit = rate.NewLimiter(refusedRate, refusedBurst)
		l.refused[r.Who] = limit
	}
	if !limit.AllowN(r.Time, 1) {
		l.records.WithLabelValues("dropped_refused").Inc()
		return nil
	}
	return l.keep(r)
}

func (l *Log) keep(r ctlapi.AuditRecord) error {
	if err := l.journal.Append(r); err != nil {
		l.records.WithLabelValues("failed").Inc()
		return fmt.Errorf("keep audit record: %w", err)
	}
	l.records.WithLabelValues("written").Inc()
	l.remember(r)
	return nil
}

func (l *Log) remember(r ctlapi.AuditRecord) {
	for i, old := range slices.Backward(l.newest) {
		if old.ID == r.ID {
			l.newest[i] = r
			return
		}
		if len(l.newest)-i > 100 { // more are never under way
			break
		}
	}
	if len(l.newest) >= 2*Remembered {
		l.newest = slices.Clone(l.newest[len(l.newest)-Remembered+1:])
	}
	l.newest = append(l.newest, r)
}

// Find returns records newest first. What is asked for is valid.
func (l *Log) Find(q ctlapi.AuditQuery) []ctlapi.AuditRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := []ctlapi.AuditRecord{}
	for _, r := range slices.Backward(l.newest[max(0, len(l.newest)-Remembered):]) {
		if len(out) == q.Limit {
			break
		}
		if !r.Time.Before(q.Since) && (q.Who == "" || q.Who == r.Who || q.Who == r.By) {
			out = append(out, r)
		}
	}
	return out
}

// Close closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.journal.Close()
}
