package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tracegate/tracegate/edge/bootstrap"
	"github.com/tracegate/tracegate/edge/envoy"
	"github.com/tracegate/tracegate/mesh/freeport"
)

// upstream says which pool it is, to everybody.
func upstream(ctx context.Context, pool string) (string, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("x-pool", pool)
	})}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	go func() { _ = srv.Serve(lis) }()
	return lis.Addr().String(), nil
}

// edge is a real Envoy.
type edge struct {
	process *envoy.Process
	conn    net.Conn
	reader  *bufio.Reader
}

func startEdge(ctx context.Context, binary, dir, xds, listen string) (*edge, error) {
	cfg := bootstrap.DefaultConfig()
	var err error
	if cfg.Admin, err = freeport.On("127.0.0.1"); err != nil {
		return nil, err
	}
	cfg.ID, cfg.XDS = "envoy", xds
	b, err := bootstrap.Build(cfg)
	if err != nil {
		return nil, err
	}
	js, err := bootstrap.JSON(b)
	if err != nil {
		return nil, err
	}
	quiet := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	e := &edge{}
	if e.process, err = envoy.Start(envoy.Options{Binary: binary, Bootstrap: js, Admin: cfg.Admin, Dir: dir, Concurrency: 1, LogLevel: "error"}, quiet); err != nil {
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := e.process.WaitReady(ready); err != nil {
		e.process.Kill()
		return nil, err
	}
	if e.conn, err = net.Dial("tcp", listen); err != nil {
		e.process.Kill()
		return nil, err
	}
	e.reader = bufio.NewReader(e.conn)
	return e, nil
}

func (e *edge) close() {
	e.conn.Close()
	e.process.Kill()
}

// until asks until pool answers, and returns when that was.
func (e *edge) until(pool string) (time.Time, error) {
	pause := time.NewTicker(500 * time.Microsecond) // a client, not a load
	defer pause.Stop()
	for start := time.Now(); ; <-pause.C {
		if _, err := fmt.Fprintf(e.conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", probePath, probed); err != nil {
			return time.Time{}, err
		}
		resp, err := http.ReadResponse(e.reader, nil)
		if err != nil {
			return time.Time{}, err
		}
		resp.Body.Close()
		now := time.Now()
		if resp.Header.Get("x-pool") == pool {
			return now, nil
		}
		if now.Sub(start) > time.Minute {
			return now, fmt.Errorf("a minute without an answer of %s: status %d", pool, resp.StatusCode)
		}
	}
}

// mainCPU is what Envoy's main thread, which takes configuration, has used up; 0 where
// it is not known.
func (e *edge) mainCPU() time.Duration {
	pid := e.process.PID()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/schedstat", pid, pid))
	if err != nil {
		return 0
	}
	ran, _, _ := strings.Cut(string(raw), " ")
	ns, _ := strconv.ParseInt(ran, 10, 64)
	return time.Duration(ns)
}
