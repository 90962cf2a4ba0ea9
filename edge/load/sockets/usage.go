package sockets

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// usage is what core processes use together, in bytes.
type usage struct {
	rss, heap, stacks float64
	collections       float64
	cpu               float64 // seconds
	sockets           float64
}

func (u usage) add(o usage) usage {
	return usage{u.rss + o.rss, u.heap + o.heap, u.stacks + o.stacks, u.collections + o.collections, u.cpu + o.cpu, u.sockets + o.sockets}
}

func (u usage) sub(o usage) usage {
	return usage{u.rss - o.rss, u.heap - o.heap, u.stacks - o.stacks, u.collections - o.collections, u.cpu - o.cpu, u.sockets - o.sockets}
}

// admin asks core's admin interfaces.
type admin struct {
	cores map[string]string
	token string
	http  *http.Client
}

func newAdmin(cfg Config) *admin {
	return &admin{cores: cfg.Cores, token: cfg.Token, http: &http.Client{Timeout: 30 * time.Second}}
}

// used reads what the processes use, by pool.
func (a *admin) used(ctx context.Context) (map[string]usage, error) {
	out := map[string]usage{}
	for pool, address := range a.cores {
		body, err := a.call(ctx, http.MethodGet, address+"/metrics")
		if err == nil {
			out[pool], err = parseUsage(bytes.NewReader(body))
		}
		if err != nil {
			return nil, fmt.Errorf("ask core of pool %s what it uses: %w", pool, err)
		}
	}
	return out, nil
}

// collect has the processes collect their garbage and give back what is free.
func (a *admin) collect(ctx context.Context) error {
	for pool, address := range a.cores {
		if _, err := a.call(ctx, http.MethodPost, address+"/v1/collect"); err != nil {
			return fmt.Errorf("have core of pool %s collect: %w", pool, err)
		}
	}
	return nil
}

func (a *admin) call(ctx context.Context, method, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	req.Header.Set("Accept", "text/plain;version=0.0.4")
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %.200s", resp.Status, body)
	}
	return body, err
}

func parseUsage(r io.Reader) (usage, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return usage{}, fmt.Errorf("read metrics: %w", err)
	}
	var u usage
	for name, to := range map[string]*float64{
		"process_resident_memory_bytes": &u.rss, "go_memstats_heap_alloc_bytes": &u.heap, "go_memstats_stack_inuse_bytes": &u.stacks,
		"go_gc_duration_seconds": &u.collections, "process_cpu_seconds_total": &u.cpu, "core_sockets": &u.sockets,
	} {
		f := families[name]
		if len(f.GetMetric()) == 0 {
			return usage{}, fmt.Errorf("metrics have no %s", name)
		}
		*to = value(f.GetMetric()[0])
	}
	return u, nil
}

func value(m *dto.Metric) float64 {
	switch {
	case m.GetSummary() != nil:
		return float64(m.GetSummary().GetSampleCount())
	case m.GetCounter() != nil:
		return m.GetCounter().GetValue()
	default:
		return m.GetGauge().GetValue()
	}
}
