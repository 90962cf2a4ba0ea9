package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tracegate/tracegate/mesh/benchdoc"
)

const mib = 1 << 20

func (r operatorReport) section() string {
	var b strings.Builder
	fmt.Fprintf(&b, "## What %d MicroServices cost the operator\n\n", r.services)
	b.WriteString("| | time | its CPU | calls of the API server | looks at a service | memory |\n|---|---:|---:|---:|---:|---:|\n")
	fmt.Fprintf(&b, "| from the first service until the operator has written all that there is to write | %s | | | | |\n", r.written.Round(100*time.Millisecond))
	fmt.Fprintf(&b, "| until the last has settled | %s | %s | %d | %d | %d MiB, at most %d |\n",
		r.steady.Round(100*time.Millisecond), r.first.CPU.Round(100*time.Millisecond), r.first.Calls, r.first.Looks, r.first.Resident/mib, r.first.Peak/mib)
	fmt.Fprintf(&b, "| nothing changes | %s | %s | %d | %d | |\n", quietTime, r.quiet.CPU.Round(10*time.Millisecond), r.quiet.Calls, r.quiet.Looks)
	fmt.Fprintf(&b, "| another operator starts, with everything there: until it first looks at one | %s | | | | |\n", r.began.Round(100*time.Millisecond))
	fmt.Fprintf(&b, "| until it has looked at all | %s | %s | %d | %d | %d MiB, at most %d |\n",
		r.restart.Round(100*time.Millisecond), r.second.CPU.Round(100*time.Millisecond), r.second.Calls, r.second.Looks, r.second.Resident/mib, r.second.Peak/mib)
	b.WriteString("\n| calls | until settled | where nothing changes | of another that starts |\n|---|---:|---:|---:|\n")
	all := maps.Clone(r.first.By)
	maps.Copy(all, r.quiet.By)
	maps.Copy(all, r.second.By)
	for _, call := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "| %s | %d | %d | %d |\n", call, r.first.By[call], r.quiet.By[call], r.second.By[call])
	}
	fmt.Fprintf(&b, "| of its lease, besides | %d | %d | %d |\n", r.first.Lease, r.quiet.Lease, r.second.Lease)
	fmt.Fprintf(&b, `
Each service is a Deployment of one pod, two Services, an account, a network policy and an autoscaler. The operator is a process of its own with the rights that we install; watches are not counted
as calls, nor is its lease, which it renews every two seconds. API server, controller manager and scheduler are real and share the machine; kwok plays the nodes. %s

Repeat: %sgo tool task bench:operator%s
`, benchdoc.Machine(), "`", "`")
	return b.String()
}

func (r operatorReport) figures() string {
	n := float64(r.services)
	return strings.Join([]string{
		benchdoc.Figure("operator_written", "s", r.written.Seconds(), "-", 0),
		benchdoc.Figure("operator_steady", "s", r.steady.Seconds(), "-", 0),
		benchdoc.Figure("operator_calls_a_service", "calls", float64(r.first.Calls)/n, "-", 0),
		benchdoc.Figure("operator_memory", "MiB", float64(r.first.Resident)/mib, "-", 0),
		benchdoc.Figure("operator_idle_calls", "calls", float64(r.quiet.Calls), "-", 0),
		benchdoc.Figure("operator_restart", "s", r.restart.Seconds(), "-", 0),
		benchdoc.Figure("operator_restart_calls", "calls", float64(r.second.Calls), "-", 0),
		"",
	}, "\n")
}
