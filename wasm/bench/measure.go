package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// sample is one slice of one variant.
type sample struct {
	rate float64 // requests a second
	cpu  float64 // seconds of the worker for each request; 0 where not known
}

// result is a variant with its samples, one for each round.
type result struct {
	variant variant
	samples []sample
}

func measure(ctx context.Context, c config, e *edge, variants []variant, log *slog.Logger) ([]result, error) {
	pools := make([]*clients, len(variants))
	results := make([]result, len(variants))
	for i, v := range variants {
		p, err := dial(e.addr(i), c.connections)
		if err != nil {
			return nil, err
		}
		defer p.close()
		pools[i], results[i].variant = p, v
		if _, _, err := p.run(ctx, c.warmUp); err != nil {
			return nil, fmt.Errorf("warm up %s: %w", v.name, err)
		}
	}
	for round := range c.rounds {
		for j := range variants {
			i := (j + round) % len(variants) // nobody always follows the same one
			s, err := slice(ctx, e, pools[i], c.slice)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", variants[i].name, err)
			}
			results[i].samples = append(results[i].samples, s)
		}
		if (round+1)%10 == 0 {
			log.Info("measured", "rounds", round+1, "of", c.rounds)
		}
	}
	return results, nil
}

func slice(ctx context.Context, e *edge, p *clients, d time.Duration) (sample, error) {
	before := e.workerCPU()
	n, took, err := p.run(ctx, d)
	if err != nil {
		return sample{}, err
	}
	return sample{rate: float64(n) / took.Seconds(), cpu: (e.workerCPU() - before).Seconds() / float64(n)}, nil
}
