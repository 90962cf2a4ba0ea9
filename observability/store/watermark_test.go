package store_test

import (
	"testing"
	"time"
)

func TestWatermarkIsThatOfTheLastReceiver(t *testing.T) {
	s, c, _ := open(t)
	now := time.Now().UTC()
	is := func(when string, want time.Time) {
		t.Helper()
		if got, err := s.Watermark(t.Context()); err != nil || !got.Equal(want) {
			t.Errorf("%s: watermark = %v, %v; want %v", when, got, err, want)
		}
	}
	mark := func(receiver string, at time.Time) {
		t.Helper()
		if err := s.Mark(t.Context(), receiver, at); err != nil {
			t.Fatal(err)
		}
	}
	is("nothing", time.Time{})
	mark("a", now.Add(-3*time.Second))
	mark("a", now)
	is("one receiver", now)
	mark("b", now.Add(-time.Minute))
	is("another hangs", now.Add(-time.Minute))
	mark("gone", now.Add(-time.Hour))
	is("one is long gone", now.Add(-time.Minute))
	if err := c.Exec(t.Context(), "OPTIMIZE TABLE traffic_watermark FINAL"); err != nil {
		t.Fatal(err)
	}
	is("merged", now.Add(-time.Minute))
}
