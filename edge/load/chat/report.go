package chat

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/tracegate/tracegate/edge/load"
)

// Schema names the form of [Report] in JSON.
const Schema = "tracegate.load.chat/1"

// Report is the outcome of [Faults] or [Scenarios].
type Report struct {
	Schema    string             `json:"schema"`
	OK        bool               `json:"ok"`
	Engines   string             `json:"engines"` // embedded or real
	Seed      uint64             `json:"seed,omitempty"`
	Started   time.Time          `json:"started"`
	Ended     time.Time          `json:"ended"`
	SettledMS float64            `json:"settled_ms,omitempty"` // until all was quiet
	Faults    []Struck           `json:"faults,omitempty"`
	Messages  Totals             `json:"messages"`
	Sockets   map[string]int64   `json:"connections,omitempty"`
	Promises  []load.Promise     `json:"promises"`
	TookMS    map[string]float64 `json:"took_ms,omitempty"` // of scenarios
}

func (r *Report) finish() {
	r.OK = len(r.Promises) > 0 && !slices.ContainsFunc(r.Promises, func(p load.Promise) bool { return !p.Held })
}

func (c *Connections) counts() map[string]int64 {
	return map[string]int64{
		"opened": c.Opened.Load(), "failed": c.Failed.Load(), "hung_up": c.Hung.Load(), "closed": c.Closed.Load(),
		"broken": c.Broken.Load(), "late_resumes": c.Late.Load(), "entries_by_resume": c.Resumed.Load(),
		"unanswered_refreshes": c.Unanswered.Load(), "logins_again": c.Logins.Load(),
	}
}

// Write prints the report as JSON or for people.
func (r Report) Write(out io.Writer, format string) error {
	if format == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "ENGINES\t%s\t\n", r.Engines)
	if len(r.Faults) > 0 {
		fmt.Fprintf(w, "SEED\t%d\t\n\nFAULT\tat\theld\thealed after\t\n", r.Seed)
		for _, f := range r.Faults {
			fmt.Fprintf(w, "%s\t%.1f s\t%.1f s\t%.1f s\t\n", f.Name, f.AtMS/1000, f.HeldMS/1000, f.HealedMS/1000)
		}
		s := r.Sockets
		fmt.Fprintf(w, "\nCONNECTIONS\topened\tfailed\thung up\tclosed\tbroken\tlate\tentries by resume\t\n\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n",
			s["opened"], s["failed"], s["hung_up"], s["closed"], s["broken"], s["late_resumes"], s["entries_by_resume"])
	}
	m := r.Messages
	fmt.Fprintf(w, "\nMESSAGES\tasked\tacknowledged\tstored\tentries\tdeliveries\tlost\tduplicated\tout of order\tgaps\twrong\trefused\tunknown\t\n")
	fmt.Fprintf(w, "\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", m.Asked, m.Accepted, m.Stored, m.Entries, m.Deliveries,
		m.Lost, m.Duplicated, m.OutOfOrder, m.Gaps, m.Wrong, m.Refused, m.Unknown)
	for _, e := range m.Examples {
		fmt.Fprintf(w, "  %s\n", e)
	}
	fmt.Fprintf(w, "\nPROMISE\tmeasured\t\n")
	for _, p := range r.Promises {
		verdict := "held"
		if !p.Held {
			verdict = "BROKEN"
		}
		took := ""
		if t, ok := r.TookMS[p.Key]; ok {
			took = fmt.Sprintf(" (%.1f s)", t/1000)
		}
		fmt.Fprintf(w, "%s  %s\t%s%s\t\n", verdict, p.Claim, p.Measured, took)
	}
	return w.Flush()
}
