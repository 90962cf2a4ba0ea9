package bucket_test

import (
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/bucket"
)

func TestBucket(t *testing.T) {
	start := time.Unix(1000, 0)
	for _, c := range []struct {
		name      string
		perSecond float64
		burst     int
		at        []time.Duration
		want      string // of each take
	}{
		{"a burst at once, and no more", 1, 3, []time.Duration{0, 0, 0, 0, 0}, "yyynn"},
		{"a token for each second", 1, 1, []time.Duration{0, 999 * time.Millisecond, time.Second, 1999 * time.Millisecond, 2 * time.Second}, "ynyny"},
		{"it fills up to the burst only", 10, 2, []time.Duration{0, 0, time.Hour, time.Hour, time.Hour}, "yyyyn"},
		{"a time that goes back empties it", 1, 1, []time.Duration{0, -time.Hour, -time.Hour, time.Second - time.Hour}, "ynny"},
		{"next to no rate", 1e-300, 2, []time.Duration{0, 0, 0}, "yyn"},
		{"next to no limit", 1e300, 1, []time.Duration{0, 0, 0}, "yyy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bucket.Bucket
			got := ""
			for _, d := range c.at {
				if b.Take(start.Add(d), c.perSecond, c.burst) {
					got += "y"
				} else {
					got += "n"
				}
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestFull(t *testing.T) {
	now := time.Unix(1000, 0)
	var b bucket.Bucket
	if !b.Full(now) {
		t.Error("a new bucket is not full")
	}
	b.Take(now, 1, 2)
	if b.Full(now) || b.Full(now.Add(999*time.Millisecond)) {
		t.Error("full although a token is missing")
	}
	if !b.Full(now.Add(time.Second)) {
		t.Error("not full again")
	}
}

// TestRateIsReplaced: a bucket that is filled faster than before does not remember how
// long it would have taken.
func TestRateIsReplaced(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	var b bucket.Bucket
	if !b.Take(now, 0.001, 1) || b.Take(now, 0.001, 1) {
		t.Fatal("not one token in 1,000 s")
	}
	if b.Take(now, 10, 5) {
		t.Error("a token of an empty bucket")
	}
	for i := range 3 {
		if now = now.Add(100 * time.Millisecond); !b.Take(now, 10, 5) {
			t.Errorf("token %d of ten a second does not come", i)
		}
	}
	if !b.Take(now.Add(time.Hour), 0.001, 1) || b.Take(now.Add(time.Hour), 0.001, 1) {
		t.Error("filled more slowly again: not one token")
	}
}
