package client

import (
	"testing"
	"time"
)

func TestPause(t *testing.T) {
	r := Retry{Attempts: 9, Base: 100 * time.Millisecond, Max: time.Second}
	for _, tt := range []struct {
		name    string
		attempt int
		random  float64
		want    time.Duration
	}{
		{"first, least", 0, 0, 0},
		{"first, half", 0, 0.5, 50 * time.Millisecond},
		{"doubles", 2, 0.5, 200 * time.Millisecond},
		{"stops at max", 4, 0.5, 500 * time.Millisecond},
		{"does not overflow", 1 << 20, 0.5, 500 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := r.Pause(tt.attempt, tt.random); got != tt.want {
				t.Errorf("Pause(%d, %v) = %v, want %v", tt.attempt, tt.random, got, tt.want)
			}
		})
	}
}
