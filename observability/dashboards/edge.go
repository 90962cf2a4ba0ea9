package dashboards

import "github.com/grafana/grafana-foundation-sdk/go/units"

func edge() Board {
	return Board{
		UID: "tracegate-edge", Title: "Tracegate: edge and control plane", Source: Prometheus,
		About: "What Envoy does with requests, and whether it has the configuration that it should have.",
		Rows: []Row{
			{"Now", []Panel{
				{Kind: Number, Title: "Edges connected", Unit: units.Short, Queries: []Query{{"", "sum(tracegate_xds_edges)"}}},
				{Kind: Number, Title: "Groups isolated", Unit: units.Short, Queries: []Query{{"", "sum(tracegate_groups_isolated)"}}},
				{Kind: Number, Title: "Resources quarantined", About: "Refused by an edge, or by us before they were sent: `tracegate ctl status` says which line of which file.", Unit: units.Short, Queries: []Query{{"", "sum(tracegate_resources_quarantined)"}}},
				{Kind: Number, Title: "Telemetry is stale", About: "1: nothing is decided, groups stay where they are.", Unit: units.Short, Queries: []Query{{"", "max(tracegate_telemetry_stale)"}}},
			}},
			{"Requests", []Panel{
				{Kind: Graph, Title: "By pool", Unit: units.RequestsPerSecond, Queries: []Query{{"{{envoy_cluster_name}}/{{traffic_pool}}", rate("envoy_cluster_upstream_rq_total", "envoy_cluster_name, traffic_pool")}}},
				{Kind: Graph, Title: "P95 by pool", Unit: units.Milliseconds, Queries: []Query{{"{{envoy_cluster_name}}/{{traffic_pool}}", quantile(0.95, "envoy_cluster_upstream_rq_time", "envoy_cluster_name, traffic_pool")}}},
				{Kind: Graph, Title: "5xx by pool", Unit: units.RequestsPerSecond, Queries: []Query{{"{{envoy_cluster_name}}/{{traffic_pool}}", rate(`envoy_cluster_upstream_rq_xx{envoy_response_code_class="5"}`, "envoy_cluster_name, traffic_pool")}}},
			}},
			{"Pools", []Panel{
				{Kind: Graph, Title: "How full they are", About: "As their instances say, on average: 100% of CPU is what their limits let them use. Nothing: they say nothing.", Unit: units.PercentUnit, Queries: []Query{
					{"{{service}}/{{pool}} {{resource}}", "max by (service, pool, resource) (tracegate_pool_saturation_ratio)"},
				}},
			}},
			{"Connections", []Panel{
				{Kind: Graph, Title: "Open, of clients", Unit: units.Short, Queries: []Query{{"{{envoy_http_conn_manager_prefix}}", "sum by (envoy_http_conn_manager_prefix) (envoy_http_downstream_cx_active)"}}},
				{Kind: Graph, Title: "Not let in", About: "By limits of the edge.", Unit: units.RequestsPerSecond, Queries: []Query{
					{"overload", "sum(rate(envoy_listener_downstream_cx_overload_reject[$__rate_interval]))"},
					{"circuit breaker", "sum(rate(envoy_cluster_upstream_rq_pending_overflow[$__rate_interval]))"},
				}},
				{Kind: Graph, Title: "Instances in good health", Unit: units.Short, Queries: []Query{{"{{envoy_cluster_name}}/{{traffic_pool}}", "sum by (envoy_cluster_name, traffic_pool) (envoy_cluster_membership_healthy)"}}},
			}},
			{"The filter", []Panel{
				{Kind: Graph, Title: "Requests by where they went", About: "Assigned: a rule named their cohort or tenant. Baseline: none did.", Unit: units.RequestsPerSecond, Queries: []Query{
					{"assigned", "sum(rate(traffic_assigned[$__rate_interval]))"}, {"baseline", "sum(rate(traffic_baseline[$__rate_interval]))"}, {"trusted", "sum(rate(traffic_trusted[$__rate_interval]))"},
				}},
				{Kind: Graph, Title: "What it mended or refused", Unit: units.RequestsPerSecond, Queries: []Query{
					{"claims rejected", "sum(rate(traffic_claims_rejected[$__rate_interval]))"}, {"value rejected", "sum(rate(traffic_value_rejected[$__rate_interval]))"},
					{"malformed traceparent", "sum(rate(traffic_malformed_traceparent[$__rate_interval]))"}, {"configuration errors", "sum(rate(traffic_config_errors[$__rate_interval]))"},
				}},
			}},
			{"Configuration", []Panel{
				{Kind: Graph, Title: "From a change to the last acknowledgement, P95", Unit: units.Seconds, Queries: []Query{{"P95", quantile(0.95, "tracegate_program_seconds", "")}}},
				{Kind: Graph, Title: "Acknowledged and refused", Unit: units.Short, Queries: []Query{
					{"acknowledged {{type}}", rate("tracegate_xds_acks_total", "type")}, {"refused by an edge", "sum(rate(envoy_cluster_manager_cds_update_rejected[$__rate_interval]) + rate(envoy_listener_manager_lds_update_rejected[$__rate_interval]))"},
				}},
				{Kind: Graph, Title: "Evaluations", About: "Some four a second while telemetry is fresh.", Unit: units.Short, Queries: []Query{{"{{result}}", rate("tracegate_evaluations_total", "result")}}},
			}},
		},
	}
}
