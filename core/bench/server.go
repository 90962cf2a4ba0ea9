//go:build linux

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
)

// server is one of those that are compared.
type server struct {
	name  string
	what  string
	redis bool // wants the address of one
	wire  wire
	// start makes what serves until ctx is done. publish may be nil.
	start func(ctx context.Context, e env) (h http.Handler, publish publish, err error)
}

// env is what a server is started with.
type env struct {
	redis string
	room  int // members of the one conversation that all clients are in, of which nothing is stored yet; 0: each has another
	log   *slog.Logger
}

// publish shows a message to all members of the room, by way of Redis where they are
// connected to another process.
type publish func(m protocol.Message) error

// servers are what is compared, ours first.
func servers() []server {
	return []server{
		ours(),
		centrifugeServer("centrifuge", "the centrifuge library, as its examples use it; one channel", false),
		centrifugeServer("centrifuge-tuned", "the same with its options for less memory: small read buffer, pooled write buffers, commands off the read loop, timer instead of a writer", true),
		gwsServer(), gorillaServer(),
	}
}

func serverNamed(name string) (server, error) {
	for _, s := range servers() {
		if s.name == name {
			return s, nil
		}
	}
	return server{}, fmt.Errorf("there is no server %q", name)
}

// runServer serves in a process of its own.
func runServer(ctx context.Context, name, redis string, room int) error {
	if _, err := allowFiles(); err != nil {
		return err
	}
	s, err := serverNamed(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h, publish, err := s.start(ctx, env{redis: redis, room: room, log: errorLog()})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	defer srv.Close()
	go func() { _ = srv.Serve(l) }() // ends with Close
	return obey(l.Addr().String(), orders{
		"usage":     order(measureUsage),
		"cpu":       order(func(struct{}) (time.Duration, error) { return cpuTime() }),
		"publisher": order(func(struct{}) (string, error) { return listenForMessages(publish) }),
	})
}
