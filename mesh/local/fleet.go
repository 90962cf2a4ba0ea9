package local

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"
)

// Fleet is a pool of processes whose number changes: what a Deployment, its autoscaler and
// EndpointSlices are in a cluster. A process is added to those that serve once it is ready.
// One that has to go is taken out first, then asked to end after a while, in which edges
// have heard of it, and may drain as long as its part says. Those with the fewest
// connections go first.
type Fleet struct {
	// Fixed are addresses of processes that are always there.
	Fixed []string
	// Make says what the nth further process is; it must listen where nobody else does.
	Make func(n int) (Instance, error)
	// Want is how many there should be, of has; it is asked every 250 ms.
	Want func(ctx context.Context, has int) int
	// Serve tells edges of all addresses that serve.
	Serve func(addrs []string) error
	// Leave is how long edges may take to hear that a process does not serve any more.
	Leave time.Duration
	Log   *slog.Logger
}

// Instance is one process of a fleet.
type Instance struct {
	Part Part
	Addr string
	// Connections it has; nil, or an error: as if it had none.
	Connections func(context.Context) (float64, error)
}

const wantEvery = 250 * time.Millisecond

// instance is one that runs.
type instance struct {
	Instance
	stop func()
}

// Run keeps as many processes as are wanted until ctx is done, and then ends those it has
// started. Processes that have not ended when kill is done are killed.
func (f Fleet) Run(ctx, kill context.Context, s *Supervisor) error {
	var running []instance
	var leaving sync.WaitGroup
	defer leaving.Wait()
	defer func() {
		for _, i := range running {
			leaving.Go(i.stop)
		}
	}()
	tick := time.NewTicker(wantEvery)
	defer tick.Stop()
	for made := 0; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		has := len(f.Fixed) + len(running)
		want := max(f.Want(ctx, has), len(f.Fixed))
		switch {
		case want > has:
			added := f.launch(ctx, kill, s, made, want-has)
			made += want - has
			running = append(running, added...)
			if err := f.serve(running); err != nil && ctx.Err() == nil {
				f.Log.Error("new processes are not served from", "error", err)
			}
		case want < has:
			var gone []instance
			gone, running = f.choose(ctx, running, has-want)
			if err := f.serve(running); err != nil {
				f.Log.Error("processes stay, since edges cannot be told", "error", err)
				running = append(running, gone...)
				continue
			}
			for _, i := range gone {
				f.Log.Info("process leaves", "process", i.Part.Name)
				leaving.Go(func() { f.leave(ctx, i) })
			}
		}
	}
}

// leave ends a process that edges do not know any more.
func (f Fleet) leave(ctx context.Context, i instance) {
	wait := time.NewTimer(f.Leave)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
	i.stop()
}

// launch starts n processes at once, and returns those that are ready.
func (f Fleet) launch(ctx, kill context.Context, s *Supervisor, made, n int) []instance {
	ready := make([]*instance, n)
	var starting sync.WaitGroup
	for k := range n {
		starting.Go(func() {
			i, err := f.Make(made + k)
			if err == nil {
				var stop func()
				if stop, err = s.Launch(ctx, kill, i.Part); err == nil {
					ready[k] = &instance{i, stop}
					return
				}
			}
			if ctx.Err() == nil {
				f.Log.Error("process did not start", "error", err) // the next look tries again
			}
		})
	}
	starting.Wait()
	var out []instance
	for _, i := range ready {
		if i != nil {
			out = append(out, *i)
		}
	}
	return out
}

// choose takes the n with the fewest connections.
func (f Fleet) choose(ctx context.Context, running []instance, n int) (gone, left []instance) {
	counts := make(map[string]float64, len(running))
	for _, i := range running {
		ask, cancel := context.WithTimeout(ctx, time.Second)
		counts[i.Part.Name] = i.connections(ask)
		cancel()
	}
	sorted := slices.Clone(running)
	slices.SortStableFunc(sorted, func(a, b instance) int { return cmp.Compare(counts[a.Part.Name], counts[b.Part.Name]) })
	return sorted[:n], sorted[n:]
}

func (i instance) connections(ctx context.Context) float64 {
	if i.Connections == nil {
		return 0
	}
	n, err := i.Connections(ctx)
	if err != nil || math.IsNaN(n) {
		return 0
	}
	return n
}

func (f Fleet) serve(running []instance) error {
	addrs := slices.Clone(f.Fixed)
	for _, i := range running {
		addrs = append(addrs, i.Addr)
	}
	return f.Serve(addrs)
}

var errTaken = errors.New("name empty or taken, no command or no readiness check")

// Launch starts one more part while [Supervisor.Run] runs, and returns when it is ready.
// stop ends it as Run would, and returns when it has ended; it must be called before Run
// returns.
func (s *Supervisor) Launch(ctx, kill context.Context, p Part) (stop func(), err error) {
	if p.Name == "" || len(p.Argv) == 0 || p.Ready == nil || !s.status.add(p.Name) {
		return nil, errTaken
	}
	partCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k := &keeper{part: p, cfg: s.cfg, status: s.status, log: s.log.With("process", p.Name), first: make(chan error, 1)}
	ended := make(chan struct{})
	go func() { k.keep(partCtx, kill); close(ended) }()
	stop = func() {
		cancel()
		<-ended
		s.status.remove(p.Name)
	}
	if err := k.started(ctx); err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}
