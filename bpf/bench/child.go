//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/bpf"
	"github.com/tracegate/tracegate/bpf/probe"
)

var client = &http.Client{Timeout: 5 * time.Second}

// child is a copy of this binary with a role, which has said where it listens.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	addr  string
	token string // of a user, where the child is core
}

func startChild(ctx context.Context, role string, args ...string) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, exe, append([]string{"-role", role}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{cmd: cmd, stdin: stdin}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		c.stop()
		return nil, fmt.Errorf("the %s did not start", role)
	}
	c.addr, c.token, _ = strings.Cut(strings.TrimSpace(line), " ")
	return c, nil
}

// stop ends the child, which follows its standard input.
func (c *child) stop() {
	c.stdin.Close()
	_ = c.cmd.Wait()
}

// cpu is the time that the process and the kernel on its behalf have used.
func (c *child) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("read CPU time: %d fields", len(fields))
	}
	var ticks int64
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read CPU time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100, nil
}

// untilInputEnds returns a context that ends with standard input.
func untilInputEnds(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return ctx
}

// one is the process to watch.
type one int

// Processes implements bpf.Processes.
func (p one) Processes(context.Context) ([]bpf.Process, error) {
	return []bpf.Process{{PID: int(p), Owner: probe.Owner{Service: "core", Pool: "baseline", Name: "bench"}}}, nil
}

// runProbes runs all of them, as `tracegate probe` does.
func runProbes(ctx context.Context, pid int, off string) error {
	ctx = untilInputEnds(ctx)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	cfg := bpf.DefaultConfig()
	cfg.Required, cfg.Interval = true, time.Second // as `up` has it
	if off != "" {
		cfg.Off = strings.Split(off, ",")
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	ended := make(chan error, 1)
	go func() {
		ended <- bpf.Run(ctx, cfg, bpf.Deps{Processes: one(pid), Registry: prometheus.NewRegistry(), Listener: l}, log)
	}()
	for {
		if s, err := bpf.Fetch(ctx, client, l.Addr().String()); err == nil && s.Watched == 1 {
			break
		}
		select {
		case err := <-ended:
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
	fmt.Println(l.Addr())
	return <-ended
}
