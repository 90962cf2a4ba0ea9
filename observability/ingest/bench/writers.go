package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tracegate/tracegate/observability/engine/enginebench"
)

// compareWriters measures ours alone, in turn with each number of writers.
func compareWriters(ctx context.Context, c config) (err error) {
	if c.dir, err = os.MkdirTemp(c.dir, "ingest"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.dir)) }()
	e, err := enginebench.Start(ctx, filepath.Join(c.dir, "clickhouse"))
	if err != nil {
		return err
	}
	defer e.Stop()
	if c.engineAddr, err = farther(ctx, e.Addr, c.delay); err != nil {
		return err
	}
	numbers := strings.Split(c.compare, ",")
	results := map[string][]result{}
	for i := range c.rounds {
		for _, n := range numbers {
			if c.writers, err = strconv.Atoi(n); err != nil {
				return fmt.Errorf("writers: %w", err)
			}
			r, err := measure(ctx, c, e, ours(c), 0)
			if err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "round %d, %s writers: %s\n", i+1, n, r)
			results[n] = append(results[n], r)
		}
	}
	fmt.Println("| writers | spans stored a second | CPU of a million spans | in the engine | memory at most |\n|---:|---:|---:|---:|---:|")
	for _, n := range numbers {
		rs := results[n]
		fmt.Printf("| %s | %.0f | %.2f s | %.2f s | %.0f MB |\n", n, median(rs, perSecond), median(rs, func(r result) float64 { return 1e6 * r.cpu.Seconds() / float64(r.sent) }),
			median(rs, func(r result) float64 { return 1e6 * r.engineCPU.Seconds() / float64(r.sent) }), median(rs, func(r result) float64 { return r.peak }))
	}
	return nil
}

// farther is an address by which each answer of the engine takes so much longer, until ctx
// is done; without a delay it is the engine's own.
func farther(ctx context.Context, addr string, delay time.Duration) (string, error) {
	if delay == 0 {
		return addr, nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr})
	proxy.ModifyResponse = func(resp *http.Response) error {
		select {
		case <-time.After(delay):
		case <-resp.Request.Context().Done():
		}
		return nil
	}
	hs := &http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute}
	go func() { _ = hs.Serve(listener) }()
	context.AfterFunc(ctx, func() { _ = hs.Close() })
	return listener.Addr().String(), nil
}
