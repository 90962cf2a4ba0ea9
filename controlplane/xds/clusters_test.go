package xds

import (
	"testing"
	"time"
)

// TestDeadProcessIsFoundWithinASecond: a connection that is refused fails at once, so what
// counts is when it is tried.
func TestDeadProcessIsFoundWithinASecond(t *testing.T) {
	h := healthCheck("")
	interval := h.GetInterval().AsDuration()
	longest := interval + interval*time.Duration(h.GetIntervalJitterPercent())/100
	if took := time.Duration(h.GetUnhealthyThreshold().GetValue()) * longest; took >= time.Second {
		t.Errorf("found after %v", took)
	}
	if h.GetNoTrafficInterval().AsDuration() != interval {
		t.Error("later where nobody sends requests")
	}
}
