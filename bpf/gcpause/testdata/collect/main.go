// Command collect runs garbage collections for the test of gcpause, one round for each
// line of its input, and says what the runtime itself has counted.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"runtime"
	"runtime/metrics"
)

// Counted is what the runtime knows about its pauses.
type Counted struct {
	Pauses uint64 // of every cause
	Cycles uint64
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	_ = out.Encode(count())
	for in.Scan() {
		for range 10 {
			runtime.GC()
		}
		_ = out.Encode(count())
	}
}

func count() Counted {
	s := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}, {Name: "/sched/pauses/total/other:seconds"}, {Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(s)
	var c Counted
	for _, h := range s[:2] {
		for _, n := range h.Value.Float64Histogram().Counts {
			c.Pauses += n
		}
	}
	c.Cycles = s[2].Value.Uint64()
	return c
}
