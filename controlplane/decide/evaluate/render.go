package evaluate

import (
	"fmt"
	"strings"
	"time"
)

// Markdown is the report as tables.
func (r *Report) Markdown() string {
	var b strings.Builder
	r.headline(&b)
	r.table(&b, "\nThe same where a span can be counted one second after its request has ended - median / P95, missed:\n\n", "late")
	r.table(&b, "\nDelay by scenario - median / P95, missed:\n\n", "scenario")
	r.table(&b, "\nDelay by size of a latency fault, 50 req/s; up to x2 no group's objective of 500 ms is broken, at x3 half of them - median / P95, missed:\n\n", "latency")
	r.table(&b, "\nDelay by size of an error fault, 50 req/s; the objective is 5% - median / P95, missed:\n\n", "errors")
	r.table(&b, "\nDelay by rate - median / P95, missed:\n\n", "rate")
	r.wrong(&b)
	r.calm(&b)
	return b.String()
}

func (r *Report) head(b *strings.Builder, first string) {
	fmt.Fprintf(b, "| %s | %s |\n|---|%s\n", first, strings.Join(r.Methods, " | "), strings.Repeat("---:|", len(r.Methods)))
}

func (r *Report) headline(b *strings.Builder) {
	var cells []Cell
	for _, c := range r.Cells {
		if c.Table == "headline" {
			cells = append(cells, c)
		}
	}
	b.WriteString("| method | latency x5: median | P95 | missed | 20% errors: median | P95 | missed | wrong group in these runs | isolations in 1,000 group-days without a fault |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for i, name := range r.Methods {
		fmt.Fprintf(b, "| %s |", name)
		wrong := 0
		for _, c := range cells {
			res := c.Results[i]
			wrong += res.Wrong
			fmt.Fprintf(b, " %s | %s | %d of %d |", word(res.Median), word(res.P95), res.Missed, res.Runs)
		}
		fmt.Fprintf(b, " %d | %s |\n", wrong, r.rate(i))
	}
}

// rate says how often a method is wrong on traffic without faults, and how sure that is.
func (r *Report) rate(method int) string {
	days, wrong := r.Total(method)
	return fmt.Sprintf("%s (%d in %.0f; at most %s with 95%% confidence)", number(Per1000(wrong, days)), wrong, days, number(1000*UpTo(wrong)/days))
}

func number(v float64) string {
	if v >= 10 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2g", v)
}

func (r *Report) table(b *strings.Builder, title, table string) {
	b.WriteString(title)
	r.head(b, "fault")
	for _, c := range r.Cells {
		if c.Table != table {
			continue
		}
		fmt.Fprintf(b, "| %s |", c.Name)
		for _, res := range c.Results {
			fmt.Fprintf(b, " %s |", res)
		}
		b.WriteString("\n")
	}
}

// String is median / P95, and how many were missed.
func (r Result) String() string {
	if r.Missed == r.Runs {
		return "missed"
	}
	s := word(r.Median) + " / " + word(r.P95)
	if r.Missed > 0 {
		s += fmt.Sprintf(", %s missed", percent(r.Missed, r.Runs))
	}
	return s
}

func percent(n, of int) string { return number(100*float64(n)/float64(of)) + "%" }

func (r *Report) wrong(b *strings.Builder) {
	b.WriteString("\nFaults that are no group's own: isolations in a run of a minute, all of them wrong:\n\n")
	r.head(b, "event")
	for _, c := range r.Cells {
		if c.Table != "wrong" {
			continue
		}
		fmt.Fprintf(b, "| %s |", c.Name)
		for _, res := range c.Results {
			fmt.Fprintf(b, " %.2g |", float64(res.Wrong)/float64(res.Runs))
		}
		b.WriteString("\n")
	}
}

func (r *Report) calm(b *strings.Builder) {
	b.WriteString("\nIsolations in 1,000 group-days without a fault, by what the traffic is like (observed count):\n\n")
	r.head(b, "traffic")
	for _, c := range r.Calm {
		fmt.Fprintf(b, "| %s |", c.Shape)
		for i := range r.Methods {
			fmt.Fprintf(b, " %s (%d) |", number(Per1000(c.Wrong[i], c.Days[i])), c.Wrong[i])
		}
		b.WriteString("\n")
	}
}

func word(d time.Duration) string {
	if d == Missed {
		return "-"
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// Figures are lines for machines: ours against each other method.
func (r *Report) Figures() string {
	var b strings.Builder
	for _, c := range r.Cells {
		if c.Table != "headline" {
			continue
		}
		name := map[string]string{"latency x5": "latency_x5", "20% errors": "errors_20"}[c.Name]
		for i, m := range r.Methods[1:] {
			ours, peer := c.Results[0], c.Results[i+1]
			line(&b, "decide_median_"+name, ours.Median.Seconds(), "s", m, peer.Median.Seconds())
			line(&b, "decide_p95_"+name, ours.P95.Seconds(), "s", m, peer.P95.Seconds())
		}
	}
	days, wrong := r.Total(0)
	for i, m := range r.Methods[1:] {
		d, w := r.Total(i + 1)
		line(&b, "decide_false_isolations", Per1000(wrong, days), "/1000_group_days", m, Per1000(w, d))
	}
	return b.String()
}

func line(b *strings.Builder, name string, ours float64, unit, peer string, theirs float64) {
	ratio := "none"
	if theirs > 0 {
		ratio = fmt.Sprintf("%.3f", ours/theirs)
	}
	if theirs > Missed.Seconds()/2 {
		fmt.Fprintf(b, "figure %s %.3f %s vs %s missed ratio 0\n", name, ours, unit, snake(peer))
		return
	}
	fmt.Fprintf(b, "figure %s %.3f %s vs %s %.3f ratio %s\n", name, ours, unit, snake(peer), theirs, ratio)
}

func snake(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, ", ", "_"), " ", "_")
}
