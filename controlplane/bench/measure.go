package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tracegate/tracegate/edge/envoy"
	"github.com/tracegate/tracegate/mesh/freeport"
)

// sample is one change.
type sample struct {
	acked  time.Duration // by the last client
	routed time.Duration // first request, by the Envoy
	read   time.Duration // of the document, in the two above
	envoy  time.Duration // CPU time of its main thread
	usage
	plan  usage // without reading
	cache usage // without rendering, either
}

type result struct {
	size       size
	ours, peer []sample
}

// party is a control plane with its edges.
type party struct {
	role    string
	process *exec.Cmd
	in      io.WriteCloser
	out     *json.Decoder
	clients *clients
	edge    *edge
}

func measure(ctx context.Context, c config, s size, log *slog.Logger) (result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	res := result{size: s}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return res, err
	}
	defer os.RemoveAll(dir)
	var ups []string
	for _, pool := range pools {
		addr, err := upstream(ctx, pool)
		if err != nil {
			return res, err
		}
		ups = append(ups, addr)
	}
	var parties []*party
	for _, role := range []string{"ours", "peer"} {
		p, err := start(ctx, c, s, role, dir, strings.Join(ups, ","), log)
		if err != nil {
			return res, fmt.Errorf("%s: %w", role, err)
		}
		defer p.close()
		parties = append(parties, p)
		log.Info("started", "control plane", role, "rules", s.total())
	}
	const warmUp = 4
	for round := range c.rounds + warmUp {
		to := pools[(round+1)%2]
		for j := range parties {
			p := parties[(j+round)%2] // nobody always follows the other
			got, err := p.change(ctx, to)
			switch {
			case err != nil:
				return res, fmt.Errorf("%s: %w", p.role, err)
			case round < warmUp:
			case p.role == "ours":
				res.ours = append(res.ours, got)
			default:
				res.peer = append(res.peer, got)
			}
		}
		if (round+1)%20 == 0 {
			log.Info("measured", "rounds", round+1)
		}
	}
	return res, nil
}

func start(ctx context.Context, c config, s size, role, dir, ups string, log *slog.Logger) (*party, error) {
	listen, err := freeport.On("127.0.0.1")
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &party{role: role}
	own := filepath.Join(dir, role)
	if err := os.Mkdir(own, 0o700); err != nil {
		return nil, err
	}
	p.process = exec.CommandContext(ctx, self, "-role", role, "-listen", listen, "-upstreams", ups, "-dir", own,
		"-services", strconv.Itoa(s.services), "-rules", strconv.Itoa(s.rules))
	p.process.Stderr = os.Stderr
	if p.in, err = p.process.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.process.Start(); err != nil {
		return nil, err
	}
	p.out = json.NewDecoder(bufio.NewReader(out))
	hello, err := p.hear()
	if err != nil {
		return p, err
	}
	if p.clients, err = connect(ctx, hello.Addr, c.clients); err != nil {
		return p, err
	}
	binary, err := envoy.Find(ctx, c.envoy, "", log)
	if err != nil {
		return p, err
	}
	if p.edge, err = startEdge(ctx, binary, dir, hello.Addr, listen); err != nil {
		return p, err
	}
	_, err = p.edge.until(pools[0])
	return p, err
}

func (p *party) close() {
	if p.edge != nil {
		p.edge.close()
	}
	_ = p.in.Close() // it ends by itself then
	_ = p.process.Wait()
}

func (p *party) hear() (said, error) {
	var s said
	err := p.out.Decode(&s)
	return s, err
}

func (p *party) ask(line string) (said, error) {
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		return said{}, err
	}
	return p.hear()
}

// change has the control plane make the change and waits for everybody. What the
// policy costs to read is no part of the usage.
func (p *party) change(ctx context.Context, to string) (sample, error) {
	type asked struct {
		at  time.Time
		err error
	}
	was := pools[0]
	if to == was {
		was = pools[1]
	}
	if _, err := p.edge.until(was); err != nil { // a pool that is not healthy would answer too soon
		return sample{}, err
	}
	routed := make(chan asked, 1)
	go func() {
		at, err := p.edge.until(to)
		routed <- asked{at, err}
	}()
	before := p.edge.mainCPU()
	done, err := p.ask(to)
	if err != nil {
		return sample{}, err
	}
	began := time.Unix(0, done.Start)
	acked, err := p.clients.all(ctx)
	if err != nil {
		return sample{}, err
	}
	first := <-routed
	if first.err != nil {
		return sample{}, first.err
	}
	after, err := p.ask("")
	if err != nil {
		return sample{}, err
	}
	return sample{
		acked: acked.Sub(began), routed: first.at.Sub(began), read: time.Duration(done.Read), envoy: p.edge.mainCPU() - before,
		usage: after.minus(done.usage), plan: after.minus(done.Known), cache: after.minus(done.Rendered),
	}, nil
}
