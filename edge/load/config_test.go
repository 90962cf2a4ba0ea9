package load

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatalf("the default is invalid: %v", err)
	}
	for _, tt := range []struct {
		want string
		set  func(*Config)
	}{
		{"edge", func(c *Config) { c.Edge = "http://192.0.2.1:8080" }},
		{"edge", func(c *Config) { c.Edge = "http://example.org" }},
		{"edge", func(c *Config) { c.Edge = "http://localhost.example.org" }},
		{"edge", func(c *Config) { c.Edge = "http://127.0.0.1.example.org" }},
		{"edge", func(c *Config) { c.Edge = "127.0.0.1:8080" }},
		{"edge admin", func(c *Config) { c.EdgeAdmin = "http://[2001:db8::1]:9901" }},
		{"control", func(c *Config) { c.Control = "https://127.0.0.1" }},
		{"core of pool canary", func(c *Config) { c.Cores = map[string]string{"canary": "http://10.0.0.1"} }},
		{"duration", func(c *Config) { c.Duration = 0 }},
		{"rate", func(c *Config) { c.Rate = math.NaN() }},
		{"rate, duration", func(c *Config) { c.Rate, c.Duration = 10_000, 10*time.Minute }},
		{"users", func(c *Config) { c.Users = 3 }},
		{"groups", func(c *Config) { c.Groups = nil }},
		{"max in flight", func(c *Config) { c.MaxInFlight = 0 }},
		{"settle, wait", func(c *Config) { c.Settle = 0 }},
		{"objective", func(c *Config) { c.Objective = 0 }},
		{"release wait, calm", func(c *Config) { c.ReleaseWait = -1 }},
		{"every", func(c *Config) { c.Every = -1 }},
		{"limits", func(c *Config) { c.Limits.Heal = 0 }},
		{"fault errors", func(c *Config) { c.FaultErrors = 1.5 }},
		{"fault latency", func(c *Config) { c.FaultLatency = -1 }},
		{"format", func(c *Config) { c.Format = "xml" }},
	} {
		cfg := DefaultConfig()
		tt.set(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), tt.want+":") {
			t.Errorf("Validate = %v, want an error that names %q", err, tt.want)
		}
	}
	for _, address := range []string{"http://localhost:1", "http://payment.localhost:1", "http://127.9.8.7:1", "http://[::1]:1"} {
		if err := Loopback(address); err != nil {
			t.Errorf("%s is refused: %v", address, err)
		}
	}
}
