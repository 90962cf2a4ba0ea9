//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tracegate/tracegate/mesh/benchdoc"
)

// underWay is how many messages may be on their way when as many as go are sent: an
// eighth of what the queue of one of our connections holds.
const underWay = 64

// hall is a server of two processes with one room: all members are connected to one of
// them, and messages come to the other.
type hall struct {
	server    server
	process   *process // that members are connected to
	speaker   *process // that messages come to
	load      *process
	publisher string // where speaker takes messages
	next      int64  // number of the next message
	full      []talk
	paced     []talk
}

// talk is one measurement of one room.
type talk struct {
	rate     float64 // deliveries a second
	p50, p99 float64 // milliseconds
	cpu      float64 // microseconds of both processes for a delivery
}

// fanOut measures rooms: first as many messages as go, then both servers at the same
// rate, which is half of what the slower of the two did.
func fanOut(ctx context.Context, c config) error {
	redis, err := start(ctx, "redis-server")
	if err != nil {
		return err
	}
	defer redis.stop()
	var reports []roomReport
	for i, members := range []int{10, 100, 1000} {
		r, err := measureRoom(ctx, c, redis.addr, members, 100+i)
		if err != nil {
			return fmt.Errorf("room of %d: %w", members, err)
		}
		reports = append(reports, r)
	}
	section := fanOutSection(c, reports)
	fmt.Print(section, "\n\n", fanOutFigures(reports))
	if c.write != "" {
		return benchdoc.Write(c.write, "bench:fanout", section)
	}
	return nil
}

func measureRoom(ctx context.Context, c config, redis string, members, network int) (r roomReport, err error) {
	var halls []*hall
	for i, s := range []server{ours(), centrifugeServer("centrifuge", "", false)} {
		h, err := openHall(ctx, s, redis, members, network+10*i)
		if err != nil {
			return r, fmt.Errorf("%s: %w", s.name, err)
		}
		defer h.close()
		halls = append(halls, h)
	}
	window := converseArgs{For: c.slice, Window: underWay}
	if err := eachHall(halls, c.rounds+1, func(h *hall, round int) error {
		t, err := h.talk(window)
		if round > 0 { // the first one warms up
			h.full = append(h.full, t)
		}
		return err
	}); err != nil {
		return r, err
	}
	slower := halls[0].median(halls[0].full, rateOf)
	for _, h := range halls {
		slower = min(slower, h.median(h.full, rateOf))
	}
	paced := converseArgs{For: c.slice, Window: 256, PerSecond: slower / 2 / float64(members)}
	err = eachHall(halls, c.rounds, func(h *hall, _ int) error {
		t, err := h.talk(paced)
		h.paced = append(h.paced, t)
		return err
	})
	return roomReport{members: members, halls: halls}, err
}

// eachHall measures in turn, in changing order.
func eachHall(halls []*hall, rounds int, f func(h *hall, round int) error) error {
	for round := range rounds {
		for j := range halls {
			h := halls[(j+round)%len(halls)]
			if err := f(h, round); err != nil {
				return fmt.Errorf("%s: %w", h.server.name, err)
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, rounds)
	}
	return nil
}

func openHall(ctx context.Context, s server, redis string, members, network int) (h *hall, err error) {
	h = &hall{server: s, next: 1}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	for _, p := range []**process{&h.process, &h.speaker} {
		if *p, err = start(ctx, s.name, redis, strconv.Itoa(members)); err != nil {
			return h, err
		}
	}
	if h.load, err = start(ctx, "load"); err != nil {
		return h, err
	}
	return h, errors.Join(
		h.load.ask("open", openArgs{Server: s.name, Addr: h.process.addr, Connections: members, Net: network, Room: true}, nil),
		h.speaker.ask("publisher", struct{}{}, &h.publisher),
		settle(ctx),
	)
}

func (h *hall) close() {
	for _, p := range []*process{h.load, h.process, h.speaker} {
		if p != nil {
			p.stop()
		}
	}
}

func (h *hall) talk(a converseArgs) (t talk, err error) {
	a.Publisher, a.First = h.publisher, h.next
	var got heard
	before, err := h.cpu()
	if err == nil {
		err = h.load.ask("converse", a, &got)
	}
	if err != nil {
		return t, err
	}
	after, err := h.cpu()
	if err != nil {
		return t, err
	}
	h.next += got.Messages
	return talk{
		rate: float64(got.Deliveries) / got.Took.Seconds(), p50: got.P50.Seconds() * 1000, p99: got.P99.Seconds() * 1000,
		cpu: float64((after - before).Microseconds()) / float64(got.Deliveries),
	}, nil
}

// cpu is what both processes have used.
func (h *hall) cpu() (time.Duration, error) {
	var a, b time.Duration
	err := errors.Join(h.process.ask("cpu", struct{}{}, &a), h.speaker.ask("cpu", struct{}{}, &b))
	return a + b, err
}

func rateOf(t talk) float64 { return t.rate }
func p50Of(t talk) float64  { return t.p50 }
func p99Of(t talk) float64  { return t.p99 }
func cpuOf(t talk) float64  { return t.cpu }

func (h *hall) median(talks []talk, of func(talk) float64) float64 {
	var v []float64
	for _, t := range talks {
		v = append(v, of(t))
	}
	return benchdoc.Median(v)
}

type roomReport struct {
	members int
	halls   []*hall // ours first
}

// ratio is the median of ours to theirs in the same round, which is steadier than that of
// the medians.
func (r roomReport) ratio(talks func(*hall) []talk, of func(talk) float64) float64 {
	var v []float64
	theirs := talks(r.halls[1])
	for i, t := range talks(r.halls[0]) {
		v = append(v, of(t)/of(theirs[i]))
	}
	return benchdoc.Median(v)
}

func full(h *hall) []talk  { return h.full }
func paced(h *hall) []talk { return h.paced }

func fanOutSection(c config, reports []roomReport) string {
	var b strings.Builder
	b.WriteString("## How fast a message reaches a room\n\n| members | server | deliveries/s | ratio | CPU a delivery | at the same rate: deliveries/s | P50 | P99 | ratio of P99 | CPU a delivery |\n|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, r := range reports {
		for i, h := range r.halls {
			ratio, tail := "", ""
			if i == 0 {
				ratio, tail = fmt.Sprintf("%.2f", r.ratio(full, rateOf)), fmt.Sprintf("%.2f", r.ratio(paced, p99Of))
			}
			fmt.Fprintf(&b, "| %d | %s | %.0f | %s | %.1f us | %.0f | %.2f ms | %.2f ms | %s | %.1f us |\n", r.members, h.server.name,
				h.median(h.full, rateOf), ratio, h.median(h.full, cpuOf), h.median(h.paced, rateOf), h.median(h.paced, p50Of), h.median(h.paced, p99Of), tail, h.median(h.paced, cpuOf))
		}
	}
	fmt.Fprintf(&b, `
Messages of some 320 bytes to all members of one room, each over a WebSocket of its own; every one is checked to come once and in order. Each server is two processes
joined by the same Redis server (one for both servers): messages come to the one, members are connected to the other. Ours publishes as core does after it has stored a message, with
the positions that make it resumable; the centrifuge library by `+"`Node.Publish`"+` with its Redis broker, to a channel without history, which waits for Redis' answer, as messages of a room must follow each other to keep their order. First as many as go with %d messages under way, then both at half the rate of the slower. Medians of %d rounds of
%v for each in turn; ratios are medians of the ratio in the same round. Load generator and servers share the machine. %s, %s.

Repeat: `+"`go tool task bench:fanout`", underWay, c.rounds, c.slice, benchdoc.Machine(), time.Now().UTC().Format(time.DateOnly))
	return b.String()
}

// fanOutFigures has a line for each room, and under the plain names the room in which we
// do worst.
func fanOutFigures(reports []roomReport) string {
	var b strings.Builder
	worstRate, worstTail := reports[0], reports[0]
	line := func(r roomReport, name, unit string, talks func(*hall) []talk, of func(talk) float64) {
		fmt.Fprintf(&b, "figure %s %.2f %s vs centrifuge %.2f ratio %.3f\n", name, r.halls[0].median(talks(r.halls[0]), of), unit,
			r.halls[1].median(talks(r.halls[1]), of), r.ratio(talks, of))
	}
	for _, r := range reports {
		line(r, fmt.Sprintf("deliveries_per_second_%d", r.members), "/s", full, rateOf)
		line(r, fmt.Sprintf("fanout_p99_%d", r.members), "ms", paced, p99Of)
		if r.ratio(full, rateOf) < worstRate.ratio(full, rateOf) {
			worstRate = r
		}
		if r.ratio(paced, p99Of) > worstTail.ratio(paced, p99Of) {
			worstTail = r
		}
	}
	line(worstRate, "deliveries_per_second", "/s", full, rateOf)
	line(worstTail, "fanout_p99", "ms", paced, p99Of)
	return b.String()
}
