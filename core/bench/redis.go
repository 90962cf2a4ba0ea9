//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/tracegate/tracegate/edge/artifact/engine"
	"github.com/tracegate/tracegate/edge/child"
)

// runRedisServer runs a real Redis for as long as this process has input. Only servers
// that are compared over it need one; `connections` has an embedded one for each server.
func runRedisServer(ctx context.Context) error {
	redis, err := engine.Redis(ctx, errorLog())
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	if err := l.Close(); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cmd := child.Command(ctx, filepath.Join(redis.Bin, "redis-server"), "--port", port, "--bind", "127.0.0.1", "--dir", dir,
		"--save", "", "--appendonly", "no", "--requirepass", redisPassword)
	cmd.Env = append(os.Environ(), redis.Env...)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start redis: %w", err)
	}
	defer func() { stop(); _ = cmd.Wait() }() // killed
	for begin := time.Now(); ; <-time.After(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
			return obey(addr, nil)
		}
		if time.Since(begin) > time.Minute {
			return fmt.Errorf("start redis: %w", err)
		}
	}
}
