package dashboards

import "github.com/grafana/grafana-foundation-sdk/go/units"

func edge() Board {
	return Board{
		UID: "tracegate-edge", Title: "Tracegate: edge and control plane", Source: Prometheus,
		About: "What Envoy does with requests, and whether it has the configuration that it should have.",
		Rows: []Row{
			{"Now", []Panel{
				{Number, "Edges connected", "", units.Short, []Query{{"", "sum(tracegate_xds_edges)"}}},
				{Number, "Groups isolated", "", units.Short, []Query{{"", "sum(tracegate_groups_isolated)"}}},
				{Number, "Resources quarantined", "Refused by an edge, or by us before they were sent: `tracegate ctl status` says which line of which file.", units.Short, []Query{{"", "sum(tracegate_resources_quarantined)"}}},
				{Number, "Telemetry is stale", "1: nothing is decided, groups stay where they are.", units.Short, []Query{{"", "max(tracegate_telemetry_stale)"}}},
			}},
			{"Requests", []Panel{
				{Graph, "By pool", "", units.RequestsPerSecond, []Query{{"{{envoy_cluster_name}}/{{traffic_pool}}", rate("envoy_cluster_upstream_rq_total", "envoy_cluster_name, traffic_pool")}}},
				{Graph, "P95 by pool", "", units.Milliseconds, []Query{{"{{envoy_cluster_name}}/{{traffic_pool}}", quantile(0.95, "envoy_cluster_upstream_rq_time", "envoy_cluster_name, traffic_pool")}}},
				{Graph, "5xx by pool", "", units.RequestsPerSecond, []Query{{"{{envoy_cluster_name}}/{{traffic_pool}}", rate(`envoy_cluster_upstream_rq_xx{envoy_response_code_class="5"}`, "envoy_cluster_name, traffic_pool")}}},
			}},
			{"Pools", []Panel{
				{Graph, "How full they are", "As their instances say, on average: 100% of CPU is what their limits let them use. Nothing: they say nothing.", units.PercentUnit, []Query{
					{"{{service}}/{{pool}} {{resource}}", "max by (service, pool, resource) (tracegate_pool_saturation_ratio)"},
				}},
			}},
			{"Connections", []Panel{
				{Graph, "Open, of clients", "", units.Short, []Query{{"{{envoy_http_conn_manager_prefix}}", "sum by (envoy_http_conn_manager_prefix) (envoy_http_downstream_cx_active)"}}},
				{Graph, "Not let in", "By limits of the edge.", units.RequestsPerSecond, []Query{
					{"overload", "sum(rate(envoy_listener_downstream_cx_overload_reject[$__rate_interval]))"},
					{"circuit breaker", "sum(rate(envoy_cluster_upstream_rq_pending_overflow[$__rate_interval]))"},
				}},
				{Graph, "Instances in good health", "", units.Short, []Query{{"{{envoy_cluster_name}}/{{traffic_pool}}", "sum by (envoy_cluster_name, traffic_pool) (envoy_cluster_membership_healthy)"}}},
			}},
			{"The filter", []Panel{
				{Graph, "Requests by where they went", "Assigned: a rule named their cohort or tenant. Baseline: none did.", units.RequestsPerSecond, []Query{
					{"assigned", "sum(rate(traffic_assigned[$__rate_interval]))"}, {"baseline", "sum(rate(traffic_baseline[$__rate_interval]))"}, {"trusted", "sum(rate(traffic_trusted[$__rate_interval]))"},
				}},
				{Graph, "What it mended or refused", "", units.RequestsPerSecond, []Query{
					{"claims rejected", "sum(rate(traffic_claims_rejected[$__rate_interval]))"}, {"value rejected", "sum(rate(traffic_value_rejected[$__rate_interval]))"},
					{"malformed traceparent", "sum(rate(traffic_malformed_traceparent[$__rate_interval]))"}, {"configuration errors", "sum(rate(traffic_config_errors[$__rate_interval]))"},
				}},
			}},
			{"Configuration", []Panel{
				{Graph, "From a change to the last acknowledgement, P95", "", units.Seconds, []Query{{"P95", quantile(0.95, "tracegate_program_seconds", "")}}},
				{Graph, "Acknowledged and refused", "", units.Short, []Query{
					{"acknowledged {{type}}", rate("tracegate_xds_acks_total", "type")}, {"refused by an edge", "sum(rate(envoy_cluster_manager_cds_update_rejected[$__rate_interval]) + rate(envoy_listener_manager_lds_update_rejected[$__rate_interval]))"},
				}},
				{Graph, "Evaluations", "Some four a second while telemetry is fresh.", units.Short, []Query{{"{{result}}", rate("tracegate_evaluations_total", "result")}}},
			}},
		},
	}
}
