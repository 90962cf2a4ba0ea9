//go:build linux

// Command bench measures core's connections against other WebSocket servers, each in a
// process of its own and all in one run: what an idle connection with its session costs
// (connections), how many members of a room messages reach in a second (fanout), and, of
// core alone, how many messages it accepts and stores (send).
//
// Servers and load generator are copies of this binary with a role; they take orders on
// standard input and answer on standard output (process.go). The clients are raw sockets
// with canned bytes, from several loopback addresses, so that they are cheap and do not
// run out of ports. Peers are third party libraries used as their own examples use them;
// only this package imports them, so the product's binary does not have them.
//
// It is a tool: `go tool task bench:connections`, `bench:fanout`, `bench:send`.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"time"
)

type config struct {
	connections int
	pings       int
	pingFor     time.Duration
	rounds      int
	slice       time.Duration
	pairs       int
	inFlight    int
	write       string
}

func main() {
	var c config
	role := flag.String("role", "", "used by the program itself")
	flag.IntVar(&c.connections, "connections", 15_000, "connections to each server")
	flag.IntVar(&c.pings, "pings", 5_000, "pings a second over all connections, for the count of collections")
	flag.DurationVar(&c.pingFor, "ping-for", 10*time.Second, "how long")
	flag.IntVar(&c.rounds, "rounds", 3, "rounds; each measures every server once")
	flag.DurationVar(&c.slice, "slice", 2*time.Second, "duration of one measurement (fanout, send)")
	flag.IntVar(&c.pairs, "pairs", 32, "pairs of clients that talk to each other (send)")
	flag.IntVar(&c.inFlight, "in-flight", 16, "messages of one client that wait for acceptance (send)")
	flag.StringVar(&c.write, "write", "", "markdown file whose section is replaced, or appended")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *role, flag.Arg(0), c); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, role, what string, c config) error {
	switch role {
	case "":
	case "load":
		return runLoad(ctx)
	case "redis":
		return runRedis(ctx)
	case "redis-server":
		return runRedisServer(ctx)
	case "engines":
		return runEngines(ctx)
	case "core":
		return runCore(ctx, flag.Arg(0), flag.Arg(1))
	default:
		room, _ := strconv.Atoi(flag.Arg(1)) // without one there is none
		return runServer(ctx, role, flag.Arg(0), room)
	}
	switch what {
	case "connections":
		return connections(ctx, c, flag.Args()[1:])
	case "fanout":
		return fanOut(ctx, c)
	case "send":
		return send(ctx, c)
	default:
		return fmt.Errorf("say what to measure: connections [server ...], fanout or send")
	}
}
