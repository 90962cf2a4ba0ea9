package xds

import (
	"time"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	wasmhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/observability/semconv"
)

const (
	wasmURL     = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"
	mutationURL = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
)

// filterSource is what the traffic filter is made from.
type filterSource struct {
	module     plan.Wasm
	policy     string
	failClosed bool
}

// trafficFilter and [verify] are the two filters that change in operation: keys
// rotate, policies are edited. For each update of the Wasm filter Envoy makes a virtual
// machine on its main thread and tries the policy in it (some 20 ms of CPU; workers keep
// theirs, for under 1 ms), so moves of groups, which are frequent, go by routes instead.
func trafficFilter(s filterSource) (*anypb.Any, error) {
	if s.module.Path == "" {
		return passThrough(), nil
	}
	return wasm(s)
}

// discovered is a filter whose configuration comes by ECDS. A listener waits a
// moment for it, so that the first requests are colored too, and then serves
// without it rather than not at all: [passThrough] is baseline for everyone, and
// where the policy says closed, the routes refuse what has no group.
func discovered(name, url string) *hcmv3.HttpFilter {
	source := ads()
	source.InitialFetchTimeout = durationpb.New(2 * time.Second)
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{
		ConfigDiscovery: &corev3.ExtensionConfigSource{
			ConfigSource:  source,
			DefaultConfig: passThrough(),
			TypeUrls:      []string{url, mutationURL},
		},
	}}
}

// passThrough stands where a filter cannot. It takes away the claims, which are
// for the Wasm filter only and would reach the upstream without it.
func passThrough() *anypb.Any {
	return mustPack(&headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{
		RequestMutations: []*mutationv3.HeaderMutation{{
			Action: &mutationv3.HeaderMutation_Remove{Remove: semconv.HeaderClaims},
		}},
	}})
}

func wasm(s filterSource) (*anypb.Any, error) {
	config, err := packed(wrapperspb.String(s.policy))
	if err != nil {
		return nil, err
	}
	failure, reload := onCrash(s.failClosed)
	return packed(&wasmhttpv3.Wasm{Config: &wasmv3.PluginConfig{
		Name:          FilterName,
		RootId:        FilterName,
		FailurePolicy: failure,
		ReloadConfig:  reload,
		Configuration: config,
		Vm: &wasmv3.PluginConfig_VmConfig{VmConfig: &wasmv3.VmConfig{
			VmId:    FilterName + "-" + s.module.SHA256[:min(12, len(s.module.SHA256))],
			Runtime: "envoy.wasm.runtime.v8",
			Code: &corev3.AsyncDataSource{Specifier: &corev3.AsyncDataSource_Local{Local: &corev3.DataSource{
				Specifier: &corev3.DataSource_Filename{Filename: s.module.Path},
			}}},
			CapabilityRestrictionConfig: capabilities(),
		}},
	}})
}

// onCrash says what a worker does whose virtual machine died, of something that Go cannot
// recover from; a panic ends no machine (wasm/stockgo). Open: it serves baseline, uncolored,
// until the next update of the filter makes a new machine; [UncoloredStat] shows it. Closed:
// the request is refused and a new machine made.
//
// To make new machines where the policy says open as well lost: while one cannot be made
// (Envoy waits longer each time it dies again) Envoy refuses requests as for FAIL_CLOSED,
// and whoever knows a deadly request could have all others refused.
//
// The back-off is short because requests are refused while it lasts; below 2 ms
// Envoy 1.40 dies of it (it divides by half of it).
func onCrash(closed bool) (wasmv3.FailurePolicy, *wasmv3.ReloadConfig) {
	if !closed {
		return wasmv3.FailurePolicy_FAIL_OPEN, nil
	}
	return wasmv3.FailurePolicy_FAIL_RELOAD, &wasmv3.ReloadConfig{Backoff: &corev3.BackoffStrategy{
		BaseInterval: durationpb.New(20 * time.Millisecond), MaxInterval: durationpb.New(time.Second),
	}}
}

// capabilities is everything the filter may ask of Envoy, and every callback it
// may be given: no calls to other hosts, no shared queues, no files.
func capabilities() *wasmv3.CapabilityRestrictionConfig {
	allowed := map[string]*wasmv3.SanitizationConfig{}
	for _, name := range []string{
		// Life of a module and of a request.
		"proxy_on_memory_allocate", "malloc", "_start", "_initialize", "main",
		"proxy_abi_version_0_1_0", "proxy_abi_version_0_2_0", "proxy_abi_version_0_2_1",
		"proxy_on_context_create", "proxy_on_vm_start", "proxy_on_configure",
		"proxy_on_request_headers", "proxy_on_response_headers",
		"proxy_on_done", "proxy_on_log", "proxy_on_delete",
		// What the filter reads and writes.
		"proxy_get_buffer_bytes", "proxy_get_property", "proxy_get_current_time_nanoseconds",
		"proxy_get_header_map_value", "proxy_get_header_map_pairs",
		"proxy_add_header_map_value", "proxy_replace_header_map_value", "proxy_remove_header_map_value", "proxy_set_header_map_pairs",
		"proxy_define_metric", "proxy_increment_metric", "proxy_record_metric",
		"proxy_log", "proxy_set_effective_context", "proxy_set_tick_period_milliseconds", "proxy_on_tick",
		// What a Go program needs to start (WASI preview 1).
		"args_get", "args_sizes_get", "environ_get", "environ_sizes_get",
		"fd_prestat_get", "fd_prestat_dir_name", "fd_fdstat_get", "fd_fdstat_set_flags", "fd_write",
		"clock_time_get", "random_get", "sched_yield", "poll_oneoff", "proc_exit",
	} {
		allowed[name] = &wasmv3.SanitizationConfig{}
	}
	return &wasmv3.CapabilityRestrictionConfig{AllowedCapabilities: allowed}
}
