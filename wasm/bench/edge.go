package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tracegate/tracegate/edge/envoy"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/mesh/group"
)

// edge is a running Envoy with a listener for each variant.
type edge struct {
	process *envoy.Process
	version string
	addrs   []string
	worker  string // the directory in /proc of its worker thread
}

func (e *edge) addr(i int) string { return e.addrs[i] }
func (e *edge) kill()             { e.process.Kill() }

type object = map[string]any

const (
	types   = "type.googleapis.com/envoy."
	filters = types + "extensions.filters."
)

func startEdge(ctx context.Context, binary, dir, upstream string, variants []variant, log *slog.Logger) (*edge, error) {
	binary, err := envoy.Find(ctx, binary, "", log)
	if err != nil {
		return nil, err
	}
	e := &edge{}
	admin, err := freeport.On("127.0.0.1")
	if err != nil {
		return nil, err
	}
	var listeners []any
	for _, v := range variants {
		addr, err := freeport.On("127.0.0.1")
		if err != nil {
			return nil, err
		}
		e.addrs = append(e.addrs, addr)
		listeners = append(listeners, listener(v, addr))
	}
	bootstrap, err := json.Marshal(object{
		"admin":            object{"address": address(admin)},
		"static_resources": object{"listeners": listeners, "clusters": []any{cluster(upstream)}},
	})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "same_work.lua"), []byte(lua), 0o600); err != nil {
		return nil, err
	}
	if e.version, err = envoy.Version(ctx, binary); err != nil {
		return nil, err
	}
	quiet := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	e.process, err = envoy.Start(envoy.Options{Binary: binary, Bootstrap: bootstrap, Admin: admin, Dir: dir, Concurrency: 1, LogLevel: "error"}, quiet)
	if err != nil {
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := e.process.WaitReady(ready); err != nil {
		e.kill()
		return nil, err
	}
	e.worker = workerThread(e.process.PID())
	return e, nil
}

// listener has the routes of a small installation: the filter's headers are matched.
func listener(v variant, addr string) object {
	router := object{"name": "router", "typed_config": object{"@type": filters + "http.router.v3.Router"}}
	chain := []any{router}
	if v.filter != nil {
		chain = []any{v.filter, router}
	}
	to := object{"cluster": "up"}
	hcm := object{
		"@type": filters + "network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": v.name,
		"generate_request_id": false, "http_filters": chain,
		"route_config": object{"virtual_hosts": []any{object{"name": "all", "domains": []string{"*"}, "routes": []any{
			object{"match": object{"prefix": "/", "headers": []any{object{"name": "x-traffic-group", "string_match": object{"exact": "abcdef"}}}}, "route": to},
			object{"match": object{"prefix": "/", "headers": []any{object{"name": "traceparent", "string_match": object{"prefix": "00-" + group.ColorOf("beta").String()}}}}, "route": to},
			object{"match": object{"prefix": "/"}, "route": to},
		}}}},
	}
	if v.early {
		hcm["early_header_mutation_extensions"] = []any{object{"name": "drop", "typed_config": object{
			"@type":     types + "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
			"mutations": []any{object{"remove_on_match": object{"key_matcher": object{"prefix": "x-traffic-"}}}},
		}}}
	}
	return object{"name": v.name, "address": address(addr), "filter_chains": []any{object{"filters": []any{object{"name": "hcm", "typed_config": hcm}}}}}
}

func wasmFilter(id, file, config string) object {
	return object{"name": id, "typed_config": object{"@type": filters + "http.wasm.v3.Wasm", "config": object{
		"name": id, "root_id": id,
		"configuration": object{"@type": "type.googleapis.com/google.protobuf.StringValue", "value": config},
		"vm_config":     object{"vm_id": id, "runtime": types[len("type.googleapis.com/"):] + "wasm.runtime.v8", "code": object{"local": object{"filename": file}}},
	}}}
}

func luaFilter() object {
	return object{"name": "lua", "typed_config": object{"@type": filters + "http.lua.v3.Lua", "default_source_code": object{"inline_string": lua}}}
}

func cluster(addr string) object {
	return object{"name": "up", "type": "STATIC", "load_assignment": object{"cluster_name": "up", "endpoints": []any{
		object{"lb_endpoints": []any{object{"endpoint": object{"address": address(addr)}}}},
	}}}
}

func address(addr string) object {
	host, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	return object{"socket_address": object{"address": host, "port_value": n}}
}

// workerThread finds Envoy's only worker; "" where there is no /proc.
func workerThread(pid int) string {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return ""
	}
	for _, task := range tasks {
		if name, err := os.ReadFile(filepath.Join(task, "comm")); err == nil && strings.HasPrefix(string(name), "wrk:worker") {
			return task
		}
	}
	return ""
}

// workerCPU is the CPU time that the worker has had; 0 where it is not known.
func (e *edge) workerCPU() time.Duration {
	raw, err := os.ReadFile(filepath.Join(e.worker, "schedstat"))
	if e.worker == "" || err != nil {
		return 0
	}
	ran, _, _ := strings.Cut(string(raw), " ")
	ns, _ := strconv.ParseInt(ran, 10, 64)
	return time.Duration(ns)
}
