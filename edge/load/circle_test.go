package load

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/client/coretest"
	"github.com/tracegate/tracegate/observability/semconv"
)

func TestCircle(t *testing.T) {
	for _, tt := range []struct {
		name   string
		set    func(*product, *Config)
		broken []string // keys of promises
	}{
		{"all is well", func(*product, *Config) {}, nil},
		{"decides late", func(p *product, c *Config) { c.Limits.Decision = p.decideAfter / 2 }, []string{"decision"}},
		{"never decides", func(p *product, c *Config) {
			p.decideAfter, p.releaseAfter, c.Wait = 0, 0, 300*time.Millisecond
		},
			[]string{"decision", "programmed", "sockets", "healed", "released"}},
		{"acknowledges late", func(p *product, c *Config) { c.Limits.Programmed = p.programAfter / 2 }, []string{"programmed"}},
		{"policy does not release", func(p *product, c *Config) { p.releaseAfter, c.ReleaseWait = 0, 0 }, nil}, // asked for by the lab
		{"left isolated by a run before", func(p *product, c *Config) {
			p.state = ctlapi.StateForced
			p.core.Move(victim().ID(), semconv.PoolIsolated, protocol.Reconnect{})
		}, nil},
		{"sockets stay behind", func(p *product, c *Config) {
			p.moveSockets = false
			c.Wait = 2 * time.Second
		}, []string{"sockets", "healed", "released"}},
		{"loses pushes for good", func(p *product, c *Config) {
			p.core.Misbehave(coretest.Chaos{Push: func(m protocol.Message) []protocol.Message {
				if m.Seq > 3 {
					return nil
				}
				return []protocol.Message{m}
			}})
		}, []string{"messages"}},
		{"another group suffers", func(p *product, c *Config) {
			n := 0
			p.core.Misbehave(coretest.Chaos{Send: func(int) coretest.Verdict {
				if n++; n > 10 && n < 20 { // of all groups, and before the group is isolated
					return coretest.Refuse
				}
				return coretest.Take
			}})
		}, []string{"others"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newProduct(t)
			cfg := p.config()
			tt.set(p, &cfg)
			var out bytes.Buffer
			r, err := Circle(deadline(t), cfg, &out, quiet())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.broken, brokenKeys(r.Promises)); diff != "" {
				t.Errorf("broken promises (-want +got):\n%s\n%s", diff, out.String())
			}
			if n := len(r.Decisions); tt.broken == nil && n < 2 {
				t.Errorf("%d decisions reported, want the isolation and the release", n)
			}
			if r.OK != (len(tt.broken) == 0) {
				t.Errorf("OK = %v", r.OK)
			}
			for _, want := range []string{"TIMELINE", "canary+payment", "MESSAGES", "PROMISE"} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the text does not mention %s:\n%s", want, out.String())
				}
			}
			if !poll(t.Context(), time.Now().Add(5*time.Second), func() bool { return p.core.Sockets() == 0 }) {
				t.Errorf("%d sockets are still open", p.core.Sockets())
			}
			if testing.Verbose() && tt.broken == nil {
				t.Log("\n" + out.String())
			}
		})
	}
}

// What stands in JSON is what other programs rely on.
func TestReportJSON(t *testing.T) {
	var out bytes.Buffer
	r := Report{
		Schema: CircleSchema, Timeline: []Mark{{Event: EventRelease}, {Event: EventFaultOn, Time: at(1)}},
		Groups: []GroupReport{{Name: "g"}}, Promises: []Promise{{Key: "k"}},
	}
	if err := write(&out, "json", r, r.text); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	marks := got["timeline"].([]any)
	if _, has := marks[0].(map[string]any)["time"]; has {
		t.Error("a moment that did not come has a time")
	}
	if marks[1].(map[string]any)["time"] != "2026-01-01T00:00:01Z" {
		t.Errorf("mark = %v", marks[1])
	}
	g := got["groups"].([]any)[0].(map[string]any)
	for _, key := range []string{"name", "id", "faulty", "phases", "total", "sockets", "messages"} {
		if _, has := g[key]; !has {
			t.Errorf("group has no key %q: %v", key, g)
		}
	}
	figures := g["phases"].(map[string]any)["isolated"].(map[string]any)
	for _, key := range []string{"requests", "failed", "shed", "p50_ms", "p95_ms", "p99_ms", "max_ms", "attempts", "errors_5xx", "errors_transport"} {
		if _, has := figures[key]; !has {
			t.Errorf("figures have no key %q: %v", key, figures)
		}
	}
}

func TestCircleRefuses(t *testing.T) {
	p := newProduct(t)
	for _, tt := range []struct {
		want string
		set  func(*Config)
	}{
		{"fault pool", func(c *Config) { c.FaultPool = "unheard-of" }},
		{"fault group", func(c *Config) { c.FaultGroup = "unheard-of" }},
		{"on this machine", func(c *Config) { c.Edge = "http://192.0.2.7" }},
		{"401", func(c *Config) { c.Token = "wrong" }},
		{`takes it for "prod+payment"`, func(c *Config) { c.Groups[1].Header = nil }},
	} {
		cfg := p.config()
		cfg.Users, cfg.Duration = 2, time.Second
		tt.set(&cfg)
		if _, err := Circle(deadline(t), cfg, &bytes.Buffer{}, quiet()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Circle = %v, want an error that says %q", err, tt.want)
		}
	}
}
