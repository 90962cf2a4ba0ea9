package dashboards

import "github.com/grafana/grafana-foundation-sdk/go/units"

func runtime() Board {
	return Board{
		UID: "tracegate-runtime", Title: "Tracegate: telemetry and processes", Source: Prometheus,
		About: "Whether telemetry adds up, what it takes to keep, and what processes use.",
		Rows: []Row{
			{"Telemetry", []Panel{
				{Kind: Graph, Title: "Received and stored", About: "Received + recovered = stored + spooled + pending + dropped, for each table.", Unit: units.Short, Queries: []Query{
					{"received {{table}}", rate("tracegate_ingest_received_records_total", "table")}, {"stored {{table}}", rate("tracegate_ingest_stored_records_total", "table")},
				}},
				{Kind: Graph, Title: "Dropped, by reason", Unit: units.Short, Queries: []Query{{"{{reason}}", rate("tracegate_ingest_dropped_records_total", "reason")}, {"by a sender: {{reason}}", rate("tracegate_telemetry_dropped_spans_total", "reason")}}},
				{Kind: Graph, Title: "Spool", About: "What waits on disk for ClickHouse.", Unit: units.BytesIEC, Queries: []Query{{"spool", "sum(tracegate_ingest_spool_bytes)"}}},
			}},
			{"Storage", []Panel{
				{Kind: Graph, Title: "Tables", Unit: units.BytesIEC, Queries: []Query{{"{{table}}", "sum by (table) (tracegate_store_table_bytes)"}}},
				{Kind: Graph, Title: "Parts", About: "Many say that merges do not keep up with inserts.", Unit: units.Short, Queries: []Query{{"{{table}}", "sum by (table) (tracegate_store_table_parts)"}}},
			}},
			{"Processes", []Panel{
				{Kind: Graph, Title: "CPU", About: "Cores.", Unit: units.Short, Queries: []Query{{"{{job}} {{pool}}", rate("process_cpu_seconds_total", "job, pool")}}},
				{Kind: Graph, Title: "Memory", About: "Resident; Envoy's by its own count.", Unit: units.BytesIEC, Queries: []Query{{"{{job}} {{pool}}", "sum by (job, pool) (process_resident_memory_bytes)"}, {"envoy", "sum(envoy_server_memory_physical_size)"}}},
				{Kind: Graph, Title: "Goroutines", Unit: units.Short, Queries: []Query{{"{{job}} {{pool}}", "sum by (job, pool) (go_goroutines)"}}},
			}},
			{"Pauses", []Panel{
				{Kind: Graph, Title: "The world stopped for the garbage collector, P99", Unit: units.Seconds, Queries: []Query{{"{{job}} {{pool}}", quantile(0.99, "go_sched_pauses_total_gc_seconds", "job, pool")}}},
				{Kind: Graph, Title: "Goroutines waiting for a thread, P99", Unit: units.Seconds, Queries: []Query{{"{{job}} {{pool}}", quantile(0.99, "go_sched_latencies_seconds", "job, pool")}}},
			}},
		},
	}
}
