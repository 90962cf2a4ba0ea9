package dashboards

import "github.com/grafana/grafana-foundation-sdk/go/units"

func messaging() Board {
	return Board{
		UID: "tracegate-messaging", Title: "Tracegate: messaging", Source: Prometheus,
		About: "From accepted (durable in the log) to stored to shown, and the sockets that it is shown on.",
		Rows: []Row{
			{"Messages", []Panel{
				{Graph, "Accepted and stored", "They go together; the distance is the log's lag.", units.Short, []Query{
					{"accepted {{pool}}", rate(`core_queue_accepted_total{result="ok"}`, "pool")}, {"stored {{pool}}", rate(`core_stored_messages_total{result="stored"}`, "pool")},
				}},
				{Graph, "Until accepted", "acks=all, so what the log takes to replicate.", units.Seconds, []Query{{"P50", quantile(0.5, "core_queue_accept_seconds", "")}, {"P95", quantile(0.95, "core_queue_accept_seconds", "")}, {"P99", quantile(0.99, "core_queue_accept_seconds", "")}}},
				{Graph, "Waiting in the log", "", units.Short, []Query{{"{{pool}}", "sum by (pool) (core_queue_lag_records)"}}},
			}},
			{"What did not go through", []Panel{
				{Graph, "Refused to senders", "By code; temporary ones are sent again.", units.Short, []Query{{"{{code}}", rate("core_send_errors_total", "code")}, {"limited: {{limit}}", rate("core_requests_limited_total", "limit")}}},
				{Graph, "Dead letters", "Accepted and cannot be stored: `tracegate core dead` lists them.", units.Short, []Query{{"{{reason}}", rate("core_queue_dead_total", "reason")}}},
				{Graph, "Tried again", "", units.Short, []Query{
					{"database, storing", "sum(rate(core_queue_store_retries_total[$__rate_interval]))"}, {"database, reading", "sum(rate(core_session_store_errors_total[$__rate_interval]))"},
					{"log, fetching", "sum(rate(core_queue_fetch_errors_total[$__rate_interval]))"}, {"fan-out: {{reason}}", rate("core_fanout_dropped_total", "reason")},
				}},
			}},
			{"Sockets", []Panel{
				{Graph, "Open", "", units.Short, []Query{{"{{pool}}", "sum by (pool) (core_sockets)"}}},
				{Graph, "Closed, by reason", "`slow` could not keep up, and resumes.", units.Short, []Query{{"{{reason}}", rate("core_sockets_closed_total", "reason")}}},
				{Graph, "Pushed, and caught up from the database", "", units.Short, []Query{{"pushed", "sum(rate(core_messages_pushed_total[$__rate_interval]))"}, {"caught up: {{cause}}", rate("core_catch_ups_total", "cause")}}},
			}},
			{"API", []Panel{
				{Graph, "Requests by route", "", units.RequestsPerSecond, []Query{{"{{route}}", "sum by (route) (rate(core_request_seconds_count[$__rate_interval]))"}}},
				{Graph, "P95 by route", "", units.Seconds, []Query{{"{{route}}", quantile(0.95, "core_request_seconds", "route")}}},
				{Graph, "Log-ins", "", units.Short, []Query{{"{{action}} {{result}}", rate("core_account_attempts_total", "action, result")}}},
			}},
		},
	}
}
