package console

import (
	"context"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

const (
	tracesBack   = 15 * time.Minute
	tracesShown  = 50
	maxMinMillis = 3_600_000
)

// Trace is an entry span in the list of a group's traces.
type Trace struct {
	TraceID  string    `json:"trace_id"`
	Time     time.Time `json:"time"`
	Name     string    `json:"name"`
	Route    string    `json:"route"`
	Pool     string    `json:"pool"`
	Duration float64   `json:"duration"` // milliseconds
	Status   string    `json:"status"`
	Code     string    `json:"code"` // HTTP status, where there is one
}

// Span is one line of a trace's tree, in the order it is read: depth first.
type Span struct {
	Depth      int               `json:"depth"`
	SpanID     string            `json:"span_id"`
	Service    string            `json:"service"`
	Name       string            `json:"name"`
	Kind       string            `json:"kind"`
	Pool       string            `json:"pool"`
	Start      float64           `json:"start"`    // milliseconds after the trace's first span
	Duration   float64           `json:"duration"` // milliseconds
	Status     string            `json:"status"`
	StatusText string            `json:"status_text,omitempty"`
	Attributes map[string]string `json:"attributes"`
}

func (c *Console) getTraces(w http.ResponseWriter, r *http.Request) {
	q, err := traceQuery(r, c.deps.Now())
	if err != nil {
		refuse(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), c.cfg.Timeout)
	defer cancel()
	spans, err := c.deps.Records.Traces(ctx, q)
	if err != nil {
		c.log.WarnContext(r.Context(), "traces not read", "error", err)
		refuse(w, err)
		return
	}
	out := make([]Trace, 0, len(spans))
	for _, s := range spans {
		out = append(out, Trace{
			TraceID: s.TraceID, Time: s.Timestamp, Name: s.Name, Route: s.Traffic.Route, Pool: s.Traffic.Pool,
			Duration: ms(s.Duration), Status: s.Status, Code: s.Attributes["http.response.status_code"],
		})
	}
	answer(w, http.StatusOK, map[string]any{"traces": out, "minutes": tracesBack.Minutes()})
}

func traceQuery(r *http.Request, now time.Time) (store.TraceQuery, error) {
	id := group.ID(r.PathValue("id"))
	if !id.Valid() {
		return store.TraceQuery{}, errGroup
	}
	q := store.TraceQuery{Group: id, Window: sli.Window{From: now.Add(-tracesBack), To: now}, Limit: tracesShown}
	switch r.FormValue("errors") {
	case "", "false":
	case "true":
		q.ErrorsOnly = true
	default:
		return q, &protocol.Error{Code: protocol.CodeInvalidArgument, Field: "errors", Message: "errors must be true or false"}
	}
	if text := r.FormValue("min_ms"); text != "" {
		least, err := strconv.Atoi(text)
		if err != nil || least < 0 || least > maxMinMillis {
			return q, &protocol.Error{Code: protocol.CodeInvalidArgument, Field: "min_ms", Message: "min_ms must be a whole number of milliseconds up to an hour"}
		}
		q.MinDuration = time.Duration(least) * time.Millisecond
	}
	return q, nil
}

func (c *Console) getTrace(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != 16 {
		refuse(w, &protocol.Error{Code: protocol.CodeInvalidArgument, Field: "trace", Message: "a trace id has 32 hex digits"})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), c.cfg.Timeout)
	defer cancel()
	spans, err := c.deps.Records.Trace(ctx, id)
	switch {
	case err != nil:
		c.log.WarnContext(r.Context(), "trace not read", "error", err)
		refuse(w, err)
	case len(spans) == 0:
		refuse(w, &protocol.Error{Code: protocol.CodeNotFound, Field: "trace", Message: "there is no such trace (any more)"})
	default:
		answer(w, http.StatusOK, map[string]any{"trace_id": id, "start": spans[0].Timestamp, "spans": Flatten(spans)})
	}
}

// Flatten puts the spans of a trace, given in the order of their start, under their
// parents.
func Flatten(spans []store.Span) []Span {
	out := make([]Span, 0, len(spans))
	var walk func(nodes []*store.Node, depth int)
	walk = func(nodes []*store.Node, depth int) {
		for _, n := range nodes {
			out = append(out, Span{
				Depth: depth, SpanID: n.SpanID, Service: n.Service, Name: n.Name, Kind: n.Kind, Pool: n.Traffic.Pool,
				Start: ms(n.Timestamp.Sub(spans[0].Timestamp)), Duration: ms(n.Duration),
				Status: n.Status, StatusText: n.StatusText, Attributes: n.Attributes,
			})
			walk(n.Children, depth+1)
		}
	}
	walk(store.Tree(spans), 0)
	return out
}
