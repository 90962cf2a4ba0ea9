package dashboards

import "github.com/grafana/grafana-foundation-sdk/go/units"

func messaging() Board {
	return Board{
		UID: "tracegate-messaging", Title: "Tracegate: messaging", Source: Prometheus,
		About: "From accepted (durable in the log) to stored to shown, and the sockets that it is shown on.",
		Rows: []Row{
			{"Messages", []Panel{
				{Kind: Graph, Title: "Accepted and stored", About: "They go together; the distance is the log's lag.", Unit: units.Short, Queries: []Query{
					{"accepted {{pool}}", rate(`core_queue_accepted_total{result="ok"}`, "pool")}, {"stored {{pool}}", rate(`core_stored_messages_total{result="stored"}`, "pool")},
				}},
				{Kind: Graph, Title: "Until accepted", About: "acks=all, so what the log takes to replicate.", Unit: units.Seconds, Queries: []Query{{"P50", quantile(0.5, "core_queue_accept_seconds", "")}, {"P95", quantile(0.95, "core_queue_accept_seconds", "")}, {"P99", quantile(0.99, "core_queue_accept_seconds", "")}}},
				{Kind: Graph, Title: "Waiting in the log", Unit: units.Short, Queries: []Query{{"{{pool}}", "sum by (pool) (core_queue_lag_records)"}}},
			}},
			{"What did not go through", []Panel{
				{Kind: Graph, Title: "Refused to senders", About: "By code; temporary ones are sent again.", Unit: units.Short, Queries: []Query{{"{{code}}", rate("core_send_errors_total", "code")}, {"limited: {{limit}}", rate("core_requests_limited_total", "limit")}}},
				{Kind: Graph, Title: "Dead letters", About: "Accepted and cannot be stored: `tracegate core dead` lists them.", Unit: units.Short, Queries: []Query{{"{{reason}}", rate("core_queue_dead_total", "reason")}}},
				{Kind: Graph, Title: "Tried again", Unit: units.Short, Queries: []Query{
					{"database, storing", "sum(rate(core_queue_store_retries_total[$__rate_interval]))"}, {"database, reading", "sum(rate(core_session_store_errors_total[$__rate_interval]))"},
					{"log, fetching", "sum(rate(core_queue_fetch_errors_total[$__rate_interval]))"}, {"fan-out: {{reason}}", rate("core_fanout_dropped_total", "reason")},
				}},
			}},
			{"Sockets", []Panel{
				{Kind: Graph, Title: "Open", Unit: units.Short, Queries: []Query{{"{{pool}}", "sum by (pool) (core_sockets)"}}},
				{Kind: Graph, Title: "Closed, by reason", About: "`slow` could not keep up, and resumes.", Unit: units.Short, Queries: []Query{{"{{reason}}", rate("core_sockets_closed_total", "reason")}}},
				{Kind: Graph, Title: "Pushed, and caught up from the database", Unit: units.Short, Queries: []Query{{"pushed", "sum(rate(core_messages_pushed_total[$__rate_interval]))"}, {"caught up: {{cause}}", rate("core_catch_ups_total", "cause")}}},
			}},
			{"API", []Panel{
				{Kind: Graph, Title: "Requests by route", Unit: units.RequestsPerSecond, Queries: []Query{{"{{route}}", "sum by (route) (rate(core_request_seconds_count[$__rate_interval]))"}}},
				{Kind: Graph, Title: "P95 by route", Unit: units.Seconds, Queries: []Query{{"{{route}}", quantile(0.95, "core_request_seconds", "route")}}},
				{Kind: Graph, Title: "Log-ins", Unit: units.Short, Queries: []Query{{"{{action}} {{result}}", rate("core_account_attempts_total", "action, result")}}},
			}},
		},
	}
}
