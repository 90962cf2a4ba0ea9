// Package top shows the probes in a terminal, like top(1): how well each works and
// what it costs, what is slow and why, and the latest slow events.
//
// Render is a pure function of a snapshot; Run asks the probe process for one again
// and again and draws it. It reads no keys: Ctrl-C ends it. A terminal library lost:
// one screen without input needs two escape sequences.
package top

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tracegate/tracegate/bpf"
	"github.com/tracegate/tracegate/bpf/probe"
)

// Config says what to show where.
type Config struct {
	Addr     string        // of the probe process's admin interface
	Interval time.Duration // between two drawings
	Once     bool          // draw once and return, without escape sequences
}

// DefaultConfig shows the probes of this machine every two seconds.
func DefaultConfig() Config {
	return Config{Addr: bpf.DefaultConfig().Admin, Interval: 2 * time.Second}
}

const (
	home  = "\x1b[H" // cursor to the top left
	below = "\x1b[J" // erase what is below
	wipe  = "\x1b[K" // erase the rest of the line
	hide  = "\x1b[?25l\x1b[2J"
	show  = "\x1b[?25h"
)

// Run draws until ctx is done. Size tells the terminal's columns and rows. While the
// probes cannot be reached it says so and keeps trying.
func Run(ctx context.Context, cfg Config, out io.Writer, size func() (columns, rows int)) error {
	client := &http.Client{Timeout: 5 * time.Second}
	if cfg.Once {
		s, err := bpf.Fetch(ctx, client, cfg.Addr)
		if err != nil {
			return err
		}
		columns, _ := size()
		_, err = io.WriteString(out, Render(s, columns, 1<<16))
		return err
	}
	if _, err := io.WriteString(out, hide); err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	defer func() { _, _ = io.WriteString(out, show) }() // the terminal may be gone
	tick := time.NewTicker(cfg.Interval)
	defer tick.Stop()
	for {
		columns, rows := size()
		s, err := bpf.Fetch(ctx, client, cfg.Addr)
		screen := ""
		if err != nil {
			screen = clip(err.Error(), columns) + "\n"
		} else {
			screen = Render(s, columns, rows)
		}
		if _, err := io.WriteString(out, home+strings.ReplaceAll(screen, "\n", wipe+"\r\n")+below); err != nil {
			return fmt.Errorf("draw: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Render returns the screen for a snapshot: at most rows lines of at most columns
// characters. What is slow comes first, so that a small terminal shows it.
func Render(s bpf.Snapshot, columns, rows int) string {
	lines := []string{fmt.Sprintf("tracegate probe  %s  %d processes watched, last %s", s.At.Format("15:04:05"), s.Watched, s.Window.Round(time.Second))}
	lines = append(lines, "", fmt.Sprintf("%-14s %-9s %10s %9s %8s %8s  %s", "PROBE", "STATE", "EVENTS/S", "EACH", "CORE", "LOST", "WHY"))
	for _, p := range s.Probes {
		lines = append(lines, probeLine(p))
	}
	if len(s.Causes) > 0 {
		lines = append(lines, "", "SLOW BECAUSE")
		for _, c := range s.Causes {
			lines = append(lines, fmt.Sprintf("%-24s %s", owner(c.Owner), c.Text))
		}
	}
	lines = append(lines, "", fmt.Sprintf("%-24s %-15s %9s %9s %9s %9s  %s", "WHO", "WAITS FOR", "COUNT", "P50", "P95", "P99", "TARGET"))
	for _, l := range sorted(s.Latencies) {
		mark := ""
		if l.Threshold > 0 && l.P95 > l.Threshold {
			mark = "  > " + l.Threshold.String()
		}
		lines = append(lines, fmt.Sprintf("%-24s %-15s %9d %9s %9s %9s  %s%s", owner(l.Owner), l.Kind, l.Count, short(l.P50), short(l.P95), short(l.P99), l.Target, mark))
	}
	lines = append(lines, counterLines(s)...)
	if len(s.Slow) > 0 {
		lines = append(lines, "", "LATEST SLOW EVENTS")
		for _, e := range s.Slow {
			lines = append(lines, strings.TrimRight(fmt.Sprintf("%s %-24s %-10s %9s  pid %d %s %s %s", e.At.Format("15:04:05.000"), owner(e.Owner), e.Kind, short(e.Latency), e.PID, e.Command, e.Target, e.Detail), " "))
		}
	}
	for _, p := range s.Problems {
		lines = append(lines, "problem: "+p)
	}
	return join(lines, columns, rows)
}

func probeLine(p bpf.ProbeState) string {
	if p.State == probe.Off {
		return fmt.Sprintf("%-14s %-9s %10s %9s %8s %8s  %s", p.Probe, p.State, "", "", "", "", p.Why)
	}
	var lost uint64
	for _, n := range p.Lost {
		lost += n
	}
	core := fmt.Sprintf("%.2f%%", 100*p.Share)
	if p.Estimated {
		core = "~" + core
	}
	return strings.TrimRight(fmt.Sprintf("%-14s %-9s %10.0f %9s %8s %8d  %s", p.Probe, p.State, p.Rate, short(p.EventCost), core, lost, p.Why), " ")
}

func counterLines(s bpf.Snapshot) []string {
	var lines []string
	for _, c := range s.Counters {
		if c.Count > 0 {
			lines = append(lines, strings.TrimRight(fmt.Sprintf("%-24s %-15s %9d  %s  %s", owner(c.Owner), c.Kind, c.Count, c.Reason, c.Target), " "))
		}
	}
	for _, q := range s.Queues {
		if q.Length > 0 || q.Drops > 0 {
			lines = append(lines, fmt.Sprintf("%-24s %-15s %9d  of %d, %d dropped  %s", owner(q.Owner), "accept queue", q.Length, q.Limit, q.Drops, q.Listen))
		}
	}
	if len(lines) > 0 {
		lines = append([]string{""}, lines...)
	}
	return lines
}

// sorted puts the slowest of all, measured by its threshold, first, and leaves out
// what has not happened in the window.
func sorted(latencies []bpf.Latency) []bpf.Latency {
	out := slices.DeleteFunc(slices.Clone(latencies), func(l bpf.Latency) bool { return l.Count == 0 })
	slices.SortStableFunc(out, func(a, b bpf.Latency) int { return cmp.Compare(excess(b), excess(a)) })
	return out
}

func excess(l bpf.Latency) float64 {
	if l.Threshold == 0 {
		return 0
	}
	return float64(l.P95) / float64(l.Threshold)
}

func owner(o probe.Owner) string {
	switch {
	case o.Service != "" && o.Pool != "":
		return o.Service + "." + o.Pool
	case o.Service != "":
		return o.Service
	case o.Name != "":
		return o.Name
	default:
		return "(machine)"
	}
}

// short prints three digits: 1.23ms, 45.6us, 789ns.
func short(d time.Duration) string {
	for _, u := range []struct {
		d time.Duration
		s string
	}{{time.Second, "s"}, {time.Millisecond, "ms"}, {time.Microsecond, "us"}} {
		if d < u.d {
			continue
		}
		v := float64(d) / float64(u.d)
		digits := 2
		if v >= 100 {
			digits = 0
		} else if v >= 10 {
			digits = 1
		}
		return fmt.Sprintf("%.*f%s", digits, v, u.s)
	}
	return fmt.Sprintf("%dns", d)
}

func join(lines []string, columns, rows int) string {
	var b strings.Builder
	for _, l := range lines[:min(len(lines), max(rows-1, 1))] {
		b.WriteString(clip(l, columns))
		b.WriteByte('\n')
	}
	return b.String()
}

// clip cuts a line to the terminal's width and takes out what a terminal would obey:
// names of commands are whatever their process says.
func clip(line string, columns int) string {
	line = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == utf8.RuneError {
			return '?'
		}
		return r
	}, line)
	if columns > 0 && utf8.RuneCountInString(line) > columns {
		return string([]rune(line)[:columns])
	}
	return line
}
