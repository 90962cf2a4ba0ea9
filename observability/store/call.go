package store

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

// Verb is how one part uses another.
type Verb string

// The verbs. Serve is a request at the edge, Command one over an open socket; a record is
// received and processed by the same consumer, each with a span of its own.
const (
	Serve   Verb = "serve"
	Command Verb = "command"
	Invoke  Verb = "call"
	Query   Verb = "query"
	Publish Verb = "publish"
	Receive Verb = "receive"
	Process Verb = "process"
)

// calledBy says how a span calls another part; empty: it does not, or its caller says so.
func calledBy(s *Span) Verb {
	switch {
	case s.Traffic.Entry && s.Service == semconv.ServiceEdge:
		return Serve
	case s.Traffic.Entry:
		return Command
	}
	switch s.Kind {
	case "Producer":
		return Publish
	case "Consumer":
		if operation(s) == "receive" {
			return Receive
		}
		return Process
	case "Client":
		if s.Attributes["messaging.system"] == "" && database(s) != "" {
			return Query
		}
		return Invoke
	}
	return ""
}

// systemOf is what kind of thing is called, where a span says so.
func systemOf(s *Span, v Verb) string {
	switch v {
	case Publish, Receive, Process:
		return s.Attributes["messaging.system"]
	case Query:
		return database(s)
	}
	return ""
}

// targetOf is the name of what is called: a service, a topic, a database or an address.
func targetOf(s *Span, v Verb) string {
	a := s.Attributes
	switch v {
	case Serve, Command:
		return s.Traffic.Service
	case Publish, Receive, Process:
		return cmp.Or(a["messaging.destination.name"], a["messaging.source.name"])
	case Query:
		return cmp.Or(a["db.namespace"], a["db.name"])
	case Invoke:
		return cmp.Or(a["peer.service"], a["server.address"], a["net.peer.name"])
	}
	return ""
}

// operation and database know the older names of OpenTelemetry too.
func operation(s *Span) string {
	return cmp.Or(s.Attributes["messaging.operation.type"], s.Attributes["messaging.operation"])
}

func database(s *Span) string {
	return cmp.Or(s.Attributes["db.system.name"], s.Attributes["db.system"])
}

// Call is what one part asked of another in a window, as the one that waits saw it: a call
// that never arrived is among them. For Receive and Process the consumer is the Caller,
// although the records come to it. Errors and latency of Serve are those of the service.
type Call struct {
	Caller, CallerPool string
	Verb               Verb
	System             string // "kafka", "postgresql"; empty: the target is a service, or unknown
	Target, TargetPool string // the pool is known of what the edge served only
	Requests, Errors   uint64
	Latency            sli.Histogram
}

// Calls of a window are kept by CallStep. MaxCalls bounds how many kinds of calls are read.
const (
	CallStep = 5 * time.Second
	MaxCalls = 500
)

// Calls returns what started in w, widened to whole steps, the most frequent first, and how
// many kinds of calls were left out beyond MaxCalls.
func (s *Store) Calls(ctx context.Context, w sli.Window) (calls []Call, leftOut uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	from, to := w.From.Truncate(CallStep).Unix(), w.To.Add(CallStep-1).Truncate(CallStep).Unix()
	const sql = `SELECT Caller, CallerPool, Verb, System, Target, TargetPool, sum(Requests) AS n, sum(Errors), sumMap(Latency), count() OVER () AS kinds
FROM traffic_call WHERE Second >= %d AND Second < %d
GROUP BY Caller, CallerPool, Verb, System, Target, TargetPool
ORDER BY n DESC, Caller, CallerPool, Verb, System, Target, TargetPool LIMIT %d SETTINGS max_threads = 1`
	rows, err := s.conn.Query(ctx, fmt.Sprintf(sql, from, to, MaxCalls))
	if err != nil {
		return nil, 0, fmt.Errorf("read calls: %w", err)
	}
	defer rows.Close()
	var kinds uint64
	for rows.Next() {
		var c Call
		var verb string
		var latency map[int16]uint64
		if err := rows.Scan(&c.Caller, &c.CallerPool, &verb, &c.System, &c.Target, &c.TargetPool, &c.Requests, &c.Errors, &latency, &kinds); err != nil {
			return nil, 0, fmt.Errorf("read calls: %w", err)
		}
		c.Verb, c.Latency = Verb(verb), sli.NewHistogram(latency)
		calls = append(calls, c)
	}
	if err := rows.Err(); err != nil {
		return nil, 0, fmt.Errorf("read calls: %w", err)
	}
	return calls, kinds - uint64(len(calls)), nil
}
