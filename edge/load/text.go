package load

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// write renders a report as JSON, or by its own text function.
func write(out io.Writer, format string, report any, text func(io.Writer) error) error {
	if format != "json" {
		return text(out)
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(report)
}

// text is the report for people.
func (r Report) text(out io.Writer) error {
	w := table(out)
	fmt.Fprintf(w, "TIMELINE\tafter fault\tclock\t\n")
	for _, m := range r.Timeline {
		clock, after := "-", "-"
		if !m.Time.IsZero() {
			clock = m.Time.Local().Format("15:04:05.000")
			after = seconds(m.AfterFault)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", strings.ReplaceAll(m.Event, "_", " "), after, clock, m.Note)
	}
	fmt.Fprintln(w)
	r.decisionTable(w)
	fmt.Fprintln(w)
	groupTable(w, r.Groups)
	fmt.Fprintln(w)
	messageTable(w, r.Groups)
	fmt.Fprintln(w)
	PromiseTable(w, r.Promises)
	return w.Flush()
}

func (r Report) decisionTable(w io.Writer) {
	names := map[string]string{}
	for _, g := range r.Groups {
		names[g.ID] = g.Name
	}
	fmt.Fprintf(w, "DECISION\tgroup\tclock\tby\treason\n")
	for _, d := range r.Decisions {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", d.Action, names[string(d.Group)], d.Time.Local().Format("15:04:05.000"), d.By, d.Reason)
		for _, cause := range d.Causes {
			fmt.Fprintf(w, "\t\t\t\tperhaps because %s\n", cause)
		}
	}
}

func table(out io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(out, 0, 8, 2, ' ', 0) }

func groupTable(w io.Writer, groups []GroupReport) {
	fmt.Fprintf(w, "GROUP\tphase\trequests\tgiven up\t5xx\ttransport\tP50 ms\tP95 ms\tP99 ms\tmax ms\t\n")
	for _, g := range groups {
		name := g.Name + " " + g.ID
		if g.Faulty {
			name += " (fault)"
		}
		for _, p := range []struct {
			name string
			f    Figures
		}{{"before", g.Phases.Before}, {"fault", g.Phases.Fault}, {"isolated", g.Phases.Isolated}, {"after", g.Phases.After}} {
			figuresRow(w, name, p.name, p.f)
			name = ""
		}
	}
}

func figuresRow(w io.Writer, name, phase string, f Figures) {
	fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t\n",
		name, phase, f.Requests, f.Failed, f.Errors5xx, f.ErrorsTransport, f.P50, f.P95, f.P99, f.Max)
}

func messageTable(w io.Writer, groups []GroupReport) {
	fmt.Fprintf(w, "MESSAGES\tsent\taccepted\treceived\tlost\tduplicated\tout of order\tgaps\twrong\tunknown\tsockets\tmoved\tdropped\t\n")
	for _, g := range groups {
		m, s := g.Messages, g.Sockets
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", g.Name,
			m.Sent, m.Accepted, m.Received, m.Lost, m.Duplicated, m.OutOfOrder, m.Gaps, m.Wrong, m.Unknown, s.Open, s.Moved, s.Dropped)
	}
	for _, g := range groups {
		for _, e := range g.Messages.Examples {
			fmt.Fprintf(w, "  %s: %s\n", g.Name, e)
		}
	}
}

// PromiseTable prints promises, each with its verdict first.
func PromiseTable(w io.Writer, promises []Promise) {
	fmt.Fprintf(w, "PROMISE\tmeasured\t\n")
	for _, p := range promises {
		verdict := "held"
		if !p.Held {
			verdict = "BROKEN"
		}
		fmt.Fprintf(w, "%s  %s\t%s\t\n", verdict, p.Claim, p.Measured)
	}
}

// seconds shows milliseconds as signed seconds.
func seconds(milli float64) string {
	return fmt.Sprintf("%+.3f s", time.Duration(milli*float64(time.Millisecond)).Seconds())
}

func totalsTable(w io.Writer, groups []GroupTotals) {
	fmt.Fprintf(w, "GROUP\tphase\trequests\tgiven up\t5xx\ttransport\tP50 ms\tP95 ms\tP99 ms\tmax ms\t\n")
	all := make([]GroupReport, len(groups))
	for i, g := range groups {
		figuresRow(w, g.Name+" "+g.ID, "all", g.Total)
		all[i] = GroupReport{Name: g.Name, Sockets: g.Sockets, Messages: g.Messages}
	}
	fmt.Fprintln(w)
	messageTable(w, all)
}
